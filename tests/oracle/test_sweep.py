"""Sweeps: what is done, what is written, and that the commands in it do the same."""
import csv
import json
import os
import re
import shlex
import subprocess

import pytest

SETTINGS = {"group_size": 32, "symmetric": False}
RECIPE = {"modules": [{"pattern": "*.mlp.down_proj", "group_size": -1}]}


@pytest.fixture
def place(stories, tmp_path, monkeypatch):
    """A folder with a model, texts and a recipe, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(stories)
    lines = (stories.parent / "tinystories.txt").read_text().splitlines(keepends=True)
    (tmp_path / "calib.txt").write_text("".join(lines[:400]))
    (tmp_path / "eval.txt").write_text("".join(lines[-200:]))
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    return tmp_path


def write(place, **more):
    spec = {"model": "model", "recipe": "recipe.json", "settings": SETTINGS,
            "calibration": {"files": ["calib.txt"], "num_samples": 8, "sequence_length": 128},
            "eval": {"text": "eval.txt", "window": 128, "max_tokens": 512, "kl": True}, **more}
    (place / "spec.json").write_text(json.dumps({k: v for k, v in spec.items() if v is not None}))


def sweep(nybble, *more, **options):
    return nybble("sweep", "spec.json", "-o", "out", *more, **options)


def lines(place):
    return [json.loads(line) for line in (place / "out/results.jsonl").read_text().splitlines()]


def tensors(folder):
    return (folder / "model.safetensors").read_bytes()


def timeless(layers):
    return [{k: v for k, v in layer.items() if "seconds" not in k} for layer in layers]


def run(program, command):
    """A command as the results have it."""
    words = shlex.split(command)
    assert words[0] == "nybble"
    done = subprocess.run([program, *words[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_point_is_what_its_command_makes(program, nybble, place):
    write(place, grid={"weight_bits": [3, 2], "method": ["gptq", "rtn"], "refine": [0, 2]},
          points=[{"method": "int4", "group_size": -1}, {"weight_bits": 3, "mode": "sequential"}])
    sweep(nybble, "--keep")
    original, *points = lines(place)
    assert original["base"] and original["method"] == "original" and "kl" not in original
    names = [p["name"] for p in points]
    assert names == ["gptq-3-g32-refine_0", "gptq-3-g32-refine_2", "rtn-3-g32",
                     "gptq-2-g32-refine_0", "gptq-2-g32-refine_2", "rtn-2-g32", "int4-4-row",
                     "gptq-3-g32-sequential"]
    stores = {p["calibrate"] for p in points if "calibrate" in p}
    assert len(stores) == 1 and len(list((place / "out/stores").iterdir())) == 1
    for p in points:
        made = place / "out/points" / p["name"]
        kept = tensors(made)
        made.rename(place / "kept")
        run(program, p["command"])
        assert tensors(made) == kept, p["name"]
        alone = json.loads((made / "nybble_report.json").read_text())["layers"]
        assert timeless(p["layers"]) == timeless(alone)
        found = json.loads(nybble("compare", "model", "kept", "--text", "eval.txt", "--window", 128,
                                  "--max-tokens", 512, "--json").stdout)["models"][1]
        for key in ("perplexity", "kl", "top1", "bits_per_weight"):
            assert found[key] == pytest.approx(p[key], rel=1e-8), key
        report = json.loads((place / "kept/nybble_report.json").read_text())
        assert p["layers"] == report["layers"] and len(p["layers"]) == 35
        assert p["schema"] == "nybble.point/1" and p["kl"] > 0 and 0 < p["top1"] <= 1
        losses = [layer["loss"] for layer in p["layers"] if "loss" in layer]
        assert len(losses) == 35
        assert abs(sum(p["kind_loss"].values()) / sum(losses) - 1) < 1e-6
        assert abs(p["layer_loss"] / sum(losses) - 1) < 1e-6
        subprocess.run(["rm", "-r", place / "kept"], check=True)


def test_points_that_share_their_factors_are_those_of_runs_alone(program, nybble, place):
    write(place, grid={"activation_order": ["group", "full"], "hessian_damping": [0.01, 0.1],
                       "weight_bits": [3, 2]}, settings={**SETTINGS, "static_groups": True}, eval=None)
    sweep(nybble)
    points = lines(place)
    assert len({json.dumps(timeless(p["layers"])) for p in points}) == len(points) == 8
    for p in points:
        run(program, p["command"])
        report = json.loads((place / "out/points" / p["name"] / "nybble_report.json").read_text())
        assert timeless(p["layers"]) == timeless(report["layers"]), p["name"]


def test_page_is_made_of_the_results(nybble, place):
    write(place, grid={"weight_bits": [4, 2]})
    sweep(nybble, "--html", "page.html")
    page = (place / "page.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "gptq-4-g32" in page and "gptq-2-g32" in page
    done = sweep(nybble, "--html", "page.html", ok=False)
    assert done.returncode == 1 and "--force" in done.stderr
    assert "2 of them known" in sweep(nybble, "--html", "page.html", "--force").stdout
    assert (place / "page.html").read_text() == page


def test_table_says_the_same_as_the_lines(nybble, place):
    write(place, grid={"weight_bits": [4, 2]}, eval={"text": "eval.txt", "max_tokens": 300})
    sweep(nybble)
    rows = list(csv.DictReader((place / "out/results.csv").open()))
    assert [row["name"] for row in rows] == ["original", "gptq-4-g32", "gptq-2-g32"]
    for row, line in zip(rows, lines(place)):
        assert row["method"] == line["method"]
        assert float(row["perplexity"]) == pytest.approx(line["perplexity"], rel=1e-8)
        assert row["command"] == line.get("command", "") and row["kl"] == ""
    assert rows[1]["weight_bits"] == "4" and rows[1]["symmetric"] == "false"
    assert not any((place / "out/points").iterdir())


def test_what_is_done_is_not_done_again(nybble, place):
    write(place, grid={"weight_bits": [4, 3, 2]})
    sweep(nybble)
    results = place / "out/results.jsonl"
    whole, table = results.read_bytes(), (place / "out/results.csv").read_bytes()
    store = next((place / "out/stores").iterdir())
    before = store.stat().st_mtime_ns
    assert "3 of them known" in sweep(nybble).stdout and results.read_bytes() == whole

    # An interruption after the first point, with the second one half made.
    results.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    (place / "out/points/gptq-3-g32.partial").mkdir()
    assert "1 of them known" in sweep(nybble).stdout
    got, want = lines(place), [json.loads(line) for line in whole.splitlines()]
    for line in got + want:
        line.pop("seconds", None)
        for layer in line.get("layers", []):
            layer.pop("seconds"), layer.pop("refine_seconds", None)
    assert got == want and store.stat().st_mtime_ns == before
    assert len((place / "out/results.csv").read_bytes().splitlines()) == len(table.splitlines())

    # More points are added; other text makes all of them anew.
    write(place, grid={"weight_bits": [4, 3, 2, 8]})
    assert "4 points, 3 of them known" in sweep(nybble).stdout
    (place / "eval.txt").write_text("Once upon a time there was a little dog. " * 40)
    assert "4 points, 0 of them known" in sweep(nybble).stdout
    assert store.stat().st_mtime_ns == before and len(lines(place)) == 10


def test_sets_of_calibration_data_have_a_store_each(nybble, place):
    write(place, calibration={"a": {"files": "calib.txt", "num_samples": 8, "sequence_length": 64},
                              "b": {"files": ["eval.txt"], "num_samples": 4, "sequence_length": 64}},
          grid={"calibration": ["a", "b"], "num_samples": [4, 8], "weight_bits": 3}, eval=None)
    sweep(nybble)
    points = lines(place)
    assert [p["name"] for p in points] == ["gptq-3-g32-a-n_4", "gptq-3-g32-a-n_8",
                                           "gptq-3-g32-b-n_4", "gptq-3-g32-b-n_8"]
    assert len(list((place / "out/stores").iterdir())) == 4
    assert len({p["layer_loss"] for p in points}) == 4
    assert {p["layers"][0]["tokens"] for p in points} == {4 * 64, 8 * 64}
    assert all(p["bits_per_weight"] > 3 for p in points)

    # A store that is there.
    write(place, calibration={"hessians": str(next((place / "out/stores").glob("a-n8-*.h5")))},
          points=[{"weight_bits": 3}], eval=None)
    sweep(nybble)
    last = lines(place)[-1]
    assert last["layer_loss"] == points[1]["layer_loss"] and "calibrate" not in last


def test_list_does_nothing(nybble, place):
    write(place, grid={"weight_bits": [3, 2], "scale_search": [True, False]})
    listed = sweep(nybble, "--list").stdout.splitlines()
    assert len(listed) == 4 and all(line.startswith("nybble quantize model ") for line in listed)
    assert "--no-scale-search" in listed[1] and not (place / "out").exists()


def test_points_that_come_to_the_same_are_one(nybble, place):
    write(place, grid={"method": ["rtn", "int4", "int8"], "hessian_damping": [0.01, 0.1],
                       "weight_bits": [4, 3]}, points=[{"method": "rtn"}], eval=None)
    names = [re.search(r"points/(\S+)", line)[1] for line in sweep(nybble, "--list").stdout.splitlines()]
    assert names == ["rtn-4-g32", "rtn-3-g32", "int4-4-g32", "int8-8-row", "rtn-4-g32-2"]


@pytest.mark.parametrize("change,words", [
    ({"grid": None}, "want points"),
    ({"grid": {}}, "want points"),
    ({"grid": {"weight_bits": []}}, "empty list"),
    ({"grid": {"weight_bits": [5]}}, "weight bits are 5"),
    ({"grid": {"bits": [4]}}, "unknown setting 'bits'"),
    ({"points": [3]}, "entry 0 of 'points'"),
    ({"points": [{"mode": "both"}]}, "no value 'both'"),
    ({"points": [{"calibration": "x"}]}, "no calibration 'x'"),
    ({"calibration": None}, "needs a 'calibration'"),
    ({"calibration": {"files": [1]}}, "are not names"),
    ({"calibration": {"a": {}}}, "'files' or 'hessians'"),
    ({"calibration": {"hessians": "h.h5", "first_weight": 16}}, "'first_weight' goes with 'files'"),
    ({"eval": {"window": 8}}, "has no 'text'"),
    ({"eval": {"text": "none.txt"}}, "none.txt"),
    ({"model": None}, "has no 'model'"),
    ({"modle": "x"}, "unknown key 'modle'"),
    ({"grid": {f"x{i}": list(range(100)) for i in range(9)}}, "too many points"),
])
def test_what_makes_no_sense_is_refused(nybble, place, change, words):
    write(place, **{"grid": {"weight_bits": [4]}, **change})
    done = sweep(nybble, ok=False)
    assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (place / "out").exists()


def test_damaged_results_are_not_overwritten(nybble, place):
    write(place, grid={"weight_bits": [4]})
    (place / "out").mkdir()
    (place / "out/results.jsonl").write_text('{"key": "a"}\nnothing\n')
    done = sweep(nybble, ok=False)
    assert done.returncode == 1 and "line 2" in done.stderr
    assert (place / "out/results.jsonl").read_text().endswith("nothing\n")


def test_example_and_its_loop_agree(program, root, tmp_path):
    done = subprocess.run([root / "examples/sweep", tmp_path], capture_output=True, text=True,
                          env={**os.environ, "NYBBLE": program})
    assert done.returncode == 0, done.stderr
    loop = dict(line.split() for line in (tmp_path / "loop.txt").read_text().splitlines())
    points = [json.loads(line) for line in (tmp_path / "results/results.jsonl").read_text().splitlines()]
    got = {p["name"]: f"{p['perplexity']:.4f}" for p in points if "base" not in p}
    assert got == loop and len(got) == 11
