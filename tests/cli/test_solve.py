"""`nybble solve`: options, files, refusals, and what is left behind."""
import hashlib
import json
import os

import numpy as np
import pytest

FILES = {"codes.npy", "scales.npy", "zeros.npy", "g_idx.npy", "report.json"}


@pytest.fixture
def layer(tmp_path):
    rng = np.random.default_rng(1)
    np.save(tmp_path / "w.npy", rng.normal(size=(70, 96)).astype(np.float32))
    inputs = rng.normal(size=(300, 96)).astype(np.float32)
    inputs[:, 5] = 0
    np.save(tmp_path / "x.npy", inputs)
    np.save(tmp_path / "h.npy", inputs.T.astype(np.float64) @ inputs)
    return tmp_path


def call(nybble, layer, *options, **more):
    return nybble("solve", "--weight", "w.npy", "--group-size", "32", *options, "-o", "out",
                  cwd=layer, **more)


def digest(folder):
    """Of the arrays; the report holds times."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for name in sorted(FILES - {"report.json"})}


def refused(nybble, layer, code, *options):
    done = call(nybble, layer, *options, ok=False)
    assert done.returncode == code, done
    assert done.stdout == ""
    assert not (layer / "out").exists() and not (layer / "out.part").exists()
    return done.stderr


def test_writes_five_files_and_says_where(nybble, layer):
    done = call(nybble, layer, "--inputs", "x.npy")
    assert set(os.listdir(layer / "out")) == FILES
    assert "written to" in done.stdout and "out" in done.stdout
    report = json.loads((layer / "out" / "report.json").read_text())
    assert report["method"] == "gptq" and report["activation_order"] == "group"
    assert report["tokens"] == 300 and report["dead_columns"] == 1
    assert 0 < report["loss"] <= report["rtn_loss"] < report["output_energy"]
    codes = np.load(layer / "out" / "codes.npy")
    zeros = np.load(layer / "out" / "zeros.npy")
    assert codes.shape == (70, 96) and zeros.shape == (70, 3)
    assert np.array_equal(codes[:, 5], zeros[:, 0])


def test_json_is_the_report(nybble, layer):
    done = call(nybble, layer, "--hessian", "h.npy", "--json", "--method", "rtn")
    report = json.loads(done.stdout)
    assert report == json.loads((layer / "out" / "report.json").read_text())
    assert report["schema"] == "nybble.solve/1" and report["loss"] == report["rtn_loss"]


def test_plain_rounding_needs_no_inputs(nybble, layer):
    done = call(nybble, layer, "--method", "int4", "--group-size", "-1", "--json")
    report = json.loads(done.stdout)
    assert report["loss"] is None and report["groups"] == 1 and report["symmetric"]


def test_threads_give_the_same_bytes(nybble, layer):
    for order in ("group", "none", "full"):
        seen = set()
        for threads in (1, 2, 3, 4):
            call(nybble, layer, "--inputs", "x.npy", "--threads", threads, "--activation-order",
                 order, "--force")
            seen.add(str(digest(layer / "out")))
        assert len(seen) == 1


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_scales_are_values_of_their_type(nybble, layer, dtype):
    call(nybble, layer, "--inputs", "x.npy", "--asymmetric", "--scale-dtype", dtype,
         "--lowest-zero", "1")
    scales = np.load(layer / "out" / "scales.npy")
    if dtype == "f16":
        assert np.array_equal(scales, scales.astype(np.float16).astype(np.float32))
    else:
        assert np.all(scales.view(np.uint32) % 65536 == 0)
    assert np.load(layer / "out" / "zeros.npy").min() >= 1


def test_reads_other_float_types(nybble, layer):
    for dtype in (np.float16, np.float64):
        np.save(layer / "w.npy", np.load(layer / "w.npy").astype(dtype))
        call(nybble, layer, "--inputs", "x.npy", "--force")


def test_refuses_to_overwrite(nybble, layer):
    call(nybble, layer, "--inputs", "x.npy")
    before = digest(layer / "out")
    done = call(nybble, layer, "--inputs", "x.npy", "--weight-bits", "3", ok=False)
    assert done.returncode == 1 and "--force" in done.stderr
    assert digest(layer / "out") == before
    call(nybble, layer, "--inputs", "x.npy", "--weight-bits", "3", "--force")
    assert digest(layer / "out") != before


def test_force_spares_folders_that_are_not_its_own(nybble, layer):
    (layer / "out").mkdir()
    (layer / "out" / "diary.txt").write_text("mine")
    done = call(nybble, layer, "--inputs", "x.npy", "--force", ok=False)
    assert done.returncode == 1 and "not a folder that a solve wrote" in done.stderr
    assert (layer / "out" / "diary.txt").read_text() == "mine"


@pytest.mark.parametrize("words,symmetric", [
    ([], True), (["--asymmetric"], False), (["--asymmetric", "--symmetric"], True),
    (["--symmetric", "--asymmetric"], False)])
def test_the_last_word_on_symmetry_counts(nybble, layer, words, symmetric):
    call(nybble, layer, "--inputs", "x.npy", *words)
    assert json.loads((layer / "out" / "report.json").read_text())["symmetric"] == symmetric


def test_usage_errors(nybble, layer):
    for options, text in [
            (["--inputs", "x.npy", "--hessian", "h.npy"], "exclude each other"),
            ([], "--hessian or --inputs"),
            (["--inputs", "x.npy", "--weight-bits", "6"], "2, 3, 4 or 8"),
            (["--inputs", "x.npy", "--group-size", "7"], "16 to 1024"),
            (["--method", "int4", "--weight-bits", "3"], "4 bits")]:
        assert text in refused(nybble, layer, 2, *options)


def test_bad_arrays_are_named(nybble, layer):
    good = {name: np.load(layer / f"{name}.npy") for name in "wxh"}

    def spoiled(name, place, value):
        array = good[name].copy()
        array[place] = value
        np.save(layer / f"bad_{name}.npy", array)
        return f"bad_{name}.npy"

    for name, option in (("x", "--inputs"), ("h", "--hessian")):
        np.save(layer / "narrow.npy", good[name][:, :-1])
        assert "95" in refused(nybble, layer, 1, option, "narrow.npy")
        assert "nowhere.npy" in refused(nybble, layer, 1, option, "nowhere.npy")
        np.save(layer / "flat.npy", good[name][0])
        assert "1 axes" in refused(nybble, layer, 1, option, "flat.npy")
    assert "(7, 9) is nan" in refused(nybble, layer, 1, "--inputs", spoiled("x", (7, 9), np.nan))
    assert "(3, 3)" in refused(nybble, layer, 1, "--hessian", spoiled("h", (3, 3), np.nan))
    assert "(3, 4)" in refused(nybble, layer, 1, "--hessian", spoiled("h", (3, 4), np.inf))
    assert "not symmetric" in refused(nybble, layer, 1, "--hessian", spoiled("h", (3, 4), 9e9))
    np.save(layer / "bad_h.npy", 3 * np.ones((96, 96)) - 2 * np.eye(96))
    assert "positive definite" in refused(nybble, layer, 1, "--hessian", "bad_h.npy")
    np.save(layer / "w.npy", np.where(np.arange(96) == 50, np.inf, good["w"]))
    assert "weight (0, 50) is inf" in refused(nybble, layer, 1, "--inputs", "x.npy")
    np.save(layer / "w.npy", good["w"] * 1e9)
    stderr = refused(nybble, layer, 1, "--inputs", "x.npy", "--scale-dtype", "f16")
    assert "too large for F16" in stderr
    np.save(layer / "w.npy", np.zeros((0, 96), np.float32))
    assert "empty" in refused(nybble, layer, 1, "--inputs", "x.npy")
    np.save(layer / "w.npy", np.arange(96).reshape(1, 96))
    refused(nybble, layer, 1, "--inputs", "x.npy")


def test_group_larger_than_the_layer(nybble, layer):
    assert "more than the 96 columns" in refused(nybble, layer, 1, "--inputs", "x.npy",
                                                 "--group-size", "128")
