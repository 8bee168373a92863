"""Fixtures of all tests that run the program.

Environment
  NYBBLE         the program under test; default: build/cli/nybble
  NYB_TEST_DATA  folder with text/, models/ and oracle/; default: a folder named `shared` beside
                 the checkout
  NYB_MODELS     folder of real models and tokenizers (tests/tools/fetch_*.py); default
                 ~/.cache/nybble-models
  CI             when `true`, what is missing fails a test instead of skipping it
"""
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Fixtures that make a test slow: they stand for the marker `real`, so that builds with
# sanitizers can leave those tests out.
REAL = {"smollm2", "gemma3", "minilm"}


def pytest_configure(config):
    config.addinivalue_line("markers", "real: uses a real model or much text, takes long")


def pytest_collection_modifyitems(items):
    for item in items:
        if REAL.intersection(item.fixturenames):
            item.add_marker(pytest.mark.real)


def missing(what):
    """Skips the test, or fails it where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def program():
    path = os.environ.get("NYBBLE", str(ROOT / "build" / "cli" / "nybble"))
    assert os.access(path, os.X_OK), f"{path} is not there: build first, or set NYBBLE"
    return path


@pytest.fixture(scope="session")
def nybble(program):
    """Runs nybble with these arguments; returns the finished process, text decoded."""

    def run(*args, ok=True, **more):
        more = {"text": True, "stdin": subprocess.DEVNULL, **more}
        if not {"stdout", "stderr"} & set(more):
            more["capture_output"] = True
        done = subprocess.run([program, *map(str, args)], **more)
        if ok:
            assert done.returncode == 0, f"nybble {args}: exit {done.returncode}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def data():
    """The folder of test data."""
    folder = pathlib.Path(os.environ.get("NYB_TEST_DATA", ROOT.parent / "shared"))
    if not folder.is_dir():
        missing(f"{folder} is not there: set NYB_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def stories():
    return ROOT / "examples" / "stories260k"


def real_model(name):
    folder = pathlib.Path(os.environ.get("NYB_MODELS", "~/.cache/nybble-models")).expanduser()
    folder = folder / name
    if not folder.is_dir():
        missing(f"{folder} is not there: run tests/tools/fetch_models.py {name}")
    return folder


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2-135M in bf16 as a Hugging Face folder."""
    return real_model("smollm2-135m")


@pytest.fixture(scope="session")
def gemma3():
    """Gemma 3 270M in bf16 as a Hugging Face folder."""
    return real_model("gemma3-270m")


@pytest.fixture(scope="session")
def minilm():
    """all-MiniLM-L6-v2, an encoder without a head, in f32."""
    return real_model("minilm-l6")
