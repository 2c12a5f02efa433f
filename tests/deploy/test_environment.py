"""`requirements/environment` where Python 3.11, uv or venv is missing. Scripts stand in for the programs."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "dirname", "env", "mktemp", "rm")
OLDER = '[ "$1" = -c ] && exit 1'  # that it is 3.11


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with the script in it, and in `bin` all that its PATH has."""
    (tmp_path / "requirements").mkdir()
    shutil.copy(ROOT / "requirements" / "environment", tmp_path / "requirements")
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


def program(machine: Path, name: str, *lines: str) -> None:
    """A program that is there; it writes each call to `calls`."""
    text = "\n".join(("#!/usr/bin/env bash", f'echo {name} "$@" >> {machine}/calls', *lines))
    path = machine / "bin" / name
    path.write_text(text + "\n")
    path.chmod(0o755)


def make(machine: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(machine / "bin"), "TMPDIR": str(machine)}
    command = [str(machine / "requirements" / "environment"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def calls(machine: Path) -> list[str]:
    return [line for line in (machine / "calls").read_text().splitlines() if " -c " not in line]


def test_without_python_3_11_uv_gets_one_and_says_so(machine):
    program(machine, "python3", OLDER)
    program(machine, "uv")
    done = make(machine)
    assert done.returncode == 0, done.stderr
    assert "uv looks for one" in done.stderr
    assert calls(machine) == [
        "uv venv --quiet --allow-existing --python 3.11 .venv",
        "uv pip install --quiet --require-hashes -r requirements/uv.txt",
    ]


def test_without_uv_any_python_brings_it_and_leaves_nothing_behind(machine):
    making = 'mkdir -p "${@: -1}/bin"; cp "$0" "${@: -1}/bin/python"; cp "${0%/*}/later" "${@: -1}/bin/uv"'
    (machine / "bin" / "mkdir").symlink_to(shutil.which("mkdir") or "")
    (machine / "bin" / "cp").symlink_to(shutil.which("cp") or "")
    program(machine, "later")
    program(machine, "python3", OLDER, f'[ "$2" = venv ] && {{ {making}; }}; exit 0')
    done = make(machine)
    assert done.returncode == 0, done.stderr
    assert "pip install" in calls(machine)[1]
    assert "--require-hashes" in calls(machine)[1]
    assert calls(machine)[2] == "later venv --quiet --allow-existing --python 3.11 .venv"
    assert sorted(os.listdir(machine)) == ["bin", "calls", "requirements"]  # noqa: PTH208


def test_where_uv_gets_none_it_is_told_how_to_name_one(machine):
    program(machine, "python3", OLDER)
    program(machine, "uv", "echo no network >&2; exit 2")
    done = make(machine)
    assert done.returncode == 1
    assert "no network" in done.stderr
    assert "make PYTHON=/path/to/python3.11" in done.stderr


def test_where_venv_is_missing_the_package_that_has_it_is_named(machine):
    program(machine, "python3", "exit 1")
    done = make(machine)
    assert done.returncode == 1
    assert "apt-get install python3-venv" in done.stderr


def test_a_named_python_of_another_version_is_refused(machine):
    program(machine, "python3.12", OLDER)
    done = make(machine, "python3.12")
    assert (done.returncode, done.stdout) == (1, "")
    assert "python3.12 is not Python 3.11" in done.stderr
