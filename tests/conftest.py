"""Fixtures of all tests that run the program.

Environment
  NYBBLE         the program under test; default: build/cli/nybble
  NYB_TEST_DATA  folder with text/, models/ and oracle/; default: a folder named `shared` beside
                 the checkout
  NYB_MODELS     folder of real models and tokenizers (tests/tools/fetch_*.py); default
                 ~/.cache/nybble-models
  CI             when `true`, what is missing fails a test instead of skipping it
"""
import contextlib
import fcntl
import os
import pathlib
import random
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Fixtures that make a test slow: they stand for the marker `real`, so that builds with
# sanitizers can leave those tests out.
REAL = {"smollm2", "gemma3", "minilm"}

# How the generators are set that a test may draw from without saying so.
SEEDS = {
    "numpy": lambda numpy: numpy.random.seed(0),
    "torch": lambda torch: torch.manual_seed(0),
    "keras": lambda keras: keras.utils.set_random_seed(0),
}


def pytest_configure(config):
    config.addinivalue_line("markers", "real: uses a real model or much text, takes long")
    config.addinivalue_line("markers", "alone: no other test may run at the same time")


def pytest_collection_modifyitems(items):
    for item in items:
        if REAL.intersection(item.fixturenames):
            item.add_marker(pytest.mark.real)


@contextlib.contextmanager
def locked(path, how):
    with open(path, "w") as file:
        fcntl.flock(file, how)
        yield


@contextlib.contextmanager
def turn(item):
    """Holds off other processes' tests while one runs that is to run alone. All pass through the door
    one by one, so that such a test need not wait for a moment in which no other one runs."""
    folder = item.config._tmp_path_factory.getbasetemp().parent
    how = fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH
    with contextlib.ExitStack() as inside:
        with locked(folder / "door", fcntl.LOCK_EX):
            inside.enter_context(locked(folder / "room", how))
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """What a test does may depend neither on the tests before it nor on those beside it."""
    with turn(item) if "PYTEST_XDIST_WORKER" in os.environ else contextlib.nullcontext():
        random.seed(0)
        for module, seed in SEEDS.items():
            if module in sys.modules:
                seed(sys.modules[module])
        return (yield)


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
