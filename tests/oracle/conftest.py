"""Fixtures of the tests that compare nybble with tools that its developers did not write.

Environment
  NYBBLE         the program under test (set by meson)
  NYB_TEST_DATA  folder with text/, models/ and oracle/; default: a folder named `shared` beside
                 the checkout
  NYB_MODELS     folder of real models, filled on demand; default ~/.cache/nybble-models
"""
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def program():
    path = os.environ.get("NYBBLE", str(ROOT / "build" / "cli" / "nybble"))
    assert os.access(path, os.X_OK), f"{path} is not there: build first, or set NYBBLE"
    return path


@pytest.fixture(scope="session")
def nybble(program):
    """Runs nybble with these arguments; returns the finished process, text decoded."""

    def run(*args, ok=True, **more):
        done = subprocess.run([program, *map(str, args)], capture_output=True, text=True, **more)
        if ok:
            assert done.returncode == 0, f"nybble {args}: exit {done.returncode}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def data():
    """The folder of test data, or a skip where there is none."""
    folder = pathlib.Path(os.environ.get("NYB_TEST_DATA", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: set NYB_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def stories():
    return ROOT / "examples" / "stories260k"


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2-135M in bf16 as a Hugging Face folder."""
    folder = pathlib.Path(os.environ.get("NYB_MODELS", "~/.cache/nybble-models")).expanduser()
    folder = folder / "smollm2-135m"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder
