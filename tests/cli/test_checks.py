"""The checks of the sources can fail: each rule is broken once in a copy of a small tree."""
import pathlib
import sys

import pytest

import conftest

sys.path.insert(0, str(conftest.ROOT / "tests"))
import check_layers  # noqa: E402
import check_project  # noqa: E402

GOOD = '#include "core/arena.h"\n\n// malloc(1) and printf("x") in a comment are no calls\n' \
       'const char *text = "exit(1), stderr";\n'


def tree(tmp_path, files):
    for name, text in {"core/arena.c": GOOD, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_clean_tree_has_no_faults(tmp_path):
    assert check_layers.check(tree(tmp_path, {})) == []


def test_an_empty_tree_is_a_fault(tmp_path):
    assert check_layers.check(tmp_path) and check_project.check(tmp_path)


@pytest.mark.parametrize("name, line, word", [
    ("core/x.c", '#include "model/model.h"', "core may not include"),
    ("gptq/x.c", '#include "formats/npy.h"', "gptq may not include"),
    ("gptq/x.c", '#include "model/model.h"', "gptq may not include"),
    ("formats/x.c", '#include "ptq/grid.h"', "formats may not include"),
    ("ptq/x.c", '#include "formats/npy.h"', "ptq may not include"),
    ("cli/x.c", '#include "core/arena.h"', "cli may not include"),
    ("cli/x.c", '#include "eval/compare.h"', "cli may not include"),
    ("include/nybble/x.h", '#include "core/arena.h"', "include may not include"),
    ("eval/x.c", '#include "cli/command.h"', "eval may not include"),
    ("core/x.c", '#include "arena.h"', "has no folder"),
    ("core/x.c", '#include "tests/test.h"', "is in no layer"),
    ("gptq/x.c", "#include <cblas.h>", "belongs to core/linalg.c"),
    ("model/x.c", "#include <hdf5.h>", "belongs to formats"),
    ("gptq/x.c", "#include <jansson.h>", "belongs to"),
    ("gptq/x.c", "void *p = malloc(4);", "memory comes from"),
    ("cli/x.c", "    free(p);", "memory comes from"),
    ("eval/x.c", '    printf("x");', "prints nothing"),
    ("eval/x.c", '    fprintf(stderr, "x");', "prints nothing"),
    ("eval/x.c", "    exit(1);", "errors are returned"),
    ("core/x.c", "    goto done;", "an owner acquires"),
    ("core/x.c", "    strcpy(a, b);", "knows sizes"),
])
def test_each_broken_rule_is_found(tmp_path, name, line, word):
    faults = check_layers.check(tree(tmp_path, {name: f"\n{line}\n"}))
    assert len(faults) == 1 and faults[0].startswith(f"{name}:2: ") and word in faults[0], faults


def test_long_functions_and_files_are_found(tmp_path):
    long = "void f(void)\n{\n" + "    g();\n" * 79 + "}\n"
    root = tree(tmp_path, {"core/long.c": long, "core/far.c": "int x;\n" * 601})
    faults = "\n".join(check_project.check(root))
    assert "core/long.c:2: a function of 81 lines" in faults and "core/far.c:601" in faults
    assert "arena.c" not in faults


def test_bad_format_is_found(tmp_path):
    if not check_project.find_clang_format(conftest.ROOT):
        conftest.missing("no clang-format 14")
    root = tree(tmp_path, {"core/x.c": "int  f( void ){return 1 ;}\n"})
    (root / ".clang-format").write_text((conftest.ROOT / ".clang-format").read_text())
    faults = check_project.check_format(conftest.ROOT, [root / "core" / "x.c"])
    assert len(faults) == 1 and "clang-format -i would change" in faults[0]


def test_the_scripts_report_by_exit_status(tmp_path):
    import subprocess

    root = tree(tmp_path, {"gptq/x.c": '#include "formats/npy.h"\n'})
    script = conftest.ROOT / "tests" / "check_layers.py"
    done = subprocess.run([sys.executable, script, root], capture_output=True, text=True)
    assert done.returncode == 1 and "gptq/x.c:1" in done.stdout
