#!/usr/bin/env python3
"""Checks sizes and format of the sources: functions of at most 80 lines, files of at most 600,
and clang-format with nothing to change.

usage: check_project.py [ROOT]    prints each fault as FILE:LINE: TEXT; exit 1 when there is one

clang-format 14 is looked for in NYB_CLANG_FORMAT, .venv/bin and PATH; other versions format
differently, so they are not used. Without it that check is left out, unless CI is `true`.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys

FOLDERS = ["include", "core", "kernels", "formats", "ptq", "gptq", "model", "calib", "eval", "cli",
           "tests", "bench"]
FUNCTION_LINES, FILE_LINES, VERSION = 80, 600, "14."


def function_lengths(lines):
    """(line number, length) of each function: its braces are the ones that start a line."""
    opened = None
    for number, line in enumerate(lines, 1):
        if line.rstrip() == "{":
            opened = number
        elif opened and line.rstrip() == "}":
            yield opened, number - opened + 1
            opened = None


def check_sizes(root, path):
    name = path.relative_to(root).as_posix()
    lines = path.read_text(encoding="utf-8").splitlines()
    faults = [f"{name}:{number}: a function of {length} lines, at most {FUNCTION_LINES}"
              for number, length in function_lengths(lines) if length > FUNCTION_LINES]
    if len(lines) > FILE_LINES:
        faults.append(f"{name}:{len(lines)}: a file of {len(lines)} lines, at most {FILE_LINES}")
    return faults


def find_clang_format(root):
    for candidate in (os.environ.get("NYB_CLANG_FORMAT"), root / ".venv/bin/clang-format",
                      shutil.which("clang-format-14"), shutil.which("clang-format")):
        if candidate and shutil.which(str(candidate)):
            version = subprocess.run([candidate, "--version"], capture_output=True, text=True)
            if re.search(r"version " + re.escape(VERSION), version.stdout):
                return str(candidate)
    return None


def check_format(root, files):
    tool = find_clang_format(root)
    if not tool:
        text = f"no clang-format {VERSION}x found"
        if os.environ.get("CI") == "true":
            return [text]
        print(text + ", format not checked")
        return []
    done = subprocess.run([tool, "--dry-run", "-Werror", "--style=file", *map(str, files)],
                          capture_output=True, text=True, cwd=root)
    lines = re.findall(r"^(.+?):\d+:\d+: error: ", done.stderr, re.M)
    if done.returncode and not lines:
        return [done.stderr.strip()]
    return [f"{os.path.relpath(name, root)}: clang-format -i would change {lines.count(name)} places"
            for name in sorted(set(lines))]


def check(root):
    root = pathlib.Path(root).resolve()
    files = [f for folder in FOLDERS for f in sorted((root / folder).rglob("*.[ch]"))]
    if not files:
        return [f"{root}: no source files"]
    return [fault for path in files for fault in check_sizes(root, path)] + check_format(root, files)


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[1]
    faults = check(root)
    print("\n".join(faults) if faults else "sizes and format are as they should be")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
