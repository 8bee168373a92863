"""Refinement against the best that the GPTQ paper's published code makes of the same layers at the
same bits, groups and layout."""
import csv

import numpy as np
import pytest

from test_solver import dequantize, options_of, solve


def output_error(weight, parts, hessian):
    """tr(D H D^T) in f64, of what was written."""
    off = weight.astype(np.float64) - dequantize(*parts)
    return float(np.sum((off @ hessian) * off))


@pytest.mark.parametrize("layer", ["edge", pytest.param("lowrank", marks=pytest.mark.real)])
def test_beats_the_published_code_on_its_layers(nybble, data, tmp_path, layer):
    arrays = np.load(data / "oracle" / f"{layer}_inputs.npz")
    weight, inputs = arrays["W"], arrays["X"].astype(np.float64)
    gram = inputs.T @ inputs
    ratios, off = {}, 0.0
    with open(data / "oracle" / "losses.csv", encoding="utf-8") as file:
        table = [row for row in csv.DictReader(file) if row["set"] == layer]
    for row in table:
        if row["case"].startswith("b8"):
            continue
        *parts, report = solve(nybble, tmp_path, weight, *options_of(row["case"]),
                               hessian=arrays["H"])
        error = output_error(weight, parts, gram) / weight.shape[0] / len(inputs)
        ratios[row["case"]] = error / float(row["out_mse_f64"])
        told = output_error(weight, parts, arrays["H"].astype(np.float64))
        off = max(off, abs(report["loss"] / told - 1))
        assert report["loss"] <= report["pass_loss"]
    for bits in (2, 3, 4):
        some = [r for case, r in ratios.items() if case.startswith(f"b{bits}")]
        print(f"{layer}, {bits} bits: output error of the published code's: median "
              f"{np.median(some):.3f} (at most 0.90), highest {max(some):.3f} (1) of {len(some)}")
        assert np.median(some) <= 0.90
    print(f"reported loss off by at most {off:.2g} (tolerance 1e-4)")
    assert len(ratios) == 100 and max(ratios.values()) <= 1 and off <= 1e-4
