"""Eight-bit floats, to f32 and back, against torch: every code, every bf16 value, and random f32."""
import pathlib
import subprocess

import numpy as np
import pytest
import torch

TYPES = {"F8_E4M3": (torch.float8_e4m3fn, 448.0), "F8_E5M2": (torch.float8_e5m2, None)}


@pytest.fixture(scope="module")
def driver(program):
    path = pathlib.Path(program).parents[1] / "tests" / "core" / "dtype_driver"

    def run(what, kind, values):
        return subprocess.run([path, what, kind], input=values.tobytes(), capture_output=True,
                              check=True).stdout

    return run


@pytest.mark.parametrize("kind", TYPES)
def test_every_code_widens_as_in_torch(driver, kind):
    codes = np.arange(256, dtype=np.uint8)
    got = np.frombuffer(driver("widen", kind, codes), np.float32)
    want = torch.from_numpy(codes).view(TYPES[kind][0]).to(torch.float32).numpy()
    nan = np.isnan(want)
    assert (np.isnan(got) == nan).all() and nan.sum() == {"F8_E4M3": 2, "F8_E5M2": 6}[kind]
    assert (got.view(np.uint32)[~nan] == want.view(np.uint32)[~nan]).all()


@pytest.mark.parametrize("kind", TYPES)
def test_every_bf16_narrows_as_in_torch(driver, kind):
    random = np.random.default_rng(5).integers(0, 2**32, 200_000, dtype=np.uint32)
    every = np.concatenate([np.arange(65536, dtype=np.uint32) << 16, random])
    values = torch.from_numpy(every.view(np.float32).copy())
    got = np.frombuffer(driver("narrow", kind, values.numpy()), np.uint8)
    dtype, largest = TYPES[kind]
    if largest:  # torch itself turns what is too large into NaN
        values = torch.where(values.isnan(), values, values.clamp(-largest, largest))
    want = values.to(dtype).view(torch.uint8).numpy()
    wrong = np.flatnonzero(got != want)
    print(f"{kind}: {len(got)} values, {len(wrong)} differ (want 0)")
    assert len(got) == len(want) and len(wrong) == 0, (every[wrong[:5]], got[wrong[:5]],
                                                       want[wrong[:5]])
