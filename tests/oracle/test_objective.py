"""--objective model: layers aim at what the unrounded model gives. (That the target solves its
equations is tests/gptq/target_test.c's.)"""
import json
import signal
import subprocess
import time

import pytest

from test_quantize import report, run_measured, settings, sums, text # noqa: F401 (a fixture)

MODEL = ["--objective", "model"]


def divergence(nybble, original, folder, text):
    done = nybble("compare", original, folder, "--text", text, "--max-tokens", 8192, "--window", 256,
                  "--json")
    rows = json.loads(done.stdout)["models"]
    return rows[1]["kl"]


@pytest.mark.parametrize("bits", [2, 3])
def test_predictions_come_back(nybble, stories, text, tmp_path, bits):
    found = {}
    for name, more in {"layer": [], "model": MODEL}.items():
        nybble("quantize", stories, "-o", tmp_path / name, "-b", bits, "-g", "-1", *settings(text),
               *more)
        found[name] = divergence(nybble, stories, tmp_path / name, text)
    print(f"{bits} bits: divergence {found['layer']:.4f} by layers, {found['model']:.4f} by the "
          "model")
    assert found["model"] < found["layer"]
    assert report(tmp_path / "model")["run"]["objective"] == {"kind": "model", "strength": 0.5,
                                                               "step": 1}
    assert "objective" not in report(tmp_path / "layer")["run"]


# Four and a half of the units that activations are cut into.
MANY = ["--num-samples", 72, "--sequence-length", 128]


@pytest.mark.parametrize("step", [1, 2])
def test_the_same_bytes(nybble, stories, text, tmp_path, step):
    """Whatever the threads, and with activations that lie on disk."""
    run = ["quantize", stories, "-b", 3, "-g", "-1", "--calib", text, *MANY, *MODEL,
           "--objective-step", step]
    plan = json.loads(nybble("plan", *run[1:], "--json").stdout)["memory"]
    ceiling = plan["total"] - plan["activations"] * 2 // 5
    assert json.loads(nybble("plan", *run[1:], "--memory", ceiling, "--json").stdout)["spill_bytes"]
    for name, more in {"a": ["--threads", 1], "b": ["--threads", 3],
                       "c": ["--memory", ceiling]}.items():
        nybble(*run, "-o", tmp_path / name, *more)
    assert sums(tmp_path / "a") == sums(tmp_path / "b") == sums(tmp_path / "c")
    assert report(tmp_path / "a")["run"]["objective"]["step"] == step


@pytest.mark.real  # sanitizers take memory of their own
def test_memory_is_what_was_planned(program, nybble, stories, text, tmp_path):
    """With and without a ceiling that sends activations of both models to disk."""
    run = ["quantize", stories, "-g", "-1", "--calib", text, "-n", 128, "-l", 256, *MODEL]
    free = json.loads(nybble("plan", *run[1:], "--json").stdout)["memory"]
    ceiling = free["total"] - free["activations"] * 2 // 3
    plan = json.loads(nybble("plan", *run[1:], "--memory", ceiling, "--json").stdout)
    assert plan["spill_bytes"] > 0 and plan["memory"]["total"] <= ceiling
    peaks = [run_measured(program, *run, "-o", tmp_path / "free"),
             run_measured(program, *run, "-o", tmp_path / "kept", "--memory", ceiling)]
    print(f"peaks {peaks[0] >> 20} and {peaks[1] >> 20} MiB, planned {free['total'] >> 20} and at most "
          f"{ceiling >> 20}")
    assert peaks[0] <= free["total"] and peaks[1] <= ceiling < peaks[0]
    assert sums(tmp_path / "kept") == sums(tmp_path / "free")


def test_some_tokens_do(nybble, stories, text, tmp_path):
    """Part of the tokens gives most of what all of them give."""
    found = {}
    for name, more in {"layer": [], "all": MODEL, "half": [*MODEL, "--objective-step", 2]}.items():
        nybble("quantize", stories, "-o", tmp_path / name, "-b", 2, "-g", "-1", "--calib", text, *MANY,
               *more)
        found[name] = divergence(nybble, stories, tmp_path / name, text)
    print("divergence", found)
    assert found["half"] - found["all"] < 0.5 * (found["layer"] - found["all"])


def test_resume_gives_the_same_bytes(program, nybble, stories, text, tmp_path):
    options = ["-b", "3", "-g", "-1", *map(str, settings(text)), *MODEL]
    nybble("quantize", stories, "-o", tmp_path / "whole", *options)
    out = tmp_path / "out"
    journal = tmp_path / "out.partial" / "nybble_journal.jsonl"
    words = [program, "quantize", stories, "-o", out, *options]
    child = subprocess.Popen(list(map(str, words)), stdout=subprocess.DEVNULL)
    while child.poll() is None and (not journal.exists() or journal.read_text().count("\n") < 4):
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait()
    finished = journal.read_text().count("\n") if journal.exists() else 0
    print(f"killed after {finished} lines of the journal")
    if not out.exists():
        nybble("quantize", stories, "-o", out, *options, "--resume")
    assert sums(out) == sums(tmp_path / "whole")


@pytest.mark.parametrize("options, says", [
    (["-m", "rtn", "-g", "-1"], "--method gptq"),
    (["-g", "-1", "--objective-strength", "2"], "objective-strength"),
    (["-g", "-1", "--objective-step", "0"], "objective-step"),
])
def test_refusals(nybble, stories, tmp_path, options, says):
    done = nybble("quantize", stories, "-o", tmp_path / "out", *options, *MODEL, ok=False)
    assert done.returncode in (1, 2) and says in done.stderr
    assert not (tmp_path / "out").exists()


def test_keras_is_refused(nybble, root, tmp_path):
    done = nybble("quantize", root / "examples" / "keras" / "dense.keras", "-o",
                  tmp_path / "out.keras", "-m", "int8", *MODEL, ok=False)
    assert done.returncode == 1 and "--objective" in done.stderr
