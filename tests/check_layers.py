#!/usr/bin/env python3
"""Checks that every folder includes only what its layer may, and keeps to the other rules that
an #include or a call can break.

usage: check_layers.py [ROOT]     prints each fault as FILE:LINE: TEXT; exit 1 when there is one
"""
import pathlib
import re
import sys

# What each folder may include besides itself, lowest layer first. `include` stands for the
# public headers.
LAYERS = {
    "include": set(),
    "core": {"include"},
    "kernels": {"include", "core"},
    "formats": {"include", "core", "kernels"},
    "ptq": {"include", "core", "kernels"},
    "gptq": {"include", "core", "kernels", "ptq"},
    "model": {"include", "core", "kernels", "formats", "ptq"},
    "calib": {"include", "core", "kernels", "formats", "ptq", "gptq", "model"},
    "eval": {"include", "core", "kernels", "formats", "ptq", "gptq", "model", "calib"},
    "cli": {"include"},
}

# Headers of libraries, and the folders or files that may know them.
LIBRARIES = {
    "cblas.h": {"core/linalg.c"},
    "lapacke.h": {"core/linalg.c"},
    "omp.h": {"core/threads.c"},
    "pthread.h": {"core", "calib"},
    "hdf5.h": {"formats"},
    "zip.h": {"formats"},
    "pcre2.h": {"model", "formats"},
    "utf8proc.h": {"model"},
    "jansson.h": {"core", "formats", "model", "calib", "eval", "cli"},
    "nettle/": {"core"},
    "dlfcn.h": {"core"},
}

# Calls that have their one place: (pattern, folders and files that may, what to do instead)
CALLS = [
    (r"\b(?:malloc|calloc|realloc|free|aligned_alloc|posix_memalign|strdup|strndup)\s*\(",
     {"core"}, "memory comes from core/memory.h or an arena"),
    (r"\b(?:printf|vprintf|puts|putchar|perror|psignal)\s*\(", {"cli"}, "the library prints nothing"),
    (r"\b(?:stdout|stderr)\b", {"cli"}, "the library prints nothing"),
    (r"\b(?:exit|_exit|_Exit|abort|quick_exit)\s*\(", {"cli/main.c", "core/child.c"},
     "errors are returned"),
    (r"\bgoto\b", set(), "an owner acquires, calls one worker, and releases"),
    (r"\b(?:sprintf|strcpy|strcat|gets|strtok|atoi|atof|alloca)\s*\(", set(),
     "use the form that knows sizes and reports errors"),
]


def strip(text):
    """The code alone: comments and the content of strings become spaces, lines stay."""
    token = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)

    def blank(match):
        return re.sub(r"[^\n]", " ", match.group())

    return token.sub(blank, text)


def allowed(name, folder, where):
    return folder in where or name in where


def check_include(name, folder, target, system):
    """A fault of one #include, or None."""
    if system:
        for header, where in LIBRARIES.items():
            matches = target.startswith(header) if header.endswith("/") else target == header
            if matches and not allowed(name, folder, where):
                return f"<{target}> belongs to {', '.join(sorted(where))}"
        return None
    first = target.split("/")[0]
    layer = "include" if first == "nybble" else first
    if "/" not in target:
        return None if target == "build.h" else f'"{target}" has no folder in its name'
    if layer not in LAYERS:
        return f'"{target}" is in no layer'
    if layer != folder and layer not in LAYERS[folder]:
        return f'{folder} may not include "{target}"'
    return None


def check_file(root, path):
    name = path.relative_to(root).as_posix()
    folder = name.split("/")[0]
    text = path.read_text(encoding="utf-8")
    faults = []
    for number, line in enumerate(text.splitlines(), 1):
        found = re.match(r'\s*#\s*include\s*(?:<([^>]+)>|"([^"]+)")', line)
        fault = found and check_include(name, folder, found[1] or found[2], bool(found[1]))
        if fault:
            faults.append(f"{name}:{number}: {fault}")
    for number, line in enumerate(strip(text).splitlines(), 1):
        for pattern, where, instead in CALLS:
            found = re.search(pattern, line)
            # What json_dumps() returns has to be given back by free().
            if found and found.group().startswith("free") and "json_dumps(" in text:
                continue
            if found and not allowed(name, folder, where):
                faults.append(f"{name}:{number}: '{found.group().strip()}': {instead}")
    return faults


def check(root):
    root = pathlib.Path(root)
    files = [f for folder in LAYERS for f in sorted((root / folder).rglob("*.[ch]"))]
    if not files:
        return [f"{root}: no source files"]
    return [fault for path in files for fault in check_file(root, path)]


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[1]
    faults = check(root)
    print("\n".join(faults) if faults else "every include and call is where it may be")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
