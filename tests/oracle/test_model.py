"""The forward pass against transformers, in f32: real models, and random ones of many shapes."""
import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig

torch.set_num_threads(2)
TOLERANCE = 2e-3  # on logits
SAME = 0.999  # share of positions whose most probable token agrees


def reference(folder, ids, dtype=torch.float32):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    with torch.no_grad():
        return model(torch.from_numpy(ids.astype(np.int64))).logits.float().numpy()


def run_logits(nybble, folder, ids, tmp_path, *more):
    np.save(tmp_path / "ids.npy", ids)
    out = tmp_path / "logits.npy"
    out.unlink(missing_ok=True)
    nybble("logits", folder, "--tokens", tmp_path / "ids.npy", "-o", out, *more)
    return np.load(out)


def check(nybble, folder, ids, tmp_path, what):
    want = reference(folder, ids)
    got = run_logits(nybble, folder, ids, tmp_path)
    assert got.dtype == np.float32 and got.shape == want.shape
    assert np.isfinite(got).all()
    off = np.abs(got - want).max()
    spread = want.std()
    same = (got.argmax(-1) == want.argmax(-1)).mean()
    print(f"{what}: max |difference| {off:.2e} (bound {TOLERANCE}), spread of logits {spread:.2f}, "
          f"same top token {same:.5f} (bound {SAME})")
    assert spread > 0.05, "the logits say nothing"
    assert off <= TOLERANCE and same >= SAME


def text_ids(folder, text, count):
    from transformers import AutoTokenizer
    return np.array(AutoTokenizer.from_pretrained(folder)(text)["input_ids"][:count])


def test_stories(nybble, stories, tmp_path):
    rng = np.random.default_rng(1)
    check(nybble, stories, rng.integers(0, 512, (6, 500)), tmp_path, "stories260k")


def test_smollm2_windows(nybble, smollm2, data, tmp_path):
    text = (data / "text" / "wiki.test.raw").read_text()[:40000]
    ids = text_ids(smollm2, text, 2048)
    check(nybble, smollm2, ids.reshape(4, 512), tmp_path, "SmolLM2-135M, 4 x 512")


def test_smollm2_long_window(nybble, smollm2, data, tmp_path):
    text = (data / "text" / "wiki.test.raw").read_text()[60000:100000]
    ids = text_ids(smollm2, text, 2048)
    check(nybble, smollm2, ids.reshape(1, 2048), tmp_path, "SmolLM2-135M, 1 x 2048")


BASE = dict(vocab_size=300, hidden_size=64, intermediate_size=172, num_hidden_layers=3,
            num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=256,
            initializer_range=0.15)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0,
              high_freq_factor=4.0, original_max_position_embeddings=64)

# name -> (class, keys, save options)
SHAPES = {
    "plain": (LlamaConfig, {}, {}),
    "one key head": (LlamaConfig, dict(num_key_value_heads=1), {}),
    "all key heads": (LlamaConfig, dict(num_key_value_heads=8), {}),
    "wide heads": (LlamaConfig, dict(head_dim=32), {}),
    "narrow heads": (LlamaConfig, dict(head_dim=4, num_attention_heads=4,
                                       num_key_value_heads=2), {}),
    "one head": (LlamaConfig, dict(num_attention_heads=1, num_key_value_heads=1), {}),
    "odd sizes": (LlamaConfig, dict(hidden_size=66, intermediate_size=61, vocab_size=257,
                                    num_attention_heads=3, num_key_value_heads=3), {}),
    "wide mlp": (LlamaConfig, dict(intermediate_size=2100), {}),
    "tied": (LlamaConfig, dict(tie_word_embeddings=True), {}),
    "biases": (LlamaConfig, dict(attention_bias=True, mlp_bias=True), {}),
    "attention bias": (LlamaConfig, dict(attention_bias=True), {}),
    "linear rope": (LlamaConfig, dict(rope_parameters=dict(
        rope_type="linear", factor=4.0, rope_theta=20000.0)), {}),
    "llama3 rope": (LlamaConfig, dict(rope_parameters=LLAMA3), {}),
    "large eps": (LlamaConfig, dict(rms_norm_eps=0.1), {}),
    "bf16": (LlamaConfig, {}, dict(dtype=torch.bfloat16)),
    "f16": (LlamaConfig, {}, dict(dtype=torch.float16)),
    "shards": (LlamaConfig, dict(num_hidden_layers=4), dict(max_shard_size="100KB")),
    "mistral": (MistralConfig, dict(sliding_window=None), {}),
    "short window": (MistralConfig, dict(sliding_window=13), {}),
    "window of a tile": (MistralConfig, dict(sliding_window=128), {}),
    "window of one": (MistralConfig, dict(sliding_window=1), {}),
    "mistral, wide heads": (MistralConfig, dict(head_dim=24, sliding_window=50), {}),
}


def make(folder, kind, keys, save):
    """A random checkpoint whose norms and biases are random too."""
    save = dict(save)
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(kind(**{**BASE, **keys}))
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" in name:
                tensor.copy_(1 + 0.3 * torch.randn_like(tensor))
            elif name.endswith("bias"):
                tensor.copy_(0.2 * torch.randn_like(tensor))
    model = model.to(save.pop("dtype", torch.float32))
    model.save_pretrained(folder, **save)
    return folder


@pytest.mark.parametrize("name", SHAPES)
def test_random_models(nybble, tmp_path, name):
    folder = make(tmp_path / "model", *SHAPES[name])
    if name == "shards":
        assert len(list(folder.glob("*.safetensors"))) > 2
    ids = np.random.default_rng(3).integers(0, 257, (3, 200)).astype(np.int32)
    check(nybble, folder, ids, tmp_path, name)


def respell(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def old_spelling(config):
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    if kind != "default":
        config["rope_scaling"] = {"type" if kind == "linear" else "rope_type": kind, **rope}
    else:
        config["rope_scaling"] = None
    config["torch_dtype"] = config.pop("dtype", "float32")
    config.pop("head_dim", None)


@pytest.mark.parametrize("name", ["plain", "linear rope", "llama3 rope"])
def test_old_spelling_gives_the_same(nybble, tmp_path, name):
    folder = make(tmp_path / "model", *SHAPES[name])
    ids = np.random.default_rng(3).integers(0, 257, (2, 100))
    new = run_logits(nybble, folder, ids, tmp_path)
    respell(folder, old_spelling)
    assert "rope_parameters" not in (folder / "config.json").read_text()
    old = run_logits(nybble, folder, ids, tmp_path)
    assert np.array_equal(new, old)
    check(nybble, folder, ids, tmp_path, f"{name}, old spelling")


def test_bits_do_not_depend_on_threads_or_memory(nybble, stories, tmp_path):
    ids = np.random.default_rng(5).integers(0, 512, (5, 333))
    want = run_logits(nybble, stories, ids, tmp_path, "--threads", 1)
    for threads in (2, 3, 4):
        got = run_logits(nybble, stories, ids, tmp_path, "--threads", threads)
        assert np.array_equal(want, got), threads
    # Less memory: samples run one by one, which may change the last bits alone.
    got = run_logits(nybble, stories, ids, tmp_path, "--memory", "2M")
    off = np.abs(want - got).max()
    print(f"with 2 MB: max |difference| {off:.2e} (bound 1e-4)")
    assert off < 1e-4


def test_ids_in_json_and_in_one_row(nybble, stories, tmp_path):
    ids = np.random.default_rng(6).integers(0, 512, (2, 20))
    want = run_logits(nybble, stories, ids, tmp_path)
    (tmp_path / "ids.json").write_text(json.dumps(ids.tolist()))
    nybble("logits", stories, "--tokens", tmp_path / "ids.json", "-o", tmp_path / "j.npy")
    assert np.array_equal(want, np.load(tmp_path / "j.npy"))
    row = run_logits(nybble, stories, ids[0].astype(np.int32), tmp_path)
    assert row.shape == (1, 20, 512)
    assert np.abs(row[0] - want[0]).max() < 1e-4


def fails(nybble, text, *args):
    done = nybble(*args, ok=False)
    assert done.returncode == 1, (done.returncode, done.stderr)
    line = done.stderr.strip().splitlines()
    assert len(line) == 1 and text in line[0], done.stderr
    return line[0]


def test_ids_outside_the_vocabulary(nybble, stories, tmp_path):
    np.save(tmp_path / "ids.npy", np.array([[1, 2, 3], [4, 512, 6]]))
    out = tmp_path / "l.npy"
    fails(nybble, "512", "logits", stories, "--tokens", tmp_path / "ids.npy", "-o", out)
    assert list(tmp_path.iterdir()) == [tmp_path / "ids.npy"]


def broken_models(folder):
    """(what was done, what the error has to name) for a folder that each case breaks anew."""
    from safetensors.torch import load_file, save_file

    def tensors(change):
        path = folder / "model.safetensors"
        loaded = load_file(path)
        change(loaded)
        save_file(loaded, path, metadata={"format": "pt"})

    q = "model.layers.1.self_attn.q_proj.weight"

    def poison(value):
        def change(t):
            t[q][3, 5] = value
        return change

    def rename(t):
        t["model.layers.1.self_attn.q_norm.weight"] = torch.ones(8)

    def reshape(t):
        t[q] = t[q][:, :32].contiguous()

    def integers(t):
        t[q] = torch.zeros_like(t[q], dtype=torch.int32)

    def embedding(t):
        t["model.embed_tokens.weight"][:] = float("inf")

    def head(t):
        t["lm_head.weight"][299, 7] = float("nan")

    return {
        "missing tensor": (lambda: tensors(lambda t: t.pop(q)), q),
        "wrong shape": (lambda: tensors(reshape), "[64, 32]"),
        "wrong type": (lambda: tensors(integers), "I32"),
        "NaN weight": (lambda: tensors(poison(float("nan"))), f"'{q}' holds nan at (3, 5)"),
        "infinite weight": (lambda: tensors(poison(float("-inf"))), "holds -inf at (3, 5)"),
        "infinite embedding": (lambda: tensors(embedding), "embed_tokens"),
        "NaN in the head": (lambda: tensors(head), "at (299, 7)"),
        "unknown tensor": (lambda: tensors(rename), "q_norm"),
        "fewer layers": (lambda: respell(folder, lambda c: c.update(num_hidden_layers=2)),
                         "no part of a model"),
        "more layers": (lambda: respell(folder, lambda c: c.update(num_hidden_layers=4)),
                        "model.layers.3."),
        "huge layers": (lambda: respell(folder, lambda c: c.update(num_hidden_layers=10**18)),
                        "num_hidden_layers"),
        "huge width": (lambda: respell(folder, lambda c: c.update(intermediate_size=2**24)),
                       "shape"),
        "other vocabulary": (lambda: respell(folder, lambda c: c.update(vocab_size=301)),
                             "[300, 64]"),
        "other heads": (lambda: respell(folder, lambda c: c.update(num_key_value_heads=2)),
                        "k_proj"),
        "spiral": (lambda: respell(folder, lambda c: c.update(rope_parameters=dict(
            rope_type="spiral", factor=2.0))), "spiral"),
        "no config": (lambda: (folder / "config.json").unlink(), "config.json"),
        "empty config": (lambda: (folder / "config.json").write_text(""), "config.json"),
        "no tensors": (lambda: (folder / "model.safetensors").unlink(), str(folder)),
    }


@pytest.mark.parametrize("name", broken_models(None))
def test_broken_models(nybble, tmp_path, name):
    folder = make(tmp_path / "model", *SHAPES["plain"])
    ids = np.zeros((1, 4), dtype=np.int64)
    np.save(tmp_path / "ids.npy", ids)
    nybble("logits", folder, "--tokens", tmp_path / "ids.npy", "-o", tmp_path / "ok.npy")
    spoil, text = broken_models(folder)[name]
    spoil()
    out = tmp_path / "l.npy"
    print(fails(nybble, text, "logits", folder, "--tokens", tmp_path / "ids.npy", "-o", out))
    assert not out.exists()


def continue_greedily(model, ids, count):
    model.generation_config.eos_token_id = None
    return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count,
                          do_sample=False)


def test_greedy_generation(nybble, stories, tmp_path):
    prompt = [1, 403, 407, 261, 378]
    (tmp_path / "p.json").write_text(json.dumps(prompt))
    done = nybble("generate", stories, "--tokens", tmp_path / "p.json", "--max-tokens", 120,
                  "--ignore-eos", "--json")
    got = json.loads(done.stdout)
    model = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32)
    want = continue_greedily(model, torch.tensor([prompt]), 120)
    assert got["prompt_ids"] == prompt
    assert got["ids"] == want[0, len(prompt):].tolist()
    assert got["stop"] == "length"


def test_greedy_generation_with_a_window(nybble, tmp_path):
    folder = make(tmp_path / "model", *SHAPES["short window"])
    prompt = np.random.default_rng(8).integers(0, 257, 40)
    np.save(tmp_path / "p.npy", prompt)
    done = nybble("generate", folder, "--tokens", tmp_path / "p.npy", "--max-tokens", 60,
                  "--ignore-eos", "--json")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    want = continue_greedily(model, torch.from_numpy(prompt)[None], 60)
    assert json.loads(done.stdout)["ids"] == want[0, 40:].tolist()


def test_generation_repeats_itself(nybble, stories):
    def run(*more):
        return json.loads(nybble("generate", stories, "--prompt", "Once upon a time", "--json",
                                 "--max-tokens", 100, "--temperature", 1, *more).stdout)

    drawn = run("--seed", 3)
    assert drawn["stop"] == "length" and len(drawn["ids"]) == 100
    again = run("--seed", 3, "--threads", 1)
    assert again["ids"] == drawn["ids"] and again["text"] == drawn["text"]
    assert run("--seed", 4)["ids"] != drawn["ids"]
    plain = nybble("generate", stories, "--prompt", "Once upon a time", "--max-tokens", 100,
                   "--temperature", 1, "--seed", 3)
    assert plain.stdout == "Once upon a time" + drawn["text"] + "\n"
    assert drawn["text"].startswith((" ", ",", "."))


def test_generation_stops_at_the_end_of_the_text(nybble, stories, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(stories, folder)

    def run(*more):
        return json.loads(nybble("generate", folder, "--prompt", "Once upon a time", "--json",
                                 "--max-tokens", 50, *more).stdout)

    free = run()
    end = free["ids"][20]
    respell(folder, lambda c: c.update(eos_token_id=[511, end]))
    first = free["ids"].index(end)
    stopped = run()
    assert stopped["stop"] == "eos" and stopped["ids"] == free["ids"][:first + 1]
    assert run("--ignore-eos")["ids"] == free["ids"]
    # generation_config.json has the last word.
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 511}))
    assert run()["ids"] == free["ids"]
