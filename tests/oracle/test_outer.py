"""The embedding and the output head, rounded by choice: what is written is what transformers runs."""
import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from test_modes import decompress, logits_of
from test_quantize import report

EMBEDDING, HEAD = "model.embed_tokens", "lm_head"


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def model(request, tmp_path_factory):
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=96, tie_word_embeddings=request.param)
    made = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(5.0)
    folder = tmp_path_factory.mktemp("outer") / "model"
    made.save_pretrained(folder)
    return folder


def is_tied(folder):
    return json.loads((folder / "config.json").read_text()).get("tie_word_embeddings", False)


def rounded_modules(folder):
    names = load_file(folder / "model.safetensors")
    return {m for m in (EMBEDDING, HEAD) if m + ".weight_scale" in names}


def run_by_transformers(folder, ids):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    with torch.no_grad():
        return model(torch.from_numpy(ids)).logits.float().numpy()


# Options, and what they round where embedding and head are two tensors, and where they are one.
CHOICES = {
    "head": (["-m", "int8", "--head", "int8"], {HEAD}, {HEAD}),
    "embedding": (["-m", "int4", "--embedding", "int8"], {EMBEDDING}, {EMBEDDING, HEAD}),
    "embedding alone": (["-m", "int8", "--embedding", "int8", "--head", "none"], {EMBEDDING},
                        {EMBEDDING}),
    "both": (["-m", "int4", "--embedding", "int8", "--head", "float8"], {EMBEDDING, HEAD},
             {EMBEDDING, HEAD}),
    "packed": (["-m", "rtn", "-b", "4", "-g", "32", "--embedding", "rtn", "--head", "rtn"],
               {EMBEDDING, HEAD}, {EMBEDDING, HEAD}),
    "floats": (["-m", "float8", "--embedding", "float8", "--head", "float8"], {EMBEDDING, HEAD},
               {EMBEDDING, HEAD}),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_transformers_runs_the_file(nybble, model, tmp_path, choice):
    options, two, one = CHOICES[choice]
    out, tied = tmp_path / "out", is_tied(model)
    nybble("quantize", model, "-o", out, *options)
    assert rounded_modules(out) == (one if tied else two)
    assert not is_tied(out)
    assert {m["module"] for m in report(out)["layers"]} >= rounded_modules(out)

    ids = np.random.default_rng(3).integers(0, 96, (4, 48)).astype(np.int64)
    got, want = logits_of(nybble, out, ids, tmp_path), run_by_transformers(out, ids)
    error, size = np.abs(got - want).max(), np.abs(want).max()
    print(f"{choice}: max |logit difference| {error:.2e} of {size:.2f}, tolerance 1e-3")
    assert error <= 1e-3


@pytest.mark.parametrize("module", [EMBEDDING, HEAD])
def test_codes_are_those_of_the_method(nybble, model, tmp_path, module):
    """Rounded by itself, a row is within half a step of what it was."""
    out = tmp_path / "out"
    nybble("quantize", model, "-o", out, "-m", "int8", "--embedding", "int8", "--head", "int8")
    tensors, source = load_file(out / "model.safetensors"), load_file(model / "model.safetensors")
    config = json.loads((out / "config.json").read_text())["quantization_config"]
    weight = source.get(module + ".weight", source[EMBEDDING + ".weight"]).float()
    step = (weight.abs().amax(1, keepdim=True) + 1e-7) / 127
    assert tensors[module + ".weight"].dtype == torch.int8
    assert torch.allclose(tensors[module + ".weight_scale"].float(), step, rtol=1e-6)
    off = (decompress(tensors, config, module) - weight).abs() / step
    print(f"{module}: largest error {off.max():.4f} steps")
    assert 0.3 < off.max() <= 0.5001


def test_a_recipe_says_the_same(nybble, model, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"method": "int8", "embedding": {"method": "int8"},
                                  "head": {"method": "rtn", "weight_bits": 4, "group_size": 32}}))
    nybble("quantize", model, "-o", tmp_path / "a", "--recipe", recipe)
    config = json.loads((tmp_path / "a" / "config.json").read_text())["quantization_config"]
    assert rounded_modules(tmp_path / "a") == {EMBEDDING, HEAD}
    assert HEAD not in config["ignore"]
    nybble("quantize", model, "-o", tmp_path / "b", "--recipe", recipe, "--head", "none")
    assert rounded_modules(tmp_path / "b") == {EMBEDDING}


def test_other_commands_take_the_file(nybble, model, tmp_path):
    """Converted to floats it gives the same logits; quantised anew it becomes a plain checkpoint."""
    out, floats, again = tmp_path / "out", tmp_path / "floats", tmp_path / "again"
    nybble("quantize", model, "-o", out, "-m", "int4", "--embedding", "int4", "--head", "int8")
    nybble("convert", out, "-o", floats, "-f", "f32")
    ids = np.random.default_rng(4).integers(0, 96, (2, 32)).astype(np.int64)
    got, want = (logits_of(nybble, f, ids, tmp_path) for f in (floats, out))
    error = np.abs(got - want).max()
    print(f"as floats: max |logit difference| {error:.2e}, tolerance 1e-4")
    assert error <= 1e-4
    assert load_file(floats / "model.safetensors")[EMBEDDING + ".weight"].dtype == torch.float32
    nybble("quantize", floats, "-o", again, "-m", "int8")
    assert rounded_modules(again) == set()
    nybble("convert", model, "-o", tmp_path / "half", "-f", "f16")
    nybble("quantize", tmp_path / "half", "-o", tmp_path / "packed", "-m", "rtn", "-g", "32",
           "--embedding", "rtn")
    refusal = nybble("convert", tmp_path / "packed", "-o", tmp_path / "no", "-f", "gptq",
                     ok=False).stderr
    assert "embed_tokens" in refusal and not (tmp_path / "no").exists()


def test_a_gguf_file_is_made_of_it(nybble, stories, tmp_path):
    out, file = tmp_path / "out", tmp_path / "out.gguf"
    nybble("quantize", stories, "-o", out, "-m", "int4", "--embedding", "int8")
    nybble("quantize", out, "-o", file, "-m", "rtn", "-f", "gguf:F32")
    ids = np.random.default_rng(4).integers(3, 512, (2, 32)).astype(np.int64)
    got, want = (logits_of(nybble, f, ids, tmp_path) for f in (file, out))
    error = np.abs(got - want).max()
    print(f"as GGUF: max |logit difference| {error:.2e}, tolerance 1e-4")
    assert error <= 1e-4


def test_the_same_bytes_on_any_number_of_threads(nybble, model, tmp_path):
    for threads in 1, 3:
        nybble("quantize", model, "-o", tmp_path / str(threads), "-m", "int8", "--embedding", "int8",
               "--threads", threads)
    one, three = ((tmp_path / n / "model.safetensors").read_bytes() for n in "13")
    assert one == three


@pytest.mark.parametrize("options, says", [
    (["-m", "int8", "--head", "int8", "-f", "gptq"], "compressed-tensors"),
    (["-m", "rtn", "--embedding", "int8", "-f", "gguf:Q8_0"], "--embedding"),
    (["-m", "int8", "--recipe", {"head": {"method": "gptq"}}], "rounded to nearest"),
    (["-m", "int8", "--recipe", {"head": {"bits": 4}}], "unknown setting 'bits'"),
    (["-m", "int8", "--recipe", {"embedding": "int8"}], "not an object"),
])
def test_refusals(nybble, model, tmp_path, options, says):
    for i, option in enumerate(options):
        if isinstance(option, dict):
            options[i] = tmp_path / "recipe.json"
            options[i].write_text(json.dumps(option))
    done = nybble("quantize", model, "-o", tmp_path / "out", *options, ok=False)
    assert done.returncode == 1 and says in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
