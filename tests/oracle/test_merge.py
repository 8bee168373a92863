"""`nybble merge` against PEFT's merge_and_unload()."""
import json
import os
import resource

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

LLAMA = dict(vocab_size=160, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
             tie_word_embeddings=False, attention_bias=True)
GPT2 = dict(vocab_size=160, n_embd=64, n_layer=2, n_head=4, n_positions=128)
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_base(folder, kind="llama", dtype=torch.float32):
    torch.manual_seed(11)
    config = transformers.LlamaConfig(**LLAMA) if kind == "llama" else transformers.GPT2Config(
        **GPT2)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * (0.5 if p.ndim == 1 else 0.1) + (p.ndim == 1))
    model.to(dtype).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {name: make_base(root / name, kind, dtype) for name, kind, dtype in [
        ("llama", "llama", torch.float32), ("llama16", "llama", torch.bfloat16),
        ("gpt2", "gpt2", torch.float32)]}


def make_adapter(base, folder, dtype=torch.float32, seed=1, **settings):
    """A random adapter of the base, and the weights that PEFT makes of the two."""
    torch.manual_seed(seed)
    settings = {"r": 4, "lora_alpha": 10, "target_modules": LINEARS, "init_lora_weights": False,
                **settings}
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name or p.requires_grad:
                p.copy_(torch.randn_like(p) * 0.1)
    model.save_pretrained(folder)
    # As users do it: the base anew, the adapter from its files.
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    model = peft.PeftModel.from_pretrained(model, folder)
    merged = model.merge_and_unload()
    return {n: t.detach().clone() for n, t in merged.state_dict().items()}


def named(tensors, folder):
    """A state dict under the names of the folder's files."""
    names = load_file(folder / "model.safetensors").keys()
    return {n: tensors[n if n in tensors else "transformer." + n] for n in names}


def assert_merged(nybble, base, adapter, want, out, bound):
    made = json.loads(nybble("merge", base, adapter, "-o", out, "--json").stdout)
    got, was = load_file(out / "model.safetensors"), load_file(base / "model.safetensors")
    want = named(want, base)
    assert got.keys() == was.keys() == want.keys()
    worst, changed = 0.0, 0
    for name, tensor in want.items():
        assert got[name].dtype == was[name].dtype and got[name].shape == was[name].shape, name
        a, b = got[name].double(), tensor.double()
        if torch.equal(was[name], tensor):
            assert torch.equal(got[name], tensor), name
            continue
        changed += 1
        worst = max(worst, ((a - b).abs() / b.abs().max()).max().item())
    print(f"{changed} tensors changed, off by {worst:.2e} of their largest (bound {bound:g})")
    assert changed == made["layers"] + made["replaced"] and changed > 0
    assert worst <= bound
    assert made["requantized"] == 0 and len(made["merged"]) == made["layers"]
    report = json.loads((out / "nybble_report.json").read_text())
    assert report["command"] == f"nybble merge {base} {adapter} -o {out} --json"
    assert (out / "config.json").read_bytes() == (base / "config.json").read_bytes()
    return made


SETTINGS = {
    "plain": {},
    "rslora": {"use_rslora": True, "r": 9},
    "patterns": {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7},
                 "alpha_pattern": {"^model.layers.0.*down_proj": 3, "k_proj": 20},
                 "target_modules": LINEARS},
    "some": {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1]},
    "regex": {"target_modules": r".*\.1\.mlp\.(up|down)_proj"},
    "saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
    "bias": {"target_modules": ["q_proj", "o_proj"], "bias": "all"},
    "lora bias": {"target_modules": ["q_proj", "o_proj"], "bias": "lora_only"},
    "head": {"target_modules": ["lm_head", "gate_proj"]},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_f32_is_as_peft_merges_it(nybble, bases, tmp_path, name):
    want = make_adapter(bases["llama"], tmp_path / "adapter", **SETTINGS[name])
    assert_merged(nybble, bases["llama"], tmp_path / "adapter", want, tmp_path / "out", 1e-6)


@pytest.mark.parametrize("name", ["plain", "saved"])
def test_bf16_is_as_peft_merges_it(nybble, bases, tmp_path, name):
    """Both round to bf16, 2^-8 of a weight; PEFT rounds the adapter's part, too."""
    want = make_adapter(bases["llama16"], tmp_path / "adapter", **SETTINGS[name])
    assert_merged(nybble, bases["llama16"], tmp_path / "adapter", want, tmp_path / "out", 2**-7)
    # The sum in double, rounded once.
    exact = load_file(tmp_path / "out" / "model.safetensors")
    lora = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    base = load_file(bases["llama16"] / "model.safetensors")
    module = "model.layers.1.self_attn.q_proj"
    a, b = (lora[f"base_model.model.{module}.lora_{x}.weight"].double() for x in "AB")
    sums = base[module + ".weight"].double() + 10 / 4 * (b @ a)
    assert (exact[module + ".weight"] == sums.float().to(torch.bfloat16)).float().mean() > 0.9999


@pytest.mark.parametrize("fan", [True, False])
def test_transposed_layers_are_as_peft_merges_them(nybble, bases, tmp_path, fan):
    want = make_adapter(bases["gpt2"], tmp_path / "adapter", target_modules=["c_attn", "c_proj"],
                        fan_in_fan_out=fan)
    assert_merged(nybble, bases["gpt2"], tmp_path / "adapter", want, tmp_path / "out", 1e-6)


def test_heads_that_come_with_their_base(nybble, bases, tmp_path):
    """PEFT saves what the adapter of a head is added to: that counts, not the base's own."""
    make_adapter(bases["llama"], tmp_path / "adapter", target_modules=["lm_head"])
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = "base_model.model.lm_head.base_layer.weight"
    tensors[name] = tensors.get(name, torch.zeros(160, 128)) * 0 + 0.25
    save_file(tensors, path)
    nybble("merge", bases["llama"], tmp_path / "adapter", "-o", tmp_path / "out")
    a, b = (tensors[f"base_model.model.lm_head.lora_{x}.weight"].double() for x in "AB")
    want = (0.25 + 10 / 4 * (b @ a)).float()
    got = load_file(tmp_path / "out" / "model.safetensors")["lm_head.weight"]
    off = (got - want).abs().max().item()
    print(f"off by {off:.2e} (bound 1e-6)")
    assert off <= 1e-6


def test_threads_do_not_matter(nybble, bases, tmp_path):
    make_adapter(bases["llama"], tmp_path / "adapter")
    for threads in (1, 3):
        nybble("merge", bases["llama"], tmp_path / "adapter", "-o", tmp_path / str(threads),
               "--threads", threads)
    assert (tmp_path / "1" / "model.safetensors").read_bytes() == (
        tmp_path / "3" / "model.safetensors").read_bytes()


# ---- Quantised bases ------------------------------------------------------------------------

QUANTIZED = {
    "gptq": ["-f", "gptq", "-b", 4, "-g", 32],
    "gptq order": ["-f", "gptq_v2", "-b", 3, "-g", 32, "--asymmetric", "-m", "gptq",
                   "--activation-order", "full"],
    "awq": ["-f", "awq", "-g", 64, "--asymmetric"],
    "compressed-tensors": ["-f", "compressed-tensors", "-b", 8, "-g", -1],
    "float8": ["-m", "float8", "-f", "compressed-tensors"],
    "fp8": ["-m", "float8", "-f", "fp8"],
}


def dequantised(nybble, folder, out):
    nybble("convert", folder, "-o", out, "-f", "f32")
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantised_bases_are_rounded_anew(nybble, bases, tmp_path, kind):
    """The result is what rounding the sum from scratch gives: the same codes in the same layout."""
    np.save(tmp_path / "ids.npy", np.random.default_rng(1).integers(3, 160, (8, 64)))
    more = QUANTIZED[kind] + (["--calib", tmp_path / "ids.npy", "-n", 8, "-l", 64]
                              if "gptq" in QUANTIZED[kind][1:] and "-m" in QUANTIZED[kind] and
                              kind == "gptq order" else [] if "-m" in QUANTIZED[kind] else
                              ["-m", "rtn"])
    nybble("quantize", bases["llama"], "-o", tmp_path / "q", *more)
    make_adapter(bases["llama"], tmp_path / "adapter", target_modules=["q_proj", "down_proj"])
    lora = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    made = json.loads(nybble("merge", tmp_path / "q", tmp_path / "adapter", "-o", tmp_path / "out",
                             "--json").stdout)
    assert made["layers"] == made["requantized"] == 4
    before, after = (dequantised(nybble, tmp_path / n, tmp_path / f"{n}-f32")
                     for n in ("q", "out"))
    touched = [layer["module"] for layer in made["merged"]]
    sums, total = dict(before), [0.0, 0.0]
    for module in touched:
        a, b = (lora[f"base_model.model.{module}.lora_{x}.weight"].double() for x in "AB")
        delta = 10 / 4 * (b @ a)
        name = module + ".weight"
        sums[name] = (before[name].double() + delta).float()
        record = next(r for r in made["merged"] if r["module"] == module)
        error = (after[name].double() - sums[name].double()).square().sum()
        want = {"weight_error": error / sums[name].double().square().sum(),
                "delta_error": error / delta.square().sum()}
        for key, value in want.items():
            assert abs(record[key] - value.item()) <= 1e-4 * value.item(), (key, record)
        total[0] += error.item()
        total[1] += delta.square().sum().item()
    assert abs(made["delta_error"] - total[0] / total[1]) <= 1e-4 * made["delta_error"]
    packed, source = (load_file(tmp_path / n / "model.safetensors") for n in ("out", "q"))
    assert packed.keys() == source.keys()
    for name, tensor in source.items():
        assert packed[name].dtype == tensor.dtype and packed[name].shape == tensor.shape
        if name.rsplit(".", 1)[0] not in touched:
            assert torch.equal(packed[name].view(torch.uint8), tensor.view(torch.uint8)), name
    for name in ("config.json", "quantize_config.json"):
        if (tmp_path / "q" / name).exists():
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "q" / name).read_bytes()
    if kind == "gptq order":
        return
    # Rounding the sums by `quantize` with the same settings gives the very tensors.
    folder = tmp_path / "sums"
    folder.mkdir()
    save_file(sums, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_bytes((bases["llama"] / "config.json").read_bytes())
    nybble("quantize", folder, "-o", tmp_path / "again", *more)
    again = load_file(tmp_path / "again" / "model.safetensors")
    for name, tensor in again.items():
        if name.rsplit(".", 1)[0] in touched:
            assert torch.equal(packed[name].view(torch.uint8), tensor.view(torch.uint8)), name


# ---- Refusals -------------------------------------------------------------------------------

def edit(folder, **changes):
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config.update(changes)
    path.write_text(json.dumps(config))


def refused(nybble, base, folder, out, *parts):
    done = nybble("merge", base, folder, "-o", out, ok=False)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert all(part in done.stderr for part in parts), done.stderr
    assert not out.exists() and not out.with_name(out.name + ".partial").exists()


@pytest.mark.parametrize("changes,part", [
    ({"peft_type": "IA3"}, "IA3"), ({"use_dora": True}, "use_dora"),
    ({"lora_bias": True}, "lora_bias"), ({"layer_replication": [[0, 2]]}, "layer_replication"),
    ({"target_parameters": ["experts.gate_up_proj"]}, "target_parameters"),
    ({"trainable_token_indices": [3]}, "trainable_token_indices"),
    ({"something_new": {"x": 1}}, "something_new"), ({"init_lora_weights": "pissa"}, "pissa"),
    ({"loftq_config": {"loftq_bits": 4}}, "loftq_config"), ({"r": 5}, "rank 5"),
    ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern"), ({"lora_alpha": "ten"}, "lora_alpha"),
    ({"rank_pattern": {"q_(proj": 3}}, "q_(proj")])
def test_settings_that_are_not_merged_are_named(nybble, bases, tmp_path, changes, part):
    make_adapter(bases["llama"], tmp_path / "adapter", target_modules=["q_proj"])
    edit(tmp_path / "adapter", **changes)
    refused(nybble, bases["llama"], tmp_path / "adapter", tmp_path / "out", part)


def test_tensors_that_are_not_merged_are_named(nybble, bases, tmp_path):
    make_adapter(bases["llama"], tmp_path / "adapter", target_modules=["q_proj"])
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    whole = load_file(path)
    first = next(n for n in whole if "lora_A" in n)

    def broken(change, *parts):
        tensors = {n: t.clone() for n, t in whole.items()}
        change(tensors)
        save_file(tensors, path)
        refused(nybble, bases["llama"], tmp_path / "adapter", tmp_path / "out", *parts)

    prefix = "base_model.model."
    broken(lambda t: t.update({prefix + "x.lora_magnitude_vector": torch.ones(3)}), "magnitude")
    broken(lambda t: t.update({prefix + "model.embed_tokens.lora_embedding_A": torch.ones(3, 3)}),
           "lora_embedding_A")
    broken(lambda t: t.pop(first), first.replace("lora_A", "lora_B"), "no lora_A")
    broken(lambda t: t.pop(first.replace("lora_A", "lora_B")), first, "lora_B")
    broken(lambda t: t.update({first: whole[first][:, :-1].contiguous()}), "128 x 127",
           "128 x 128")
    broken(lambda t: t.update({first: whole[first][:-1].contiguous()}), "product")
    broken(lambda t: t[first].__setitem__((0, 3), float("nan")), first, "nan")
    broken(lambda t: t.update({first: whole[first].to(torch.int32)}), "I32")
    broken(lambda t: t.update({prefix + "nothing.weight": torch.ones(3)}), "nothing.weight")
    broken(lambda t: t.update({prefix + "lm_head.weight": torch.ones(3, 3)}), "another shape")
    broken(lambda t: t.update({prefix + "model.strange.lora_A.weight": torch.ones(2, 3),
                               prefix + "model.strange.lora_B.weight": torch.ones(3, 2)}),
           "model.strange")
    path.rename(path.with_suffix(".bin"))
    refused(nybble, bases["llama"], tmp_path / "adapter", tmp_path / "out", "pickle")


def test_tied_heads_are_refused(nybble, bases, tmp_path):
    make_adapter(bases["gpt2"], tmp_path / "adapter", target_modules=["c_attn"],
                 fan_in_fan_out=True)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors["base_model.model.lm_head.lora_A.weight"] = torch.ones(4, 64)
    tensors["base_model.model.lm_head.lora_B.weight"] = torch.ones(160, 4)
    save_file(tensors, path)
    refused(nybble, bases["gpt2"], tmp_path / "adapter", tmp_path / "out", "embedding")


def test_full_disks_leave_nothing(nybble, bases, tmp_path):
    make_adapter(bases["llama"], tmp_path / "adapter")

    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    for args in (["merge", bases["llama"], tmp_path / "adapter"],
                 ["convert", bases["llama"], "-f", "bf16"]):
        done = nybble(*args, "-o", tmp_path / "out", ok=False, preexec_fn=small)
        assert done.returncode == 1 and "model.safetensors" in done.stderr, done.stderr
        assert sorted(os.listdir(tmp_path)) == ["adapter"]
