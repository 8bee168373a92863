#!/usr/bin/env python3
"""Puts the tables that `nybble help TOPIC` prints into the pages of docs/.

usage: tools/tables.py PROGRAM           rewrites the pages
       tools/tables.py --check PROGRAM   names each table that differs; exit 1 when there is one

In a page a table stands between `<!-- table NAME -->` and `<!-- end -->`.
"""
import json
import pathlib
import re
import subprocess
import sys

PAGES = {"families": "families.md", "formats": "formats.md", "tokenizers": "tokenizers.md"}
PLACE = re.compile(r"(<!-- table ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.S)


def words(text):
    return ", ".join(f"`{word}`" for word in text.split(", ")) if text else ""


def markdown(table):
    titles = [words(c["title"]) if c["title"].startswith("--") else c["title"] for c in table["columns"]]
    lines = [titles, ["---"] * len(titles)]
    for row in table["rows"]:
        lines.append([words(cell) if column["code"] else cell
                      for cell, column in zip(row, table["columns"])])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def filled(page, tables):
    """The page's text with its tables as they should be, and which of them differed."""
    different, seen = [], []

    def put(match):
        name = match[2]
        seen.append(name)
        text = markdown(tables[name]) if name in tables else ""
        if text != match[3]:
            different.append(name)
        return match[1] + text + match[4]

    text = PLACE.sub(put, page)
    return text, different + [name for name in tables if name not in seen]


def differences(program, docs, write):
    found = []
    for topic, name in PAGES.items():
        done = subprocess.run([program, "help", topic, "--json"], capture_output=True, text=True, check=True)
        tables = {table["name"]: table for table in json.loads(done.stdout)["tables"]}
        text, different = filled((docs / name).read_text(), tables)
        found += [f"docs/{name}: table '{table}'" for table in different]
        if write:
            (docs / name).write_text(text)
    return found


def main():
    check = "--check" in sys.argv
    programs = [word for word in sys.argv[1:] if word != "--check"]
    if len(programs) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    docs = pathlib.Path(__file__).resolve().parents[1] / "docs"
    found = differences(programs[0], docs, not check)
    for line in found:
        print(f"{line} {'differs; run tools/tables.py' if check else 'written'}")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main())
