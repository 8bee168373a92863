"""Stores of Hessians: what is in the file, read by h5py; parts, merged; runs that are solved from one."""
import hashlib
import json
import shutil

import families
import h5py
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file
from test_quantize import decode_compressed, report, sums

SAMPLES, LENGTH = 40, 64  # units of 2,048 tokens are 32 samples of this length
UNIT = 2048 // LENGTH


@pytest.fixture(scope="session")
def text(stories):
    return stories.parent / "tinystories.txt"


def calibrate(nybble, model, out, text, *more, samples=SAMPLES, **options):
    return nybble("calibrate", model, "--calib", text, "-n", samples, "-l", LENGTH, "-o", out, *more,
                  **options)


def quantise(nybble, model, store, out, *more, **options):
    return nybble("quantize", model, "--hessians", store, "-o", out, "--group-size", "-1", "-b", 3,
                  *more, **options)


@pytest.fixture(scope="session")
def store(nybble, stories, text, tmp_path_factory):
    out = tmp_path_factory.mktemp("store") / "stories.h5"
    calibrate(nybble, stories, out, text)
    return out


def square(file, module):
    """A layer's sum as a whole matrix of f64, as docs/store.md tells to read it."""
    group = file["hessians"][module]
    group = file["hessians"][group.attrs.get("same_as", module)]
    n = int(group.attrs["order"])
    h = np.zeros((n, n))
    h[np.triu_indices(n)] = group["high"][:]
    return h + np.triu(h, 1).T


def same(a, b):
    return a.read_bytes() == b.read_bytes()


# ---- What is in it ----------------------------------------------------------------------------

def off_from_transformers(stories, file, weight=1):
    """How many layers there are, and how far a store is from their x^T x over the tokens that it names,
    the first of each window counted `weight` times, in parts of sqrt(h_ii h_jj)."""
    model = transformers.AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32).eval()
    want = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            def hook(_, inputs, name=name):
                x = inputs[0].double()
                first, x = x[:, 0], x.reshape(-1, x.shape[-1])
                want[name] = want.get(name, 0) + x.T @ x + (weight - 1) * first.T @ first
            module.register_forward_pre_hook(hook)
    tokens = torch.from_numpy(file["tokens"][:].astype(np.int64))
    assert tokens.shape == (SAMPLES, LENGTH) and "marks" not in file
    with torch.no_grad():
        model(tokens)
    worst = 0.0
    for name, h in want.items():
        scale = np.sqrt(np.outer(np.diag(h), np.diag(h)))
        worst = max(worst, np.abs((square(file, name) - h.numpy()) / scale).max())
    print(f"{len(want)} layers, off by {worst:.1e} of sqrt(h_ii h_jj), tolerance 1e-5")
    assert set(file["hessians"]) == set(want)
    return len(want), worst


def test_sums_are_those_of_transformers(stories, store):
    """x^T x of every linear layer's input, over the tokens that the file says."""
    file = h5py.File(store)
    layers, worst = off_from_transformers(stories, file)
    assert layers == 35 and 0 < worst < 1e-5
    assert file.attrs["schema"] == "nybble.hessians/1" and file.attrs["tokens"] == SAMPLES * LENGTH
    known = json.loads(file.attrs["model"])["model.safetensors"]["sha256"]
    assert known == hashlib.sha256((stories / "model.safetensors").read_bytes()).hexdigest()
    settings = json.loads(file.attrs["settings"])
    assert settings["sequence_length"] == LENGTH and settings["compute"] == "f32"
    assert "first_weight" not in settings


@pytest.mark.parametrize("weight", (17, 40))  # 1 + 4^k, and not
def test_first_tokens_count_as_often_as_asked(nybble, stories, text, store, tmp_path, weight):
    """In every layer's sum, in parts and at any number of threads, and in a run of quantize."""
    more = ("--first-weight", weight)
    out = tmp_path / "first.h5"
    calibrate(nybble, stories, out, text, *more)
    with h5py.File(out) as file:
        layers, worst = off_from_transformers(stories, file, weight)
        assert layers == 35 and 0 < worst < 1e-5
        assert json.loads(file.attrs["settings"])["first_weight"] == weight
        assert file.attrs["tokens"] == SAMPLES * LENGTH
    calibrate(nybble, stories, tmp_path / "one.h5", text, *more, "--threads", 1, "--memory", "52M")
    assert same(out, tmp_path / "one.h5")
    for part in ("1/2", "2/2"):
        calibrate(nybble, stories, tmp_path / f"{part[0]}.h5", text, *more, "--part", part)
    nybble("calibrate", "--merge", tmp_path / "1.h5", tmp_path / "2.h5", "-o", tmp_path / "merged.h5")
    assert same(out, tmp_path / "merged.h5")

    quantise(nybble, stories, out, tmp_path / "stored", "--refine", 0)
    nybble("quantize", stories, "--calib", text, "-n", SAMPLES, "-l", LENGTH, "-o", tmp_path / "direct",
           "--group-size", "-1", "-b", 3, "--refine", 0, *more)
    stored, direct = (report(tmp_path / mode)["layers"][0] for mode in ("stored", "direct"))
    assert stored["module"].endswith("layers.0.self_attn.q_proj")
    assert stored["loss"] == pytest.approx(direct["loss"], rel=1e-5)
    assert stored["tokens"] == direct["tokens"] == SAMPLES * LENGTH
    assert report(tmp_path / "direct")["run"]["calibration"]["first_weight"] == weight

    done = nybble("calibrate", "--merge", store, out, "-o", tmp_path / "m.h5", ok=False)
    assert done.returncode == 1 and f"first_weight is missing, was {weight}" in done.stderr
    done = nybble("calibrate", "--merge", out, store, "-o", tmp_path / "m.h5", ok=False)
    assert done.returncode == 1 and f"first_weight is {weight}, was missing" in done.stderr
    done = quantise(nybble, stories, out, tmp_path / "out", *more, ok=False)
    assert done.returncode == 1 and "--first-weight" in done.stderr


def test_digests_are_those_of_the_arrays(store):
    with h5py.File(store) as file:
        groups = {"": dict(file.attrs)}
        assert file.attrs["tokens_sha256"] == hashlib.sha256(file["tokens"][:].tobytes()).hexdigest()
        for name, group in file["hessians"].items():
            groups["hessians/" + name] = dict(group.attrs)
            for array in group:
                digest = hashlib.sha256(group[array][:].astype("<f8").tobytes()).hexdigest()
                assert group.attrs[array + "_sha256"] == digest
        said = groups[""].pop("sha256")
        plain = {k: {a: v if isinstance(v, str) else int(v) for a, v in g.items()}
                 for k, g in groups.items()}
        everything = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert said == hashlib.sha256(everything.encode()).hexdigest()


# ---- The same bytes -----------------------------------------------------------------------------

def test_same_bytes_with_any_threads_and_memory(nybble, stories, text, store, tmp_path):
    for i, more in enumerate((["--threads", 1], ["--threads", 3], ["--memory", "52M"])):
        calibrate(nybble, stories, tmp_path / f"{i}.h5", text, *more)
        assert same(tmp_path / f"{i}.h5", store), more


def test_parts_merge_into_the_bytes_of_one_run(nybble, stories, text, tmp_path):
    samples = 5 * UNIT + 3  # the last unit is not whole
    whole = tmp_path / "whole.h5"
    calibrate(nybble, stories, whole, text, samples=samples)
    for parts in (2, 3, 6):
        names = [tmp_path / f"{parts}-{i}.h5" for i in range(1, parts + 1)]
        for i, name in enumerate(names, 1):
            calibrate(nybble, stories, name, text, "--part", f"{i}/{parts}", samples=samples)
        nybble("calibrate", "--merge", *names, "-o", tmp_path / f"{parts}.h5")
        assert same(whole, tmp_path / f"{parts}.h5"), parts
    # Parts of parts, and more tokens behind those that are there.
    nybble("calibrate", "--merge", *names[:2], "-o", tmp_path / "a.h5")
    nybble("calibrate", "--merge", *names[2:], "-o", tmp_path / "b.h5")
    nybble("calibrate", "--merge", tmp_path / "a.h5", tmp_path / "b.h5", "-o", tmp_path / "ab.h5")
    assert same(whole, tmp_path / "ab.h5")
    calibrate(nybble, stories, tmp_path / "more.h5", text, "--extend", tmp_path / "a.h5",
              samples=samples)
    assert same(whole, tmp_path / "more.h5")


def test_experts_merge_too(nybble, tmp_path):
    families.make("mixtral", 0, tmp_path / "model")
    g = torch.Generator().manual_seed(3)
    np.save(tmp_path / "ids.npy", torch.randint(4, 97, (300 * 32,), generator=g).numpy())
    def run(out, *more):
        nybble("calibrate", tmp_path / "model", "--calib", tmp_path / "ids.npy", "-n", 192, "-l", 32,
               "-o", tmp_path / out, *more)
    run("whole.h5")
    run("1.h5", "--part", "1/3")
    run("2.h5", "--part", "2/3")
    run("3.h5", "--part", "3/3")
    nybble("calibrate", "--merge", *(tmp_path / f"{i}.h5" for i in (1, 2, 3)), "-o", tmp_path / "m.h5")
    assert same(tmp_path / "whole.h5", tmp_path / "m.h5")
    with h5py.File(tmp_path / "whole.h5") as file:
        routed = [int(g.attrs["routed"]) for n, g in file["hessians"].items()
                  if "expert" in n and "routed" in g.attrs]
        assert len(routed) > 4 and len(set(routed)) > 2 and min(routed) > 0
    quantise(nybble, tmp_path / "model", tmp_path / "m.h5", tmp_path / "out")
    sent = {x["routed_tokens"] for x in report(tmp_path / "out")["layers"] if "expert" in x}
    assert sent <= set(routed) and len(sent) > 2


# ---- Solving from it ------------------------------------------------------------------------------

def test_reported_loss_is_that_of_the_written_file(nybble, stories, store, tmp_path):
    worst, source, file = 0.0, load_file(stories / "model.safetensors"), h5py.File(store)
    for name, more in (("gptq", []), ("plain", ["--refine", 0, "--asymmetric"]),
                       ("rtn", ["--method", "rtn"])):
        quantise(nybble, stories, store, tmp_path / name, *more)
        tensors = load_file(tmp_path / name / "model.safetensors")
        layers = report(tmp_path / name)["layers"]
        assert len(layers) == 35
        for layer in layers:
            module = layer["module"]
            codes, scales, zeros, group_of = decode_compressed(tensors, module, 3, name != "plain")
            q = (codes - zeros[:, group_of]) * scales.astype(np.float64)[:, group_of]
            d = source[module + ".weight"].astype(np.float64) - q
            want = np.einsum("ij,jk,ik->", d, square(file, module), d)
            worst = max(worst, abs(layer["loss"] / want - 1))
    print(f"losses off by {worst:.1e} of themselves, tolerance 1e-4")
    assert 0 < worst < 1e-4


def test_same_result_from_any_store_of_the_same_sums(nybble, stories, text, store, tmp_path):
    calibrate(nybble, stories, tmp_path / "small.h5", text, "--compress", 9)
    assert (tmp_path / "small.h5").stat().st_size < store.stat().st_size
    with h5py.File(tmp_path / "small.h5") as file:
        array = file["hessians/model.layers.0.mlp.down_proj/high"]
        assert array.compression == "gzip" and array.fletcher32 and array.shuffle
    quantise(nybble, stories, store, tmp_path / "a", "--threads", 1)
    quantise(nybble, stories, tmp_path / "small.h5", tmp_path / "b", "--threads", 3)
    assert sums(tmp_path / "a") == sums(tmp_path / "b")
    said = report(tmp_path / "a")["run"]["calibration"]
    with h5py.File(store) as file:
        assert said["hessians"]["sha256"] == file.attrs["sha256"]
    assert said["samples"] == SAMPLES and said["sequence_length"] == LENGTH
    assert not said["sequential"]


def test_one_layer_is_solved_as_in_a_sequential_run(nybble, stories, text, store, tmp_path):
    """The first stage's inputs are the same in both modes; everything behind it has others."""
    quantise(nybble, stories, store, tmp_path / "independent")
    nybble("quantize", stories, "--calib", text, "-n", SAMPLES, "-l", LENGTH, "-o",
           tmp_path / "sequential", "--group-size", "-1", "-b", 3)
    loss = [{x["module"]: x["loss"] for x in report(tmp_path / mode)["layers"]}
            for mode in ("independent", "sequential")]
    first = [m for m in loss[0] if m.startswith("model.layers.0.self_attn") and "o_proj" not in m]
    off = max(abs(loss[0][m] / loss[1][m] - 1) for m in first)
    print(f"first stage off by {off:.1e}, tolerance 1e-5; all of {len(loss[0])} layers differ behind")
    assert len(first) == 3 and off < 1e-5
    behind = [m for m in loss[0] if m not in first]
    assert all(loss[0][m] != loss[1][m] for m in behind)


# ---- What is refused --------------------------------------------------------------------------------

def seal(path):
    """Writes the digests anew, so that only what a file says is left to look at."""
    with h5py.File(path, "r+") as file:
        groups = {"": file, **{"hessians/" + name: g for name, g in file["hessians"].items()}}
        for group in groups.values():
            for name, array in group.items():
                if isinstance(array, h5py.Dataset):
                    group.attrs[name + "_sha256"] = hashlib.sha256(array[:].tobytes()).hexdigest()
        said = {path: {k: v if isinstance(v, str) else int(v) for k, v in group.attrs.items()}
                for path, group in groups.items()}
        said[""].pop("sha256")
        text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        file.attrs["sha256"] = hashlib.sha256(text.encode()).hexdigest()


QUERY = "hessians/model.layers.2.self_attn.q_proj"


def test_what_f64_cannot_hold_is_kept(nybble, stories, store, tmp_path):
    """A store that h5py wrote, in which some sums have a second half."""
    shutil.copy(store, tmp_path / "low.h5")
    with h5py.File(tmp_path / "low.h5", "r+") as file:
        high = file[QUERY]["high"]
        low = np.where(np.abs(high[:]) >= 1, 2.0 ** -56, 0.0)
        low[::2] *= -3
        file[QUERY]["low"] = low
    seal(tmp_path / "low.h5")
    nybble("calibrate", "--merge", tmp_path / "low.h5", "-o", tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as out:
        assert np.count_nonzero(low) > 1000 and np.array_equal(out[QUERY]["low"][:], low)
        assert [n for n, g in out["hessians"].items() if "low" in g] == [QUERY.split("/")[1]]
    quantise(nybble, stories, tmp_path / "out.h5", tmp_path / "out")


def bad_value(value):
    def change(file):
        file[QUERY]["high"][5] = value
    return change


def bad_attribute(name, value):
    def change(file):
        file[QUERY].attrs[name] = value
    return change


def short(file):
    values = file[QUERY]["high"][:-1]
    del file[QUERY]["high"]
    file[QUERY]["high"] = values


def twice(file):
    file["hessians/model.layers.3.self_attn.q_proj"].attrs["place"] = file[QUERY].attrs["place"]


def lost(file):
    del file[QUERY]


def circle(file):
    file[QUERY].attrs["same_as"] = QUERY.split("/")[1]


@pytest.mark.parametrize("change", [
    bad_value(np.nan), bad_value(2.0 ** 60), bad_value(2.0 ** -60), bad_attribute("order", 1 << 40),
    bad_attribute("order", 63), bad_attribute("tokens", -1), bad_attribute("modules", "[]"),
    bad_attribute("modules", "[1]"), bad_attribute("place", 1 << 50), short, twice, lost, circle])
def test_what_no_store_has_is_refused(nybble, store, tmp_path, change):
    path = tmp_path / "store.h5"
    shutil.copy(store, path)
    with h5py.File(path, "r+") as file:
        change(file)
    seal(path)
    done = nybble("calibrate", "--merge", path, "-o", tmp_path / "out.h5", ok=False)
    print(done.stderr)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and str(path) in done.stderr
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("compress", [0, 6])
@pytest.mark.parametrize("name", ["tokens", "hessians/model.layers.2.self_attn.q_proj/high",
                                  "hessians/model.layers.4.mlp.down_proj/high"])
def test_damage_is_refused_by_name(nybble, stories, text, tmp_path, compress, name):
    path = tmp_path / "store.h5"
    calibrate(nybble, stories, path, text, "--compress", compress, samples=UNIT)
    with h5py.File(path) as file:
        array = file[name]
        place = (array.id.get_chunk_info(0).byte_offset + 20 if compress
                 else array.id.get_offset() + array.nbytes // 2)
    raw = bytearray(path.read_bytes())
    raw[place] ^= 0x10
    path.write_bytes(raw)
    done = nybble("calibrate", "--merge", path, "-o", tmp_path / "out.h5", ok=False)
    assert done.returncode == 1 and f"'{name}'" in done.stderr, done.stderr
    assert not list(tmp_path.glob("out*"))
    if name != "tokens":
        done = quantise(nybble, stories, path, tmp_path / "out", ok=False)
        assert done.returncode == 1 and f"'{name}'" in done.stderr, done.stderr
        assert not (tmp_path / "out").exists()


def test_any_damage_is_one_line(nybble, stories, text, store, tmp_path):
    rng, path, raw = np.random.default_rng(5), tmp_path / "store.h5", store.read_bytes()
    refused = 0
    for i in range(40):
        bad = bytearray(raw if i % 3 else raw[:rng.integers(len(raw))])
        # Half of them where the file's own structures are.
        for at in rng.integers(0, len(bad) if i % 2 else min(len(bad), 16384), 3):
            bad[at] = rng.integers(256)
        path.write_bytes(bad)
        done = nybble("calibrate", "--merge", path, "-o", tmp_path / "out.h5", "--force", ok=False)
        assert done.returncode in (0, 1), (i, done.stderr)
        if done.returncode:
            assert done.stderr.count("\n") == 1 and done.stderr.startswith("nybble: "), done.stderr
        refused += done.returncode
        if not done.returncode:  # what was hit does not matter
            assert same(tmp_path / "out.h5", store)
    print(f"{refused} of 40 damaged files refused, the others held the same")
    assert refused > 20


def test_another_models_store_is_refused(nybble, stories, store, tmp_path):
    shutil.copytree(stories, tmp_path / "other")
    raw = bytearray((tmp_path / "other" / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "other" / "model.safetensors").write_bytes(raw)
    done = quantise(nybble, tmp_path / "other", store, tmp_path / "out", ok=False)
    assert done.returncode == 1 and "another model" in done.stderr
    for folder in (stories, tmp_path / "other"):  # both values
        assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() in done.stderr
    config = json.loads((stories / "config.json").read_text())
    config["rms_norm_eps"] = 1e-3
    shutil.copy(stories / "model.safetensors", tmp_path / "other" / "model.safetensors")
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    done = quantise(nybble, tmp_path / "other", store, tmp_path / "out", ok=False)
    assert done.returncode == 1 and "config.json" in done.stderr


def test_other_settings_are_refused(nybble, stories, text, store, tmp_path):
    done = quantise(nybble, stories, store, tmp_path / "out", "--compute", "bf16", ok=False)
    assert done.returncode == 1 and '"bf16"' in done.stderr and '"f32"' in done.stderr
    nybble("calibrate", stories, "--calib", text, "-n", 4, "-l", 32, "-o", tmp_path / "short.h5")
    done = nybble("calibrate", "--merge", store, tmp_path / "short.h5", "-o", tmp_path / "m.h5",
                  ok=False)
    assert done.returncode == 1 and "sequence_length" in done.stderr
    assert "64" in done.stderr and "32" in done.stderr
    done = quantise(nybble, stories, store, tmp_path / "out", "--calib", text, ok=False)
    assert done.returncode == 1 and "want one" in done.stderr


def test_merges_that_cannot_hold_the_rule_are_refused(nybble, stories, text, store, tmp_path):
    part = tmp_path / "part.h5"
    calibrate(nybble, stories, part, text, "--part", "2/2")
    done = nybble("calibrate", "--merge", store, part, "-o", tmp_path / "m.h5", ok=False)
    assert done.returncode == 1 and f"{SAMPLES} samples are not whole units of {UNIT}" in done.stderr
    calibrate(nybble, stories, tmp_path / "first.h5", text, "--part", "1/2")
    done = nybble("calibrate", "--merge", tmp_path / "first.h5", store, "-o", tmp_path / "m.h5",
                  ok=False)
    assert done.returncode == 1 and "sample 0 is also sample 0" in done.stderr
    done = calibrate(nybble, stories, tmp_path / "m.h5", text, "--extend", part, ok=False)
    assert done.returncode == 1 and "not the first" in done.stderr
    done = calibrate(nybble, stories, tmp_path / "m.h5", text, "--part", "3/2", ok=False)
    assert done.returncode == 1 and "1 to 2 parts" in done.stderr
    assert not (tmp_path / "m.h5").exists()
    done = calibrate(nybble, stories, part, text, ok=False)
    assert done.returncode == 1 and "--force" in done.stderr
