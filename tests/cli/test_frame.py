"""The program's frame: every command, whatever it does, reads its options, helps, fails and
prints in the same way."""
import json
import os
import pathlib
import pty
import re
import shutil
import subprocess

import pytest

import conftest


def commands():
    program = os.environ.get("NYBBLE", str(conftest.ROOT / "build" / "cli" / "nybble"))
    listed = json.loads(subprocess.run([program, "help", "--json"], capture_output=True).stdout)
    return listed["commands"]


COMMANDS = commands()
NAMES = [c["name"] for c in COMMANDS]


def one_line(text):
    assert re.fullmatch(r"nybble: [^\n]+\n", text), text
    return text


def test_the_usual_commands_are_there():
    assert {"help", "version"} <= set(NAMES)


def test_tables_are_sound(nybble):
    nybble("help", "--check")


@pytest.mark.parametrize("name", NAMES)
class TestEveryCommand:
    def test_help_has_usage_options_and_an_example(self, nybble, name):
        text = nybble(name, "--help").stdout
        assert f"Usage: nybble {name}" in text
        assert "--json" in text and "--threads" in text
        assert re.search(rf"^Examples:\n  nybble {name}\b.*\n      \S", text, re.M)
        assert max(map(len, text.splitlines())) <= 100
        assert not re.search(r"[ \t]$", text, re.M)
        assert nybble("help", name).stdout == text

    def test_options_of_examples_exist(self, nybble, name):
        text = nybble(name, "--help").stdout
        for example in re.findall(r"^  (nybble .*)$", text.split("Examples:")[1], re.M):
            used = next((c for c in COMMANDS if c["name"] == example.split()[1]), None)
            assert used, example
            have = {o["name"] for o in used["options"] + used["common"]}
            for option in re.findall(r"--([a-z0-9-]+)", example):
                known = option in have or option.removeprefix("no-") in have
                assert known, f"{example}: no option --{option}"

    def test_unknown_option_is_a_usage_error(self, nybble, name):
        done = nybble(name, "--definitely-not", ok=False)
        assert done.returncode == 2 and done.stdout == ""
        assert "unknown option '--definitely-not'" in one_line(done.stderr)
        assert f"nybble {name} --help" in done.stderr

    def test_misspelled_option_is_recognised(self, nybble, name):
        done = nybble(name, "--thraeds", "2", ok=False)
        assert done.returncode == 2 and "did you mean '--threads'?" in one_line(done.stderr)

    def test_bad_value_names_the_range(self, nybble, name):
        for value in ("0", "-1", "two", "1e3", "", "99999999999999999999999"):
            done = nybble(name, f"--threads={value}", ok=False)
            assert done.returncode == 2, value
            assert f"--threads wants a whole number from 1 to 1024, not '{value}'" in one_line(
                done.stderr)

    def test_missing_value(self, nybble, name):
        done = nybble(name, "--threads", ok=False)
        assert done.returncode == 2 and "--threads needs a value" in one_line(done.stderr)

    def test_missing_operand(self, nybble, name):
        command = COMMANDS[NAMES.index(name)]
        done = nybble(name, ok=False)
        if command["operands"] and not command["operands"].startswith("["):
            assert done.returncode == 2 and " needs " in one_line(done.stderr)
        else:
            assert done.returncode in (0, 2)

    def test_each_option_checks_its_value(self, nybble, name):
        """Numbers, sizes and choices refuse a word before anything is read or written."""
        for option in COMMANDS[NAMES.index(name)]["options"]:
            if option["kind"] not in ("size", "int", "real", "bytes", "choice"):
                continue
            done = nybble(name, f"--{option['name']}=no such value", ok=False)
            assert done.returncode == 2, option
            assert f"--{option['name']} wants " in one_line(done.stderr)

    def test_man_page(self, nybble, name, tmp_path):
        page = tmp_path / f"nybble-{name}.1"
        page.write_text(nybble("help", "--man", name).stdout)
        lint(page)


def lint(page):
    text = page.read_text()
    assert text.startswith(".TH NYBBLE")
    if shutil.which("mandoc"):
        done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True,
                              text=True)
        faults = [l for l in done.stdout.splitlines() if "missing date" not in l]
        assert not faults, faults
    elif not shutil.which("man"):
        conftest.missing("neither mandoc nor man is there")
    if shutil.which("man"):
        done = subprocess.run(["man", "--warnings", "-l", page], capture_output=True, text=True,
                              env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80"})
        assert done.returncode == 0 and done.stderr == "", done.stderr


def test_man_page_of_the_program(nybble, tmp_path):
    page = tmp_path / "nybble.1"
    page.write_text(nybble("help", "--man").stdout)
    lint(page)
    for name in NAMES:
        assert f"nybble\\-{name}" in page.read_text()


def test_completion_is_bash_and_completes(nybble, tmp_path):
    script = tmp_path / "nybble.bash"
    script.write_text(nybble("help", "--completion").stdout)

    def complete(*words):
        line = f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; " \
               '_nybble; printf "%s\\n" "${COMPREPLY[@]}"'
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        return done.stdout.split()

    assert complete("nybble", "vers") == ["version"]
    assert complete("nybble", "version", "--verb") == ["--verbose"]
    assert "--man" in complete("nybble", "help", "--")


def test_no_command_prints_help_on_stderr(nybble):
    done = nybble(ok=False)
    assert done.returncode == 2 and done.stdout == "" and "Usage: nybble COMMAND" in done.stderr


def test_program_help_lists_every_command(nybble):
    text = nybble("--help").stdout
    assert nybble("help").stdout == text and nybble("-h").stdout == text
    for command in COMMANDS:
        assert re.search(rf"^  {command['name']} +\S", text, re.M)


@pytest.mark.parametrize("typed, meant", [("vesion", "version"), ("halp", "help")])
def test_misspelled_command(nybble, typed, meant):
    done = nybble(typed, ok=False)
    assert done.returncode == 2 and f"did you mean '{meant}'?" in one_line(done.stderr)


def test_command_that_is_like_no_other(nybble):
    done = nybble("frobnicate", ok=False)
    assert done.returncode == 2 and "did you mean" not in one_line(done.stderr)


def test_options_may_follow_operands_and_two_dashes_end_them(nybble):
    assert nybble("help", "version", "--json").stdout == nybble("help", "--json", "version").stdout
    done = nybble("help", "--", "--json", ok=False)
    assert done.returncode == 2 and "no command '--json'" in done.stderr


def test_value_forms(nybble):
    for form in (["--threads", "2"], ["--threads=2"], ["--json", "--threads=2"]):
        nybble("version", *form)
    assert nybble("version", "-qv").stdout == nybble("version", "-q", "-v").stdout
    done = nybble("version", "--json=yes", ok=False)
    assert done.returncode == 2 and "--json takes no value" in one_line(done.stderr)
    done = nybble("version", "-z", ok=False)
    assert done.returncode == 2 and "unknown option '-z'" in one_line(done.stderr)


def test_control_characters_do_not_reach_the_terminal(nybble):
    done = nybble("\x1b[31mred\x07", ok=False)
    assert done.returncode == 2 and "\x1b" not in done.stderr and "\x07" not in done.stderr


def test_too_many_operands(nybble):
    done = nybble("version", "more", ok=False)
    assert done.returncode == 2 and "'more'" in one_line(done.stderr)


def test_version(nybble):
    text = (conftest.ROOT / "meson.build").read_text()
    version = re.search(r"version: '([^']+)'", text)[1]
    assert nybble("version").stdout == f"nybble {version}\n"
    assert nybble("--version").stdout == f"nybble {version}\n"
    told = json.loads(nybble("version", "--json").stdout)
    assert told["schema"] == "nybble.version/1" and told["version"] == version
    assert told["cpus"] >= 1 and told["blas"].startswith("OpenBLAS")
    long = nybble("version", "--verbose").stdout
    for word in (told["blas_core"], told["hdf5"], told["compiler"], told["kernel_level"]):
        assert word in long


def test_blas_runs_avx512_kernels_where_the_cpu_has_them(nybble):
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    told = json.loads(nybble("version", "--json", env=environment).stdout)
    if "avx512" in told["cpu_features"]:
        assert told["blas_core"].lower() in ("skylakex", "cooperlake", "sapphirerapids")
    told = json.loads(nybble("version", "--json",
                             env={**environment, "OPENBLAS_CORETYPE": "Haswell"}).stdout)
    if "avx2" in told["cpu_features"]:
        assert told["blas_core"] == "Haswell", "the user's own choice is left alone"


def test_kernel_level_is_capped(nybble):
    told = json.loads(nybble("version", "--json", env={**os.environ, "NYB_CPU": "portable"}).stdout)
    assert told["kernel_level"] == "portable"


def test_full_disk_is_an_error(nybble):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    for args in (["version"], ["help", "--json"], ["version", "--help"]):
        with open("/dev/full", "w") as full:
            done = nybble(*args, ok=False, stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 1 and "cannot write to standard output" in one_line(done.stderr)


def test_closed_output_is_an_error(program):
    done = subprocess.run(["sh", "-c", f'"{program}" version >&-'], capture_output=True, text=True)
    assert done.returncode == 1 and "cannot write to standard output" in done.stderr


def test_closed_pipe_ends_quietly(program):
    line = f'"{program}" help --json | head -c 10; echo "${{PIPESTATUS[0]}}" >&2'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    # The whole text fits into the pipe's buffer when head is late: then all went well.
    assert done.stderr.strip() in ("141", "0"), done.stderr


def test_terminal_gets_help_unchanged(program):
    """On a terminal nothing is coloured or paged."""
    leader, follower = pty.openpty()
    done = subprocess.Popen([program, "version"], stdout=follower, stderr=follower)
    done.wait(timeout=20)
    os.close(follower)
    assert os.read(leader, 1000).decode().replace("\r\n", "\n").startswith("nybble ")
    os.close(leader)


def test_start_is_quick(program):
    """`nybble version` takes less than 20 ms of a processor: the best of ten, and not by the clock
    on the wall, so that a busy machine is no failure. Builds with sanitizers are slow by nature."""
    if "-sanitized" in program:
        pytest.skip("built with sanitizers")
    took = []
    for _ in range(10):
        child = subprocess.Popen([program, "version"], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        took.append(1e3 * (usage.ru_utime + usage.ru_stime))
    print(f"best of ten: {min(took):.1f} ms, at most 20 ms")
    assert min(took) < 20
