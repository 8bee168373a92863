#!/usr/bin/env python3
"""Adds up the results of the builds' tests.

usage: count.py FOLDER

FOLDER holds, for each build that was wanted, NAME.wanted; NAME.json, meson's log of its tests; and
NAME.xml, pytest's. A build without one of them counts as a failed test. Prints what failed and,
last, "N passed, N failed"; exit 1 when a test failed or none passed.
"""
import collections
import json
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

Counts = collections.namedtuple("Counts", "passed failed skipped names")


def of_cmocka(text):
    """(passed, failed) as cmocka states them, or None when this is no cmocka program."""
    passed = sum(map(int, re.findall(r"^\[  PASSED  \] (\d+) test\(s\)", text, re.M)))
    failed = sum(map(int, re.findall(r"^\[  FAILED  \] .*?(\d+) test\(s\), listed", text, re.M)))
    return (passed, failed) if passed + failed else None


def of_meson(path):
    """A program is one test, or as many as cmocka counted in it."""
    passed = failed = skipped = 0
    names = []
    for line in path.read_text().splitlines():
        test = json.loads(line)
        fine = test["result"] in ("OK", "EXPECTEDFAIL")
        if test["result"] == "SKIP":
            skipped += 1
            continue
        good, bad = of_cmocka(test.get("stdout", "") + "\n" + test.get("stderr", "")) or (fine, 0)
        passed, failed = passed + good, failed + bad + (not fine and bad == 0)
        if not fine:
            names.append(test["name"])
    return Counts(passed, failed, skipped, names)


def of_pytest(path):
    counts = collections.Counter()
    names = []
    for case in ElementTree.parse(path).iter("testcase"):
        tags = {child.tag for child in case}
        kind = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
        counts[kind] += 1
        if kind == "failed":
            names.append(f"{case.get('classname')}.{case.get('name')}")
    return Counts(counts["passed"], counts["failed"], counts["skipped"], names)


def of_build(folder, name):
    yield "unit tests", folder / f"{name}.json", of_meson
    yield "tests of the program", folder / f"{name}.xml", of_pytest


def main():
    folder = pathlib.Path(sys.argv[1])
    total = Counts(0, 0, 0, [])
    for wanted in sorted(folder.glob("*.wanted")):
        for what, path, read in of_build(folder, wanted.stem):
            try:
                counts = read(path)
            except (OSError, ValueError, KeyError, ElementTree.ParseError) as error:
                print(f"{wanted.stem}: no results of the {what}: {error}")
                counts = Counts(0, 1, 0, [])
            if counts.passed + counts.failed == 0:
                print(f"{wanted.stem}: no {what} were run")
                counts = counts._replace(failed=1)
            print(f"{wanted.stem}: {what}: {counts.passed} passed, {counts.failed} failed, "
                  f"{counts.skipped} skipped")
            for test in counts.names:
                print(f"{wanted.stem}: failed: {test}")
            total = Counts(total.passed + counts.passed, total.failed + counts.failed, 0, [])
    print(f"{total.passed} passed, {total.failed} failed")
    return 0 if total.passed and not total.failed else 1


if __name__ == "__main__":
    sys.exit(main())
