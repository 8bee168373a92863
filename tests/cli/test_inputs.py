"""Files that a command is to read and that are not there: said before all else."""
import json

import pytest


@pytest.mark.parametrize("words", [
    ["quantize", "MODEL", "-o", "OUT", "--calib", "GONE"],
    ["quantize", "MODEL", "-o", "OUT", "--calib", "THERE", "--calib", "GONE:2"],
    ["quantize", "MODEL", "-o", "OUT", "--hessians", "GONE"],
    ["quantize", "MODEL", "-o", "OUT", "--calib", "THERE", "--recipe", "GONE"],
    ["quantize", "MODEL", "-o", "OUT.gguf", "--format", "gguf:Q4_0", "--imatrix-in", "GONE"],
    ["plan", "MODEL", "--calib", "GONE"],
    ["allocate", "MODEL", "-o", "OUT", "--target-bits", "3", "--hessians", "GONE"],
    ["calibrate", "MODEL", "-o", "OUT.json", "--calib", "GONE"],
    ["calibrate", "MODEL", "-o", "OUT.h5", "--calib", "GONE"],
    ["calibrate", "MODEL", "-o", "OUT.h5", "--calib", "THERE", "--extend", "GONE"],
])
def test_missing_files_are_told_first(nybble, stories, tmp_path, words):
    """The model's rows of 172 do not go with groups of 128, which is the default."""
    there = tmp_path / "there.txt"
    there.write_text("Once upon a time.\n" * 50)
    names = {"MODEL": stories, "OUT": tmp_path / "out", "THERE": there,
             "GONE": tmp_path / "gone.txt", "GONE:2": f"{tmp_path}/gone.txt:2",
             "OUT.json": tmp_path / "out.json", "OUT.h5": tmp_path / "out.h5",
             "OUT.gguf": tmp_path / "out.gguf"}
    done = nybble(*[names.get(word, word) for word in words], ok=False)
    assert done.returncode == 1
    assert f"{tmp_path}/gone.txt: cannot open it: No such file or directory" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there.txt"]


def test_reports_name_the_command(nybble, stories, tmp_path):
    """So that the page can show what made each checkpoint."""
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"method": "int8"}))
    nybble("quantize", stories, "--recipe", recipe, "-o", tmp_path / "int8")
    nybble("convert", tmp_path / "int8", "-f", "f32", "-o", tmp_path / "a floats")
    nybble("rotate", stories, "--seed", 3, "-o", tmp_path / "rotated")
    for name, command in (("int8", f"quantize {stories} --recipe {recipe} -o {tmp_path}/int8"),
                          ("a floats", f"convert {tmp_path}/int8 -f f32 -o '{tmp_path}/a floats'"),
                          ("rotated", f"rotate {stories} --seed 3 -o {tmp_path}/rotated")):
        report = json.loads((tmp_path / name / "nybble_report.json").read_text())
        assert report["command"] == f"nybble {command}"
        assert report["schema"] == "nybble.report/1" and report["layers"]
