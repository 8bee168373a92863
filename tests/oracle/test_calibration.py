"""Calibration data: which windows of which files a run uses, and which tokens count in it.

The inputs of the first block's q projection depend on the token alone, so the loss of plain rounding
there is a sum over tokens. It tells, to rounding, which tokens counted."""
import hashlib
import json
import shutil

import numpy
import pytest

from test_chat import CHATML

TEXTS = ["Once upon a time there was a little dog. He was happy and he liked to play in the park.",
         "The cat sat on the mat.", "", "Tom and Lily went to the beach. They saw a big fish!"]
TALKS = [[{"role": "user", "content": "Tell me a story."},
          {"role": "assistant", "content": "Once upon a time there was a cat."},
          {"role": "user", "content": "More"}, {"role": "assistant", "content": "The end."}],
         [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello, Tom."}]]


@pytest.fixture(scope="session")
def model(stories, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration") / "model"
    shutil.copytree(stories, folder)
    (folder / "chat_template.jinja").write_text(CHATML)
    return folder


@pytest.fixture
def run(nybble, model, tmp_path):
    """Quantises with these options; returns what the report says of the data and the first loss."""

    def call(*options, ok=True):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        done = nybble("quantize", model, "-o", out, "-g", -1, *options, ok=ok)
        if not ok:
            assert done.returncode == 1
            return done.stderr
        report = json.loads((out / "nybble_report.json").read_text())
        return report["run"]["calibration"], report["layers"][0]

    return call


def lines(path, values):
    path.write_text("".join(json.dumps(v) + "\n" for v in values))
    return path


def ids_of(nybble, model, texts):
    done = nybble("tokenize", model, "--text", json.dumps(texts), "--list", "--json", "--no-special")
    return json.loads(done.stdout)["ids"]


def hash_of(rows):
    return hashlib.sha256(numpy.array(rows, "<u4").tobytes()).hexdigest()


def test_documents_are_packed(nybble, model, run, tmp_path):
    data, _ = run("--calib", lines(tmp_path / "a.jsonl", [{"text": t} for t in TEXTS]), "-n", 3, "-l", 20)
    stream = [i for ids in ids_of(nybble, model, TEXTS) for i in [*ids, 2]]
    assert data["ids_sha256"] == hash_of(stream[:60]) and data["samples"] == 3
    assert data["tokens"]["counted"] == 60 and data["tokens"]["distinct"] == len(set(stream[:60]))
    top = data["tokens"]["most_frequent"][0]
    assert top["count"] == stream[:60].count(top["id"]) == max(map(stream[:60].count, stream[:60]))


def test_field_and_plain_strings(nybble, model, run, tmp_path):
    plain, _ = run("--calib", lines(tmp_path / "a.jsonl", TEXTS), "-n", 3, "-l", 20)
    field, _ = run("--calib", lines(tmp_path / "b.jsonl", [{"story": t} for t in TEXTS]), "-n", 3, "-l", 20,
                   "--text-field", "story")
    assert plain["ids_sha256"] == field["ids_sha256"]


def test_one_document_a_sample(nybble, model, run, tmp_path):
    """Samples are filled up behind their end, and what fills them counts nowhere."""
    file = lines(tmp_path / "a.jsonl", [{"text": t} for t in TEXTS])
    data, layer = run("--calib", file, "--no-pack", "-n", 9, "-l", 25)
    rows = [[*ids, 2][:25] for ids in ids_of(nybble, model, TEXTS) if ids]
    longest = max(map(len, rows))
    assert data["samples"] == 3 and data["sequence_length"] == longest
    assert data["ids_sha256"] == hash_of([r + [0] * (longest - len(r)) for r in rows])
    assert data["tokens"]["counted"] == layer["tokens"] == sum(map(len, rows))
    sums = 0
    for i, row in enumerate(rows):
        (tmp_path / f"row{i}.json").write_text(json.dumps([row]))
        sums += run("--calib", tmp_path / f"row{i}.json", "-n", 1, "-l", 25)[1]["rtn_loss"]
    print(f"loss {layer['rtn_loss']}, want {sums}, tolerance 1e-5")
    assert layer["rtn_loss"] == pytest.approx(sums, rel=1e-5)


def test_padding_changes_nothing(nybble, model, run, tmp_path):
    """One short document alone, and beside a longer one that does not count twice."""
    short = lines(tmp_path / "a.jsonl", [TEXTS[1], TEXTS[1]])
    same, one = run("--calib", short, "--no-pack", "-n", 2, "-l", 64)
    (tmp_path / "rows.json").write_text(json.dumps([[*ids_of(nybble, model, [TEXTS[1]])[0], 2]] * 2))
    ready, other = run("--calib", tmp_path / "rows.json", "-n", 2, "-l", 64)
    assert same["ids_sha256"] == ready["ids_sha256"] and one["sha256"] == other["sha256"]


@pytest.mark.parametrize("packing", ["--pack", "--no-pack"])
def test_loss_mask(nybble, model, run, tmp_path, packing):
    file = lines(tmp_path / "a.jsonl", [{"messages": t} for t in TALKS])
    done = nybble("tokenize", model, file, "--chat", "--json")
    told = json.loads(done.stdout)
    pairs = [p for ids, marks in zip(told["ids"], told["assistant"]) for p in zip(ids, marks)]
    said = [i for i, mark in pairs if mark]
    assert 10 < len(said) < len(pairs)
    # Two samples, or the whole as one window.
    length = 1000 if packing == "--no-pack" else len(pairs)
    data, masked = run("--calib", file, "--chat", "--loss-mask", "assistant", packing, "-n", 2, "-l", length)
    assert data["tokens"]["counted"] == masked["tokens"] == len(said) and data["loss_mask"] == "assistant"
    (tmp_path / "said.json").write_text(json.dumps([said]))
    _, alone = run("--calib", tmp_path / "said.json", "-n", 1, "-l", len(said))
    print(f"loss {masked['rtn_loss']}, want {alone['rtn_loss']}, tolerance 1e-5")
    assert masked["rtn_loss"] == pytest.approx(alone["rtn_loss"], rel=1e-5)
    every, whole = run("--calib", file, "--chat", packing, "-n", 2, "-l", length)
    assert every["tokens"]["counted"] == whole["tokens"] == len(pairs)


def test_frequencies(nybble, model):
    text = " ".join(TEXTS)
    ids = ids_of(nybble, model, [text])[0]
    done = nybble("tokenize", model, "--text", text, "--frequencies", "--json", "--no-special")
    told = json.loads(done.stdout)
    assert told["count"] == len(ids) and told["distinct"] == len(set(ids)) == len(told["frequencies"])
    assert all(f["count"] == ids.count(f["id"]) for f in told["frequencies"])
    counts = [f["count"] for f in told["frequencies"]]
    assert counts == sorted(counts, reverse=True)
    table = nybble("tokenize", model, "--text", text, "--frequencies", "--no-special").stdout.splitlines()
    assert len(table) == len(counts) + 1


def test_weights(nybble, model, run, tmp_path):
    first, second = tmp_path / "a.json", tmp_path / "b:c.json"
    rows = numpy.arange(600).reshape(60, 10) % 500
    first.write_text(json.dumps(rows[:30].tolist()))
    second.write_text(json.dumps(rows[30:].tolist()))
    for weights, shares in ((("", ""), (6, 6)), ((":3", ""), (9, 3)), ((":0.5", ":1"), (4, 8))):
        data, _ = run("--calib", f"{first}{weights[0]}", "--calib", f"{second}{weights[1]}", "-n", 12, "-l", 10)
        want = [*rows[:shares[0]], *rows[30:30 + shares[1]]]
        assert data["ids_sha256"] == hash_of(want) and len(data["files"]) == 2


def test_the_same_for_any_number_of_threads(nybble, model, run, tmp_path):
    file = lines(tmp_path / "a.jsonl", [{"messages": t} for t in TALKS * 3])
    options = ("--calib", file, "--chat", "--loss-mask", "assistant", "--no-pack", "-n", 6, "-l", 99)
    assert run(*options, "--threads", 1)[1]["sha256"] == run(*options, "--threads", 3)[1]["sha256"]


def test_refusals(nybble, model, run, tmp_path):
    parquet = tmp_path / "a.parquet"
    parquet.write_bytes(b"PAR1" + bytes(40) + b"PAR1")
    assert "write it as JSON lines" in run("--calib", parquet, ok=False)
    bad = lines(tmp_path / "b.jsonl", [{"text": "x"}, {"words": "x"}])
    assert "line 2" in run("--calib", bad, ok=False) and "--text-field" in run("--calib", bad, ok=False)
    text = tmp_path / "c.txt"
    text.write_text("Once upon a time " * 20)
    assert "give --chat" in run("--calib", text, "--loss-mask", "assistant", ok=False)
    assert "weight" in run("--calib", f"{text}:0", ok=False)
    assert "none of 1 windows" in run("--calib", text, "--calib", f"{text}:0.01", "-n", 1, ok=False)
    silent = lines(tmp_path / "d.jsonl", [TALKS[0][:1]])
    assert "no token" in run("--calib", silent, "--chat", "--loss-mask", "assistant", ok=False)
    wrong = lines(tmp_path / "e.jsonl", [{"messages": []}])
    assert "line 1" in run("--calib", wrong, "--chat", ok=False)
