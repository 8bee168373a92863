"""nybble's forward pass against transformers' in f32, for tiny random models of every family."""

import families
import numpy as np
import pytest
import torch

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
