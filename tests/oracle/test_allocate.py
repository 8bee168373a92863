"""Bits chosen layer by layer: the choice against all others, the recipe against what it makes."""
import itertools
import json

import numpy as np
import pytest
import torch
import transformers
from test_families import run_logits
from test_quantize import report, sums


@pytest.fixture(scope="session")
def store(nybble, stories, tmp_path_factory):
    out = tmp_path_factory.mktemp("store") / "stories.h5"
    nybble("calibrate", stories, "--calib", stories.parent / "tinystories.txt", "-n", 32, "-l", 128,
           "-o", out)
    return out


def allocate(nybble, model, store, out, target, *more, **options):
    return nybble("allocate", model, "--hessians", store, "-b", target, "-o", out, "--sensitivity",
                  "relative", "--force", *more, **options)


def quantise(nybble, model, store, out, recipe, *more):
    nybble("quantize", model, "--hessians", store, "--recipe", recipe, "-o", out, *more)
    return report(out)


def test_choice_is_the_best_of_all(nybble, stories, store, tmp_path):
    """Four layers of one block may differ; the others are left as they are."""
    (tmp_path / "few.json").write_text(json.dumps({"modules": [
        {"pattern": "*", "method": "none"},
        {"pattern": "model.layers.1.self_attn.[qo]_proj", "method": "gptq"},
        {"pattern": "model.layers.1.mlp.*_proj", "method": "gptq"}]}))
    for target in (2.5, 3.0, 3.3, 4.2):
        allocate(nybble, stories, store, tmp_path / "r.json", target, "--recipe", tmp_path / "few.json",
                 "--table", tmp_path / "t.json")
        table = json.loads((tmp_path / "t.json").read_text())
        items, budget = table["items"], target * table["weights"]
        assert len(items) == 4 and table["weights"] == 2 * 64 * 64 + 3 * 64 * 172
        best = min((sum(c["sensitivity"] for c in pick), sum(c["bits"] for c in pick))
                   for pick in itertools.product(*items) if sum(c["bits"] for c in pick) <= budget)
        print(f"{target} bits: {table['loss']:.6g}, by brute force {best[0]:.6g}")
        assert abs(table["loss"] / best[0] - 1) < 1e-7 and table["bound"] == table["loss"]
        assert table["bits"] <= budget


@pytest.mark.parametrize("more", [[], ["--alone"]])
def test_recipe_makes_what_was_chosen(nybble, stories, store, tmp_path, more):
    allocate(nybble, stories, store, tmp_path / "r.json", 3.1, "--refine", 1, "--table",
             tmp_path / "t.json", *more)
    table = json.loads((tmp_path / "t.json").read_text())
    made = quantise(nybble, stories, store, tmp_path / "out", tmp_path / "r.json")
    layers = {x["module"]: x for x in made["layers"]}
    bits = 0
    for chosen in table["layers"]:
        pick = [c for c in chosen["choices"] if c["chosen"]]
        assert len(pick) == 1
        layer = layers[chosen["module"]]
        assert (layer["weight_bits"], layer["group_size"]) == (pick[0]["weight_bits"],
                                                               pick[0]["group_size"])
        assert layer["loss"] == pytest.approx(pick[0]["loss"], rel=1e-6)
        assert layer["bits_per_weight"] * layer["rows"] * layer["cols"] == pytest.approx(pick[0]["bits"])
        bits += pick[0]["bits"]
    assert bits == table["bits"] <= 3.1 * table["weights"]
    assert made["totals"]["bits_per_weight"] == pytest.approx(bits / table["weights"])
    kinds = {(x["weight_bits"], x["group_size"]) for x in layers.values()}
    assert len(kinds) > 2
    fused = [{layers[f"model.layers.{b}.self_attn.{m}_proj"]["weight_bits"] for m in "qkv"}
             for b in range(5)]
    if not more:
        assert all(len(f) == 1 for f in fused)
    config = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]
    # A row of 64 columns in a group of 64 is one group.
    assert 2 < len(config["config_groups"]) <= len(kinds)
    ids = torch.from_numpy(np.arange(3, 67)[None])
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    with torch.no_grad():
        want = model.eval()(ids).logits.numpy()
    worst = np.abs(run_logits(nybble, tmp_path / "out", ids, tmp_path) - want).max()
    print(f"{len(kinds)} config groups, transformers differs by {worst:.1e}, tolerance 1e-3")
    assert worst < 1e-3


KL = ["--samples", 2, "--bits", "2,3,4", "--groups", "32,-1"]


def by_divergence(nybble, stories, store, tmp_path, target, name, table, *more, **options):
    return nybble("allocate", stories, "--hessians", store, "-b", target, "-o", tmp_path / name,
                  "--table", tmp_path / table, *KL, *more, **options)


@pytest.fixture(scope="module")
def measured(nybble, stories, store, tmp_path_factory):
    """A recipe and its table."""
    place = tmp_path_factory.mktemp("table")
    by_divergence(nybble, stories, store, place, 3, "r.json", "t.json", "--threads", 1)
    return place


def test_same_choice_at_any_thread_count(nybble, stories, store, measured, tmp_path):
    by_divergence(nybble, stories, store, tmp_path, 3, "r.json", "t.json", "--threads", 3)
    for name in ("r.json", "t.json"):
        assert (tmp_path / name).read_bytes() == (measured / name).read_bytes()
    table = json.loads((tmp_path / "t.json").read_text())
    assert table["sensitivity"] == "kl" and len(table["probes"]) == len(table["items"]) == 20
    assert all([p["weight_bits"] for p in probes] == [2, 3] for probes in table["probes"])


def test_table_serves_other_budgets(nybble, stories, store, measured, tmp_path):
    """What is taken from a table is what would be measured; what is of something else is refused."""
    old = (measured / "t.json").read_text()
    (tmp_path / "t.json").write_text(old)
    by_divergence(nybble, stories, store, tmp_path, 2.7, "r27.json", "t.json")
    by_divergence(nybble, stories, store, tmp_path, 3, "r30.json", "t.json")
    assert (tmp_path / "r30.json").read_bytes() == (measured / "r.json").read_bytes()
    assert (tmp_path / "t.json").read_text() == old
    assert (tmp_path / "r27.json").read_bytes() != (tmp_path / "r30.json").read_bytes()

    # Numbers that were not measured here show that the table is what counts.
    table = json.loads(old)
    for probes in table["probes"]:
        for probe in probes:
            probe["kl"] = 0 if probe["weight_bits"] == 2 else 1
    (tmp_path / "t.json").write_text(json.dumps(table))
    by_divergence(nybble, stories, store, tmp_path, 4, "r.json", "t.json")
    modules = json.loads((tmp_path / "r.json").read_text())["modules"]
    assert len(modules) == 35 and all(m["weight_bits"] == 2 for m in modules)

    for more, words in ((["--asymmetric"], "settings.symmetric is false, was true"),
                        (["--samples", 3], "samples is 3, was 2"),
                        (["--alone"], "alone is true, was false"),
                        (["--bits", "2,3"], "bits is [2,3], was [2,3,4]")):
        done = by_divergence(nybble, stories, store, tmp_path, 3, "x.json", "t.json", *more, ok=False)
        assert done.returncode == 1 and words in done.stderr and "--force" in done.stderr
    for damage in (lambda t: t.pop("probes"), lambda t: t["layers"].pop(),
                   lambda t: t["layers"][3].update(module="x"),
                   lambda t: t["layers"][3].update(energy=-1),
                   lambda t: t["layers"][3]["choices"][1].update(bits=0),
                   lambda t: t["layers"][3]["choices"][1].update(weight_bits=5),
                   lambda t: t["layers"][3]["choices"][1].update(loss="1"),
                   lambda t: t["probes"][2][0].update(kl=None),
                   lambda t: t["probes"].__setitem__(2, 7),
                   lambda t: t.update(fixed_bits=-1), lambda t: t.update(schema="x")):
        table = json.loads(old)
        damage(table)
        (tmp_path / "t.json").write_text(json.dumps(table))
        done = by_divergence(nybble, stories, store, tmp_path, 3, "x.json", "t.json", ok=False)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "x.json").exists()
    by_divergence(nybble, stories, store, tmp_path, 3, "x.json", "t.json", "--force")
    assert (tmp_path / "t.json").read_text() == old


def test_mixed_is_better_than_uniform(nybble, stories, store, tmp_path):
    """At the size of two uniform recipes, with divergence as the measure, measured once for both."""
    lines = (stories.parent / "tinystories.txt").read_text().splitlines(keepends=True)
    (tmp_path / "eval.txt").write_text("".join(lines[-600:]))
    groups = {3: ["-g", -1], 2: ["-g", 32, "--recipe", stories.parent / "stories-recipe.json"]}
    for bits in (3, 2):
        nybble("quantize", stories, "--hessians", store, "-o", tmp_path / f"u{bits}", "-b", bits,
               *groups[bits], "--asymmetric")
        target = report(tmp_path / f"u{bits}")["totals"]["bits_per_weight"]
        nybble("allocate", stories, "--hessians", store, "-b", target, "-o", tmp_path / "r.json",
               "--asymmetric", "--force", "--table", tmp_path / "t.json")
        quantise(nybble, stories, store, tmp_path / f"m{bits}", tmp_path / "r.json")
        assert report(tmp_path / f"m{bits}")["totals"]["bits_per_weight"] <= target + 1e-9
    done = nybble("compare", stories, *(tmp_path / x for x in ("u3", "m3", "u2", "m2")), "--text",
                  tmp_path / "eval.txt", "--window", 256, "--max-tokens", 6000, "--json")
    rows = json.loads(done.stdout)
    models = rows["models"]
    u3, m3, u2, m2 = (m["kl"] for m in models[1:])
    print(f"KL at 3 bits: uniform {u3:.4f}, mixed {m3:.4f}; at 2 bits: {u2:.4f}, {m2:.4f}")
    assert m3 < u3 and m2 < u2


def test_quantize_does_both_at_once(nybble, stories, store, tmp_path):
    (tmp_path / "few.json").write_text(json.dumps({"modules": [
        {"pattern": "*", "method": "none"}, {"pattern": "model.layers.2.*", "method": "gptq"}]}))
    words = ["quantize", stories, "--hessians", store, "-o", tmp_path / "out", "--asymmetric",
             "--recipe", tmp_path / "few.json"]
    nybble(*words, "--target-bits", 3.2)
    nybble("allocate", stories, "--hessians", store, "-b", 3.2, "-o", tmp_path / "r.json",
           "--asymmetric", "--recipe", tmp_path / "few.json")
    quantise(nybble, stories, store, tmp_path / "two", tmp_path / "r.json")
    assert sums(tmp_path / "out") == sums(tmp_path / "two")
    assert (tmp_path / "out.recipe.json").read_bytes() == (tmp_path / "r.json").read_bytes()
    assert 3 < report(tmp_path / "out")["totals"]["bits_per_weight"] <= 3.2
    for more in (["--target-bits", 3, "-b", 3], ["--target-bits", 3, "-g", 32]):
        done = nybble(*words, "--force", *more, ok=False)
        assert done.returncode == 2 and "leave out --weight-bits" in done.stderr
    done = nybble("plan", stories, "--target-bits", 3, "--calib", store, ok=False)
    assert done.returncode == 2 and "--target-bits is for quantize" in done.stderr


def test_layers_of_other_methods_keep_their_settings(nybble, stories, store, tmp_path):
    (tmp_path / "base.json").write_text(json.dumps({"modules": [
        {"pattern": "*.v_proj", "method": "int8"}, {"pattern": "*.layers.0.*", "method": "none"}]}))
    allocate(nybble, stories, store, tmp_path / "r.json", 4, "--recipe", tmp_path / "base.json")
    made = quantise(nybble, stories, store, tmp_path / "out", tmp_path / "r.json")
    methods = {x["module"]: x["method"] for x in made["layers"]}
    assert all(m == ("int8" if n.endswith("v_proj") else "gptq") for n, m in methods.items())
    assert not any(".layers.0." in n for n in methods) and len(methods) == 28
    assert 3.5 < made["totals"]["bits_per_weight"] <= 4


@pytest.mark.parametrize("more,words", [
    (["-b", 1], "codes of 2 bits alone"),
    (["-b", 2, "--samples", 1, "--bits", "2", "--groups", "-1"], "raise --target-bits, or allow"),
    (["-b", 3, "--bits", "5"], "weight bits are 5"),
    (["-b", 3, "--bits", "3,,4"], "whole numbers with commas"),
    (["-b", 3, "--groups", "8"], "group size is 8"),
    (["-b", 3, "--groups", "1024"], "holds none of the bits"),
    (["-b", 3, "--format", "nothing"], "unknown format"),
])
def test_what_makes_no_sense_is_refused(nybble, stories, store, tmp_path, more, words):
    done = nybble("allocate", stories, "--hessians", store, "-o", tmp_path / "r.json", *more, ok=False)
    assert done.returncode in (1, 2) and words in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "r.json").exists()
