"""nybble's forward pass against transformers' in f32, for tiny random models of every family."""

import json

import families
import numpy as np
import pytest
import torch
import transformers

TOLERANCE = 2e-3


def run_logits(nybble, folder, ids, tmp_path):
    np.save(tmp_path / "ids.npy", ids.numpy().astype(np.int64))
    out = tmp_path / "logits.npy"
    out.unlink(missing_ok=True)
    nybble("logits", folder, "--tokens", tmp_path / "ids.npy", "-o", out)
    return np.load(out)


@pytest.mark.parametrize("family,index", families.CASES)
def test_logits_are_those_of_transformers(nybble, tmp_path, family, index):
    model = families.make(family, index, tmp_path / "model")
    ids = torch.randint(4, 97, (2, 40), generator=torch.Generator().manual_seed(5))
    for length in (40, 5): # both ways of cutting work: by tokens and by output rows
        want = families.logits(model, ids[:, :length]).numpy()
        got = run_logits(nybble, tmp_path / "model", ids[:, :length], tmp_path)
        assert got.shape == want.shape
        assert np.std(want) > 1e-2 # constant logits would compare nothing
        worst = np.abs(got - want).max()
        print(f"{family} {index} length {length}: max difference {worst:.2e} of {np.abs(want).max():.2f},"
              f" tolerance {TOLERANCE}")
        assert worst <= TOLERANCE


@pytest.mark.parametrize("family", ["gemma2", "mixtral"])
def test_an_mlp_much_wider_than_the_model(nybble, tmp_path, monkeypatch, family):
    """What is added as a whole, once it is normalised or weighed, is put together outside the input."""
    name, reader, configs = families.FAMILIES[family]
    monkeypatch.setitem(families.FAMILIES, family,
                        (name, reader, [dict(configs[0], intermediate_size=4096)]))
    model = families.make(family, 0, tmp_path / "model")
    ids = torch.randint(4, 97, (2, 60), generator=torch.Generator().manual_seed(9))
    want = families.logits(model, ids).numpy()
    worst = np.abs(run_logits(nybble, tmp_path / "model", ids, tmp_path) - want).max()
    print(f"{family}: max difference {worst:.2e} of {np.abs(want).max():.2f}, tolerance {TOLERANCE}")
    assert worst <= TOLERANCE


QUANTISED = [family for family in families.FAMILIES if family != "gpt2"]
CALIBRATION = ("--num-samples", "32", "--sequence-length", "32")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Token ids to calibrate with, and others to compare with."""
    folder = tmp_path_factory.mktemp("ids")
    g = torch.Generator().manual_seed(3)
    np.save(folder / "calib.npy", torch.randint(4, 97, (32 * 32,), generator=g).numpy())
    return folder / "calib.npy", torch.randint(4, 97, (2, 30), generator=g)


def rms(x):
    return float(np.sqrt(np.square(x).mean()))


def quantise(nybble, model, out, method, calib, *more, **options):
    return nybble("quantize", model, "-o", out, "--method", method, "--group-size", "-1",
                  "--calib", calib, *CALIBRATION, *more, **options)


@pytest.mark.parametrize("family", QUANTISED)
def test_quantised_models_are_read_back(nybble, tmp_path, texts, family):
    """nybble and transformers give the same logits of what was written, near the source's."""
    calib, ids = texts
    model = families.make(family, 0, tmp_path / "model")
    want = families.logits(model, ids).numpy()
    away = {}
    for method in ("rtn", "gptq"):
        out = tmp_path / method
        quantise(nybble, tmp_path / "model", out, method, calib, "--expert-fallback", "rtn")
        got = run_logits(nybble, out, ids, tmp_path)
        away[method] = rms(got - want) / want.std()
    assert 0 < away["gptq"] < away["rtn"] < 1
    if family == "falcon": # transformers' Falcon wants plain weights in its layers
        return
    reader = getattr(transformers, families.FAMILIES[family][1])
    read = reader.from_pretrained(out, dtype=torch.float32).eval()
    worst = np.abs(families.logits(read, ids).numpy() - got).max()
    print(f"{family}: gptq off by {away['gptq']:.3f} of the spread, rtn by {away['rtn']:.3f};"
          f" transformers differs by {worst:.1e}, tolerance {TOLERANCE}")
    assert worst <= TOLERANCE


def test_gpt2_goes_into_gptq_alone(nybble, tmp_path, texts, monkeypatch):
    calib, ids = texts
    monkeypatch.setitem(families.FAMILIES, "gpt2", ("GPT2", "GPT2LMHeadModel", [
        dict(families.GPT2, n_embd=64, n_head=4)]))
    model = families.make("gpt2", 0, tmp_path / "model")
    want = families.logits(model, ids).numpy()
    failed = quantise(nybble, tmp_path / "model", tmp_path / "no", "rtn", calib, ok=False)
    assert failed.returncode == 1 and "Conv1D" in failed.stderr and "--format gptq" in failed.stderr
    quantise(nybble, tmp_path / "model", tmp_path / "out", "gptq", calib, "--format", "gptq")
    off = rms(run_logits(nybble, tmp_path / "out", ids, tmp_path) - want) / want.std()
    print(f"gpt2: gptq off by {off:.3f} of the spread")
    assert 0 < off < 0.5


def test_a_dead_expert_is_reported(nybble, tmp_path, texts):
    """The correction of the scores that choose keeps every token from expert 2."""
    calib, ids = texts
    model = families.make("deepseek_v3", 1, tmp_path / "model")
    with torch.no_grad():
        for layer in model.model.layers[1:]:
            layer.mlp.gate.e_score_correction_bias.zero_()[2] = -100.0
    model.save_pretrained(tmp_path / "model")
    failed = quantise(nybble, tmp_path / "model", tmp_path / "no", "gptq", calib, ok=False)
    assert failed.returncode == 1 and "experts 2 (0 tokens)" in failed.stderr
    assert "--expert-fallback rtn" in failed.stderr

    quantise(nybble, tmp_path / "model", tmp_path / "out", "gptq", calib, "--expert-fallback", "rtn")
    report = json.loads((tmp_path / "out" / "nybble_report.json").read_text())
    experts = [layer for layer in report["layers"] if "expert" in layer]
    dead = [layer for layer in experts if layer["routed_tokens"] == 0]
    print(f"{len(dead)} of {len(experts)} layers of experts have no tokens")
    assert len(experts) == 2 * 8 * 3 and {layer["expert"] for layer in dead} == {2}
    assert {layer["module"] for layer in dead} == {f["module"] for f in report["fallbacks"]}
    assert all(layer["method"] == ("rtn" if layer in dead else "gptq") for layer in experts)
    sent = sum(layer["routed_tokens"] for layer in experts)
    assert sent == 2 * 3 * 3 * 32 * 32  # blocks, linears of an expert, experts of a token, tokens
    assert np.isfinite(run_logits(nybble, tmp_path / "out", ids, tmp_path)).all()

    failed = quantise(nybble, tmp_path / "model", tmp_path / "no", "gptq", calib,
                      "--expert-min-tokens", "100000", "--force", ok=False)
    assert failed.returncode == 1 and "fewer than 100000" in failed.stderr
    quantise(nybble, tmp_path / "model", tmp_path / "all", "gptq", calib, "--expert-calibration", "all")
    report = json.loads((tmp_path / "all" / "nybble_report.json").read_text())
    assert not report["fallbacks"]
    assert {x["tokens"] for x in report["layers"] if "expert" in x} == {32 * 32}


@pytest.mark.parametrize("family", [f for f in families.FAMILIES if "bert" not in f])
def test_generated_tokens_are_the_most_probable(nybble, tmp_path, family):
    """A token at a time, with cached keys and values, as transformers scores the whole."""
    index = len(families.FAMILIES[family][2]) - 1
    model = families.make(family, index, tmp_path / "model")
    prompt = torch.randint(4, 97, (20,), generator=torch.Generator().manual_seed(6))
    np.save(tmp_path / "prompt.npy", prompt.numpy())
    done = nybble("generate", tmp_path / "model", "--tokens", tmp_path / "prompt.npy", "-n", "16",
                  "--ignore-eos")
    made = [int(word) for word in done.stdout.split()]
    assert len(made) == 16
    scores = families.logits(model, torch.tensor([prompt.tolist() + made]))[0]
    behind = max(float(scores[19 + i].max() - scores[19 + i][token]) for i, token in enumerate(made))
    print(f"{family}: tokens are at most {behind:.1e} behind the best, tolerance {TOLERANCE}")
    assert behind <= TOLERANCE


@pytest.mark.parametrize("family", ["gpt2", "gemma"])
def test_names_without_the_prefix_are_read(nybble, tmp_path, family):
    """Files of the model without its head leave out the start of every name."""
    model = families.make(family, 0, tmp_path / "model")
    ids = torch.randint(4, 97, (1, 12), generator=torch.Generator().manual_seed(7))
    model.base_model.save_pretrained(tmp_path / "base")
    want = families.logits(model, ids).numpy()
    worst = np.abs(run_logits(nybble, tmp_path / "base", ids, tmp_path) - want).max()
    print(f"{family}: max difference {worst:.1e}, tolerance {TOLERANCE}")
    assert worst <= TOLERANCE


def test_inspect_names_all_that_is_missing(nybble, tmp_path):
    families.make("llama", 0, tmp_path)
    assert json.loads(nybble("inspect", tmp_path, "--json").stdout)["family"].startswith("Llama")
    config = json.loads((tmp_path / "config.json").read_text())
    config.update(logit_scale=3.0, qk_norm=True, scale_emb=12)
    (tmp_path / "config.json").write_text(json.dumps(config))
    said = json.loads(nybble("inspect", tmp_path, "--json").stdout)
    assert said["family"].startswith("Llama") and len(said["unsupported"]) == 3
    for key in ("logit_scale", "qk_norm", "scale_emb"):
        assert f"'{key}'" in said["model_fault"]


def test_older_spellings_of_rotary_positions(nybble, tmp_path):
    """Pythia's config.json says rotary_pct and rotary_emb_base."""
    model = families.make("gpt_neox", 1, tmp_path / "model")
    ids = torch.randint(4, 97, (1, 12), generator=torch.Generator().manual_seed(8))
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config.update(rotary_pct=rope["partial_rotary_factor"], rotary_emb_base=rope["rope_theta"])
    path.write_text(json.dumps(config))
    want = families.logits(model, ids).numpy()
    worst = np.abs(run_logits(nybble, tmp_path / "model", ids, tmp_path) - want).max()
    print(f"max difference {worst:.1e}, tolerance {TOLERANCE}")
    assert worst <= TOLERANCE


@pytest.mark.parametrize("name", families.WRAPPERS)
def test_the_language_model_of_a_multimodal_one(nybble, tmp_path, texts, name):
    model = families.make_wrapped(name, tmp_path / "model")
    calib, ids = texts
    want = families.logits(model, ids).numpy()
    worst = np.abs(run_logits(nybble, tmp_path / "model", ids, tmp_path) - want).max()
    print(f"{name}: max difference {worst:.1e} of {np.abs(want).max():.2f}, tolerance {TOLERANCE}")
    assert worst <= TOLERANCE and np.std(want) > 1e-2
    said = json.loads(nybble("inspect", tmp_path / "model", "--json").stdout)
    assert said["model_fault"] is None and said["family"]
    quantise(nybble, tmp_path / "model", tmp_path / "out", "rtn", calib)
    got = run_logits(nybble, tmp_path / "out", ids, tmp_path)
    assert 0 < rms(got - want) / want.std() < 1
    read = type(model).from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    worst = np.abs(families.logits(read, ids).numpy() - got).max()
    print(f"{name}, rounded: transformers differs by {worst:.1e}, tolerance {TOLERANCE}")
    assert worst <= TOLERANCE


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("old_names", [False, True])
def test_encoders_without_a_head(nybble, tmp_path, family, old_names):
    """Their outputs are the last states; old files call a norm's tensors gamma and beta."""
    from safetensors.torch import load_file, save_file

    model = families.make(family, 0, tmp_path / "model").base_model
    model.save_pretrained(tmp_path / "base")
    if old_names:
        path = tmp_path / "base" / "model.safetensors"
        state = load_file(path)
        old = {name.replace("LayerNorm.weight", "LayerNorm.gamma")
               .replace("LayerNorm.bias", "LayerNorm.beta"): x for name, x in state.items()}
        assert old.keys() != state.keys()
        save_file(old, path, {"format": "pt"})
    ids = torch.randint(4, 97, (2, 12), generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        want = model(input_ids=ids).last_hidden_state.numpy()
    got = run_logits(nybble, tmp_path / "base", ids, tmp_path)
    worst = np.abs(got - want).max()
    print(f"{family}: max difference {worst:.1e} of {np.abs(want).max():.2f}, tolerance {TOLERANCE}")
    assert got.shape == want.shape and worst <= TOLERANCE and np.std(want) > 0.1
    np.save(tmp_path / "c.npy", np.random.default_rng(0).integers(4, 97, 32 * 32))
    quantise(nybble, tmp_path / "base", tmp_path / "out", "gptq", tmp_path / "c.npy")
    off = rms(run_logits(nybble, tmp_path / "out", ids, tmp_path) - want) / want.std()
    print(f"{family}: gptq off by {off:.3f} of the spread, at most 0.5")
    assert 0 < off < 0.5
    done = nybble("eval", tmp_path / "base", "-w", "32", "--text", tmp_path / "c.npy",
                  ok=False)
    assert done.returncode == 1 and "an encoder has no next token" in done.stderr
