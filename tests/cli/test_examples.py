"""The example of the README does what it says."""
import pathlib
import re
import subprocess

import pytest

import conftest


@pytest.mark.alone  # it builds, and others use what is built
def test_example_run(program, tmp_path):
    if pathlib.Path(program).resolve() != (conftest.ROOT / "build/cli/nybble").resolve():
        pytest.skip("the example builds in build/, which is not the build under test")
    done = subprocess.run([conftest.ROOT / "examples" / "run", tmp_path / "stories"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"^(\S+) .* ([\d.]+) +(?:[\d.]+|-) +(?:[\d.]+ %|-)$", done.stdout, re.M))
    perplexity = {name: float(value) for name, value in rows.items()}
    print(perplexity)
    assert len(perplexity) == 7
    for bits in (4, 3, 2):
        assert perplexity["stories260k"] < perplexity[f"gptq-{bits}"] < perplexity[f"rtn-{bits}"]
    assert perplexity["gptq-4"] < 1.1 * perplexity["stories260k"]
    assert re.search(r"^Once upon a time.{200,}", done.stdout, re.M | re.S)
