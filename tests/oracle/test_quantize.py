"""Whole runs: the files that `nybble quantize` writes, against readers that its developers did not
write, and against themselves at other thread counts and after an interruption."""
import hashlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import transformers
from conftest import missing
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="session")
def text(stories):
    return stories.parent / "tinystories.txt"


def settings(text, *more):
    return ["--calib", text, "--num-samples", 16, "--sequence-length", 128, *more]


def sums(folder):
    """SHA-256 of every tensor file."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.glob("*.safetensors"))}


def report(folder):
    return json.loads((folder / "nybble_report.json").read_text())


# ---- Decoders written for this test alone ---------------------------------------------------

def stream(words, bits, count):
    """`count` codes of a little-endian stream of 32-bit words, along the last axis."""
    raw = np.ascontiguousarray(words.astype("<u4")).view(np.uint8)
    flat = np.unpackbits(raw, axis=-1, bitorder="little")[..., : count * bits]
    flat = flat.reshape(*words.shape[:-1], count, bits)
    return (flat.astype(np.int64) << np.arange(bits)).sum(-1)


def decode_gptq(tensors, module, bits, v1):
    qweight, g_idx = tensors[module + ".qweight"], tensors[module + ".g_idx"]
    scales = tensors[module + ".scales"].astype(np.float32)
    codes = stream(qweight.T, bits, g_idx.size)
    zeros = stream(tensors[module + ".qzeros"], bits, scales.shape[1])
    zeros = (zeros + (1 if v1 else 0)).T
    return codes, scales.T, zeros, g_idx


def decode_compressed(tensors, module, bits, symmetric):
    rows, cols = tensors[module + ".weight_shape"]
    scales = tensors[module + ".weight_scale"].astype(np.float32)
    codes = stream(tensors[module + ".weight_packed"], bits, cols)
    if symmetric:
        zeros = np.full(scales.shape, 1 << (bits - 1))
    else:
        zeros = stream(tensors[module + ".weight_zero_point"].T, bits, rows).T
    return codes, scales, zeros, np.arange(cols) // -(-cols // scales.shape[1])


def fingerprint(codes, scales, zeros, group_of, bits):
    """What nybble_report.json calls a layer's sha256."""
    h = hashlib.sha256(struct.pack("<4Q", *codes.shape, scales.shape[1], bits))
    for array, kind in ((codes, "u1"), (scales, "<f4"), (zeros, "u1"), (group_of, "<u4")):
        h.update(np.ascontiguousarray(array.astype(kind)).tobytes())
    return h.hexdigest()


CASES = [
    (fmt, bits, symmetric, order)
    for fmt in ("gptq", "gptq_v2", "compressed-tensors")
    for bits in (2, 3, 4, 8)
    for symmetric in (True, False)
    for order in ("none", "group", "full")
    if not (fmt == "compressed-tensors" and order == "full")
]


@pytest.fixture(scope="session")
def padded(stories, tmp_path_factory):
    """stories260k with every width a multiple of 32, as the GPTQ layout needs it."""
    folder = tmp_path_factory.mktemp("padded") / "model"
    shutil.copytree(stories, folder)
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    narrow, wide = config["intermediate_size"], 192
    for name, tensor in tensors.items():
        if "mlp" in name:
            out = torch.zeros([wide if n == narrow else n for n in tensor.shape])
            out[: tensor.shape[0], : tensor.shape[1]] = tensor
            tensors[name] = out
    config["intermediate_size"] = wide
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("fmt,bits,symmetric,order", CASES)
def test_file_holds_what_was_solved(nybble, padded, text, tmp_path, fmt, bits, symmetric, order):
    more = ["--format", fmt, "-b", bits, "-g", 32, "--activation-order", order]
    more += [] if symmetric else ["--asymmetric"]
    nybble("quantize", padded, "-o", tmp_path / "out", *settings(text, *more))
    tensors = load_numpy(tmp_path / "out" / "model.safetensors")
    layers = report(tmp_path / "out")["layers"]
    assert len(layers) == 5 * 7
    for layer in layers:
        if fmt == "compressed-tensors":
            got = decode_compressed(tensors, layer["module"], bits, symmetric)
        else:
            got = decode_gptq(tensors, layer["module"], bits, fmt == "gptq")
        assert got[0].max() < 1 << bits and got[2].max() < 1 << bits
        assert fingerprint(*got, bits) == layer["sha256"], layer["module"]


def unpacked(folder, padded, fmt, bits, symmetric, out):
    """The same model with every layer's weights written out as f32."""
    packed, tensors = load_numpy(folder / "model.safetensors"), load_file(
        padded / "model.safetensors")
    for layer in report(folder)["layers"]:
        module = layer["module"]
        if fmt == "compressed-tensors":
            codes, scales, zeros, group_of = decode_compressed(packed, module, bits, symmetric)
        else:
            codes, scales, zeros, group_of = decode_gptq(packed, module, bits, fmt == "gptq")
        steps = codes.astype(np.float32) - zeros[:, group_of].astype(np.float32)
        weight = scales.astype(np.float32)[:, group_of] * steps
        tensors[module + ".weight"] = torch.from_numpy(weight).contiguous()
    shutil.copytree(padded, out)
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    return out


@pytest.mark.parametrize("fmt,bits,symmetric,order", [
    ("gptq", 4, True, "full"), ("gptq_v2", 3, False, "full"), ("gptq_v2", 8, False, "group"),
    ("gptq", 2, True, "none"), ("compressed-tensors", 4, False, "group"),
    ("compressed-tensors", 3, True, "none"), ("compressed-tensors", 8, True, "group"),
    ("compressed-tensors", 2, False, "none")])
def test_packed_codes_run_as_their_weights(nybble, padded, text, tmp_path, fmt, bits, symmetric,
                                           order):
    more = ["--format", fmt, "-b", bits, "-g", 32, "--activation-order", order]
    more += [] if symmetric else ["--asymmetric"]
    nybble("quantize", padded, "-o", tmp_path / "out", *settings(text, *more))
    plain = unpacked(tmp_path / "out", padded, fmt, bits, symmetric, tmp_path / "plain")
    prompt = [1, 403, 407, 261, 378]
    (tmp_path / "p.json").write_text(json.dumps(prompt))
    made = [json.loads(nybble("generate", tmp_path / "out", "--tokens", tmp_path / "p.json", "-n",
                              60, "--ignore-eos", "--json", "--threads", threads).stdout)
            for threads in (1, 3)]
    ids = made[0]["ids"]
    assert made[1]["ids"] == ids and made[0]["tokens_per_second"] > 0

    # One pass over all tokens: codes go through panels there, and one by one through products.
    np.save(tmp_path / "t.npy", np.array([prompt + ids]))
    logits = []
    for name, folder in (("packed", tmp_path / "out"), ("plain", plain)):
        nybble("logits", folder, "--tokens", tmp_path / "t.npy", "-o", tmp_path / f"{name}.npy")
        logits.append(np.load(tmp_path / f"{name}.npy")[0])
    off = np.abs(logits[0] - logits[1]).max() / np.abs(logits[1]).max()
    print(f"packed against plain: {off:.2e} of the largest logit (bound 1e-5)")
    assert off <= 1e-5
    taken = logits[1][len(prompt) - 1:-1]
    short = taken.max(axis=1) - taken[np.arange(len(ids)), ids]
    print(f"generated tokens miss the top by {short.max():.2e} (bound 1e-3)")
    assert short.max() <= 1e-3


def test_unrepresentable_is_refused(nybble, stories, text, tmp_path):
    def refusal(*more):
        done = nybble("quantize", stories, "-o", tmp_path / "out", *settings(text, *more), ok=False)
        assert done.returncode == 1 and not (tmp_path / "out").exists()
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        return done.stderr

    assert "172" in refusal("--format", "gptq", "-b", 3, "-g", -1)
    assert "order" in refusal("-g", 16, "--activation-order", "full")
    assert "64 columns" in refusal("-g", 128)


@pytest.mark.parametrize("bits,symmetric", [(4, True), (4, False), (3, False), (2, True), (8, True)])
def test_transformers_runs_the_file(nybble, stories, text, tmp_path, bits, symmetric):
    more = ["-b", bits, "-g", -1] + ([] if symmetric else ["--asymmetric"])
    nybble("quantize", stories, "-o", tmp_path / "out", *settings(text, *more))
    ids = np.random.default_rng(bits).integers(3, 512, (4, 64)).astype(np.int64)
    np.save(tmp_path / "ids.npy", ids)
    nybble("logits", tmp_path / "out", "--tokens", tmp_path / "ids.npy", "-o", tmp_path / "l.npy")
    got = np.load(tmp_path / "l.npy")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    with torch.no_grad():
        want = model(torch.from_numpy(ids)).logits.float().numpy()
    error = np.abs(got - want).max()
    print(f"max |logit difference| {error:.2e}, tolerance 1e-2 (f32 storage)")
    assert error <= 1e-2


@pytest.mark.parametrize("method,compute", [("gptq", "f32"), ("gptq", "bf16"), ("rtn", "f32"),
                                            ("int4", "f32")])
def test_same_bytes_at_any_thread_count(nybble, stories, text, tmp_path, method, compute):
    results = []
    for threads in (1, 2, 3, 4):
        out = tmp_path / str(threads)
        nybble("quantize", stories, "-o", out, "-m", method, "--threads", threads,
               "--compute", compute,
               *settings(text, *([] if method == "int4" else ["-g", -1])))
        results.append(sums(out))
    assert results[0] and all(r == results[0] for r in results)


@pytest.mark.parametrize("level", ["portable", "avx2", "avx512", "avx512vnni", "avx512bf16"])
@pytest.mark.parametrize("compute", ["f32", "bf16"])
def test_same_bytes_at_any_thread_count_of_every_kernel_level(nybble, stories, text, tmp_path,
                                                              level, compute):
    """A level that this CPU lacks is capped to the best one that it has."""
    results = []
    for threads in (1, 3):
        out = tmp_path / str(threads)
        nybble("quantize", stories, "-o", out, "--threads", threads, "--compute", compute,
               *settings(text, "-g", -1), env={**os.environ, "NYB_CPU": level})
        results.append(sums(out))
    assert results[0] and results[0] == results[1]


def test_bf16_products_change_little(nybble, stories, text, tmp_path):
    """Both runs say what they were made of, differ, and give models of nearly the same loss."""
    losses, results = [], []
    for compute in ("f32", "bf16"):
        out = tmp_path / compute
        nybble("quantize", stories, "-o", out, "--compute", compute, *settings(text, "-g", -1))
        report = json.loads((out / "nybble_report.json").read_text())
        assert report["run"]["compute"] == compute
        done = nybble("eval", out, "--text", text, "--max-tokens", 4096, "--json")
        losses.append(json.loads(done.stdout)["loss"])
        results.append(sums(out))
    print(f"loss {losses[0]:.5f} with f32, {losses[1]:.5f} with bf16; tolerance 0.01")
    assert results[0] != results[1]
    assert abs(losses[1] - losses[0]) <= 0.01


def test_resume_gives_the_same_bytes(program, nybble, stories, text, tmp_path):
    """Killed at three random points, and each time once more while resuming."""
    run = [program, "quantize", str(stories), "--calib", str(text), "-n", "120", "-l", "256",
           "-g", "-1", "-b", "3"]
    started = time.monotonic()
    subprocess.run([*run, "-o", str(tmp_path / "whole")], check=True, capture_output=True)
    whole = time.monotonic() - started
    dice = random.Random(7)
    resumed = []
    for trial in range(3):
        out = tmp_path / f"killed{trial}"
        for attempt in range(2):
            job = subprocess.Popen([*run, "-o", str(out), *(["--resume"] if attempt else [])],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(whole * dice.uniform(0.15, 0.8))
            job.send_signal(signal.SIGKILL)
            job.wait()
        done = json.loads(nybble(*run[1:], "-o", out, "--resume", "--json").stdout)
        resumed.append(done["resumed_blocks"])
        assert sums(out) == sums(tmp_path / "whole")
        assert not list(tmp_path.glob(f"killed{trial}.partial*"))
        assert not (out / "nybble_journal.jsonl").exists()
    print("blocks taken over:", resumed)
    assert any(resumed), "no kill hit a run with a finished block"


def test_resume_refuses_another_run(program, nybble, stories, text, tmp_path):
    run = [program, "quantize", str(stories), "--calib", str(text), "-n", "120", "-l", "256",
           "-g", "-1", "-o", str(tmp_path / "out")]
    job = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "out.partial" / "nybble_journal.jsonl"
    while job.poll() is None and not (journal.exists() and '"block"' in journal.read_text()):
        time.sleep(0.002)
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert journal.exists()
    plain = nybble(*run[1:], ok=False)
    assert plain.returncode == 1 and "--resume" in plain.stderr
    other = nybble(*run[1:], "-b", 3, "--resume", ok=False)
    assert other.returncode == 1 and "weight_bits" in other.stderr
    other = nybble(*run[1:], "--compute", "bf16", "--resume", ok=False)
    assert other.returncode == 1 and "compute" in other.stderr
    assert journal.exists()
    first = json.loads(nybble(*run[1:], "--resume", "--json").stdout)
    assert (tmp_path / "out" / "config.json").exists()
    again = json.loads(nybble(*run[1:], "--resume", "--json").stdout)  # complete: nothing to do
    for key in ["layers", "samples", "tokens", "bits_per_weight", "bytes_in", "bytes_out", "loss"]:
        assert again[key] == pytest.approx(first[key], rel=1e-6), key


def run_measured(program, *words):
    """The peak of resident memory in bytes, as the system counts it."""
    code = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)")
    done = subprocess.run([sys.executable, "-c", code, program, *map(str, words)],
                          capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


@pytest.mark.real  # sanitizers take memory of their own
def test_memory_ceiling_is_kept(program, nybble, stories, text, tmp_path):
    run = ["quantize", stories, "-g", -1, "--calib", text, "-n", 256, "-l", 256]
    free = run_measured(program, *run, "-o", tmp_path / "free")
    ceiling = 56 << 20
    plan = json.loads(nybble("plan", *run[1:], "--memory", ceiling, "--json").stdout)
    assert plan["spill_bytes"] > 0 and plan["memory"]["total"] <= ceiling
    kept = run_measured(program, *run, "-o", tmp_path / "kept", "--memory", ceiling)
    print(f"peak without a ceiling {free >> 20} MiB, with one of {ceiling >> 20}: {kept >> 20} MiB")
    assert kept <= ceiling < free
    assert sums(tmp_path / "kept") == sums(tmp_path / "free")
    done = nybble(*run, "-o", tmp_path / "less", "--memory", "8M", ok=False)
    assert done.returncode == 1 and "raise --memory" in done.stderr
    assert not (tmp_path / "less").exists()


@pytest.fixture
def cell(request):
    """A control group of the kernel: cell(limit, words) runs a program that cannot have more memory,
    mapped files and page cache included; it is killed if it needs more."""
    root = pathlib.Path("/sys/fs/cgroup")
    unified = (root / "cgroup.controllers").exists()
    group = (root if unified else root / "memory") / f"nybble-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        missing(f"{group}: {error}: a hard limit of memory needs root and control groups")
    request.addfinalizer(group.rmdir)

    def run(limit, words):
        (group / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(str(limit))
        enter = 'echo $$ >"$0" && exec "$@"'
        return subprocess.run(["sh", "-c", enter, str(group / "cgroup.procs"), *map(str, words)],
                              capture_output=True, text=True)

    return run


def first_blocks(model, out, count):
    """The same model, but for the blocks behind the first `count`."""
    shutil.copytree(model, out)
    (out / "model.safetensors").unlink()
    config = json.loads((model / "config.json").read_text())
    config["num_hidden_layers"] = count
    (out / "config.json").write_text(json.dumps(config))
    tensors = load_file(model / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items()
            if not name.startswith("model.layers.") or int(name.split(".")[2]) < count}
    assert len(kept) < len(tensors)
    save_file(kept, out / "model.safetensors", {"format": "pt"})
    return out


@pytest.mark.alone  # what others write stays in memory too
@pytest.mark.real
def test_memory_ceiling_holds_under_a_hard_limit(program, cell, smollm2, text, tmp_path):
    """The limit leaves 48 MiB for pages of files, which count too until they are on disk. What a block
    takes does not depend on how many there are."""
    ceiling = 150 << 20
    limit = ceiling + (48 << 20)
    model = first_blocks(smollm2, tmp_path / "model", 12)
    run = [program, "quantize", model, "-g", 64, "--calib", text, "-l", 512, "--json"]
    kept = cell(limit, [*run, "-o", tmp_path / "kept", "-n", 16, "--memory", ceiling])
    free = cell(limit, [*run, "-o", tmp_path / "free", "-n", 64])
    print(f"with a hard limit of {limit >> 20} MiB: exit {kept.returncode} with --memory, "
          f"{free.returncode} without")
    assert kept.returncode == 0, kept.stderr
    assert free.returncode == -signal.SIGKILL  # the limit is real


def poison(name, value):
    def change(path):
        tensors = load_file(path)
        tensors[name].view(-1)[5] = value
        save_file(tensors, path, {"format": "pt"})
    return change


@pytest.mark.parametrize("change,words", [
    (poison("model.layers.2.mlp.up_proj.weight", float("nan")), ["layers.2.mlp.up_proj", "nan"]),
    (poison("model.embed_tokens.weight", float("inf")), ["embed_tokens", "inf"]),
    (poison("model.layers.1.input_layernorm.weight", float("nan")), ["layers.1.input_layernorm"]),
    (lambda path: os.truncate(path, 500_000), ["model.safetensors", "495136", "cut off"]),
], ids=["nan-weight", "inf-embedding", "nan-norm", "truncated"])
def test_bad_input_leaves_nothing(nybble, stories, text, tmp_path, change, words):
    model = tmp_path / "bad"
    shutil.copytree(stories, model)
    change(model / "model.safetensors")
    for method in ("gptq", "rtn"):
        done = nybble("quantize", model, "-o", tmp_path / "out", "-m", method,
                      *settings(text, "-g", -1), ok=False)
        assert done.returncode == 1
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1 and all(w in lines[0] for w in words), done.stderr
        assert not (tmp_path / "out").exists()
        shutil.rmtree(tmp_path / "out.partial", ignore_errors=True)


def test_full_disk_is_one_clear_line(program, stories, text, tmp_path):
    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = subprocess.run([program, "quantize", str(stories), "-o", str(tmp_path / "out"), "--calib",
                           str(text), "-n", "8", "-l", "64", "-g", "-1"], capture_output=True,
                          text=True, preexec_fn=small)
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1 and "model.safetensors" in done.stderr
    assert not list(tmp_path.iterdir())


def test_output_is_never_overwritten_by_accident(nybble, stories, tmp_path):
    run = ["quantize", stories, "-o", tmp_path / "out", "-m", "rtn", "-g", -1]
    nybble(*run)
    first = sums(tmp_path / "out")
    assert nybble(*run, ok=False).returncode == 1
    nybble(*run, "--force", "-b", 3)
    assert sums(tmp_path / "out") != first
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("precious")
    done = nybble("quantize", stories, "-o", tmp_path / "mine", "-m", "rtn", "-g", -1, "--force",
                  ok=False)
    assert done.returncode == 1 and (tmp_path / "mine" / "letter.txt").read_text() == "precious"


def test_recipe_mixes_settings(nybble, stories, text, tmp_path):
    # transformers loads several settings in one checkpoint only while all are symmetric.
    recipe = {"weight_bits": 4, "group_size": -1, "modules": [
        {"pattern": "*.down_proj", "weight_bits": 8},
        {"pattern": "model.layers.0.*", "method": "none"},
        {"pattern": "model.layers.1.self_attn.[qk]_proj", "method": "rtn", "weight_bits": 3}]}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    out = tmp_path / "out"
    nybble("quantize", stories, "-o", out, "--recipe", tmp_path / "recipe.json", *settings(text))
    layers = {x["module"]: x for x in report(out)["layers"]}
    assert not any(m.startswith("model.layers.0.") for m in layers)
    assert layers["model.layers.3.mlp.down_proj"]["weight_bits"] == 8
    assert layers["model.layers.1.self_attn.q_proj"]["method"] == "rtn"
    ids = np.arange(64).reshape(1, 64) + 3
    np.save(tmp_path / "ids.npy", ids)
    nybble("logits", out, "--tokens", tmp_path / "ids.npy", "-o", tmp_path / "l.npy")
    model = transformers.AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    with torch.no_grad():
        want = model(torch.from_numpy(ids)).logits.float().numpy()
    assert np.abs(np.load(tmp_path / "l.npy") - want).max() <= 1e-2
    unused = {"modules": [{"pattern": "*.nothing", "weight_bits": 8}]}
    (tmp_path / "recipe.json").write_text(json.dumps(unused))
    done = nybble("quantize", stories, "-o", tmp_path / "no", "--recipe", tmp_path / "recipe.json",
                  *settings(text, "-g", -1), ok=False)
    assert done.returncode == 1 and "*.nothing" in done.stderr


def perplexity(model, ids, window):
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(ids), window):
            piece = torch.tensor([ids[start : start + window]])
            if piece.shape[1] < 2:
                continue
            losses = torch.nn.functional.cross_entropy(model(piece).logits[0, :-1], piece[0, 1:],
                                                       reduction="none")
            total += losses.double().sum().item()
            count += losses.numel()
    return float(np.exp(total / count)), count


def test_perplexity_is_transformers_on_stories(nybble, stories, text):
    tokenizer = transformers.AutoTokenizer.from_pretrained(stories)
    model = transformers.AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32)
    ids = tokenizer(text.read_text(), add_special_tokens=False)["input_ids"][:20001]
    want, count = perplexity(model, ids, 256)
    got = json.loads(nybble("eval", stories, "--text", text, "--window", 256, "--max-tokens", 20001,
                            "--bos", "never", "--json").stdout)
    print(f"perplexity {got['perplexity']:.5f}, want {want:.5f}, tolerance 0.05 %")
    assert got["data"]["scored"] == count
    assert abs(got["perplexity"] / want - 1) <= 5e-4


def test_perplexity_is_transformers_on_smollm2(nybble, smollm2, data):
    """Beside what transformers gave once for these 40 windows in f32, which takes it minutes."""
    windows, want = 40, 24.1332
    got = json.loads(nybble("eval", smollm2, "--text", data / "text" / "wiki.test.raw",
                            "--max-tokens", windows * 1024, "--json").stdout)
    print(f"perplexity {got['perplexity']:.4f}, want {want:.4f}, tolerance 0.05 %")
    assert got["data"]["scored"] == windows * 1023
    assert abs(got["perplexity"] / want - 1) <= 5e-4


def test_compare_measures_divergence(nybble, stories, text, tmp_path):
    names = []
    for bits in (4, 2):
        names.append(tmp_path / f"rtn{bits}")
        nybble("quantize", stories, "-o", names[-1], "-m", "rtn", "-b", bits, "-g", -1)
    tokens = 2048
    got = json.loads(nybble("compare", stories, *names, "--text", text, "--window", 256,
                            "--max-tokens", tokens, "--bos", "never", "--json").stdout)["models"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(stories)
    ids = torch.tensor(tokenizer(text.read_text(), add_special_tokens=False)["input_ids"][:tokens])
    logits = []
    for folder in (stories, *names):
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        with torch.no_grad():
            logits.append(model(ids.view(-1, 256)).logits[:, :-1].double())
    base = torch.log_softmax(logits[0], -1)
    for row, other in zip(got, logits):
        log = torch.log_softmax(other, -1)
        kl = (base.exp() * (base - log)).sum(-1).mean().item()
        top1 = (base.argmax(-1) == log.argmax(-1)).double().mean().item()
        print(f"{row['model']}: KL {row['kl']:.6f} want {kl:.6f}, top-1 {row['top1']:.5f} {top1:.5f}")
        assert abs(row["kl"] - kl) <= 1e-5 + 1e-3 * kl and abs(row["top1"] - top1) <= 2e-3
    assert got[0]["kl"] == 0 and got[1]["kl"] < got[2]["kl"]
