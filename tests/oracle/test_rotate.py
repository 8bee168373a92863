"""Rotated checkpoints give the original's logits, here and in transformers."""
import json

import families
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from test_families import run_logits

TOLERANCE = 1e-3 # of the largest logit

# Why a rotation cannot be folded into them.
REFUSED = {
    "the mean": ["opt", "gpt2", "falcon", "gpt_neox", "bert", "roberta", "distilbert", "phi"],
    "norms of outputs": ["gemma2", "gemma3_text", "olmo2"],
    "other experts": ["llama4_text"],
}


def reason(family):
    return next((why for why, names in REFUSED.items() if family in names), None)


def run_by_transformers(folder, model, ids):
    loaded = type(model).from_pretrained(folder, dtype=torch.float32)
    return families.logits(loaded, ids).numpy()


@pytest.mark.parametrize("family,index", families.CASES)
def test_logits_stay(nybble, tmp_path, family, index):
    model, out = families.make(family, index, tmp_path / "model"), tmp_path / "out"
    ids = torch.randint(4, 97, (2, 40), generator=torch.Generator().manual_seed(5))
    done = nybble("rotate", tmp_path / "model", "-o", out, "--seed", index + 1,
                  ok=reason(family) is None)
    if reason(family):
        assert done.returncode == 1 and not out.exists() and done.stderr.count("\n") == 1
        assert reason(family) in done.stderr
        return
    want = families.logits(model, ids).numpy()
    got = run_logits(nybble, out, ids, tmp_path)
    size = np.abs(want).max()
    errors = [np.abs(x - want).max() / size for x in (got, run_by_transformers(out, model, ids))]
    before = load_file(tmp_path / "model" / "model.safetensors")
    after = load_file(out / "model.safetensors")
    moved = [n for n in before if n in after and not torch.equal(before[n].float(), after[n])]
    print(f"{family} {index}: logits off by {errors[0]:.2e} here, {errors[1]:.2e} in transformers "
          f"(of the largest; tolerance {TOLERANCE}); {len(moved)} tensors changed")
    assert max(errors) <= TOLERANCE
    assert len(moved) > 6 * model.config.num_hidden_layers


def test_the_real_model_stays(nybble, smollm2, data, tmp_path):
    out = tmp_path / "out"
    done = json.loads(nybble("rotate", smollm2, "-o", out, "--json").stdout)
    assert done["untied"] and done["layers"] == 7 * 30 + 2
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
    text = (data / "text" / "wiki.test.raw").read_text()[:4000]
    ids = torch.tensor([tokenizer(text)["input_ids"][:512]])
    logits = []
    for folder in smollm2, out:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        logits.append(families.logits(model, ids).numpy())
    error = np.abs(logits[1] - logits[0]).max() / np.abs(logits[0]).max()
    print(f"SmolLM2: logits off by {error:.2e} of the largest, tolerance {TOLERANCE}")
    assert error <= TOLERANCE
    weights = [load_file(f / "model.safetensors")["model.layers.5.mlp.up_proj.weight"].float()
               for f in (smollm2, out)]
    tails = [(w.abs().max() / w.std()).item() for w in weights]
    print(f"largest weight of a layer: {tails[0]:.1f} deviations before, {tails[1]:.1f} after")
    assert tails[1] < tails[0]


def test_the_same_bytes(nybble, stories, tmp_path):
    """Whatever the threads; and others with another seed."""
    for name, more in {"a": ["--threads", 1], "b": ["--threads", 3], "c": ["--seed", 7]}.items():
        nybble("rotate", stories, "-o", tmp_path / name, *more)
    a, b, c = ((tmp_path / n / "model.safetensors").read_bytes() for n in "abc")
    assert a == b and a != c


def test_a_quantised_model_is_refused(nybble, stories, tmp_path):
    nybble("quantize", stories, "-o", tmp_path / "q", "-m", "int8")
    done = nybble("rotate", tmp_path / "q", "-o", tmp_path / "out", ok=False)
    assert done.returncode == 1 and "full-precision" in done.stderr
    assert not (tmp_path / "out").exists()
