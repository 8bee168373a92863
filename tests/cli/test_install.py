"""What `meson install` puts in place can be used: program, manual, completion, headers, and both
libraries through pkg-config."""
import os
import pathlib
import shlex
import subprocess

import pytest

SOURCE = r"""
#include <nybble/status.h>
#include <nybble/version.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    const nyb_build_info info = nyb_build();
    printf("%s %s\n", nyb_version(), info.blas);
    return strcmp(nyb_version(), info.version) != 0 || strcmp(nyb_status_name(NYB_OK), "ok") != 0;
}
"""


@pytest.fixture(scope="module")
def installed(program, tmp_path_factory):
    build = pathlib.Path(program).resolve().parents[1]
    if not (build / "build.ninja").exists():
        pytest.skip(f"{build} is not a build folder")
    if "-sanitized" in build.name:
        pytest.skip("built with sanitizers: its library cannot be linked plainly")
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", folder],
                   check=True, capture_output=True)
    return folder


def only(folder, pattern):
    found = sorted(folder.rglob(pattern))
    assert len(found) == 1, f"{pattern}: {found}"
    return found[0]


def flags(installed, *more):
    pc = only(installed, "nybble.pc")
    # Like a package's build: libraries of the system come from the system, ours from the folder.
    environment = {**os.environ, "PKG_CONFIG_PATH": str(pc.parent)}
    prefix = only(installed, "nybble.h").parents[2] if list(installed.rglob("nybble.h")) else \
        only(installed, "version.h").parents[2]
    done = subprocess.run(["pkg-config", f"--define-variable=prefix={prefix}", "--cflags", "--libs",
                           *more, "nybble"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout)


def test_files_are_in_place(installed, nybble):
    for pattern in ("bin/nybble", "man1/nybble.1", "man1/nybble-version.1", "libnybble.a",
                    "libnybble.so", "completions/nybble.bash", "include/nybble/status.h"):
        only(installed, pattern)


def test_program_runs_installed(installed):
    library = only(installed, "libnybble.so").parent
    done = subprocess.run([only(installed, "bin/nybble"), "version"], capture_output=True, text=True,
                          env={**os.environ, "LD_LIBRARY_PATH": str(library)})
    assert done.returncode == 0 and done.stdout.startswith("nybble "), done.stderr


@pytest.mark.parametrize("kind", ["shared", "static"])
def test_a_program_can_be_built_on_the_library(installed, tmp_path, kind):
    (tmp_path / "use.c").write_text(SOURCE)
    options = flags(installed, *(["--static"] if kind == "static" else []))
    library = only(installed, "libnybble.so").parent
    if kind == "static":
        options = [str(library / "libnybble.a") if o == "-lnybble" else o for o in options]
    subprocess.run(["cc", "-std=c17", "-Wall", "-Werror", "use.c", "-o", "use", *options],
                   cwd=tmp_path, check=True)
    environment = dict(os.environ)
    if kind == "shared":
        environment["LD_LIBRARY_PATH"] = str(library)
    needed = subprocess.run(["ldd", "use"], cwd=tmp_path, capture_output=True, text=True,
                            env=environment).stdout
    assert ("libnybble" in needed) == (kind == "shared"), needed
    done = subprocess.run(["./use"], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "OpenBLAS" in done.stdout


def test_only_the_public_names_are_exported(installed):
    done = subprocess.run(["nm", "-D", "--defined-only", only(installed, "libnybble.so")],
                          capture_output=True, text=True, check=True)
    names = [line.split()[-1] for line in done.stdout.splitlines()]
    assert names and all(n.startswith("nyb_") for n in names), names
    headers = "".join(p.read_text() for p in (installed).rglob("include/nybble/*.h"))
    hidden = [n for n in names if n not in headers]
    assert not hidden, f"exported, but in no public header: {hidden}"
