"""Commands on machines that are not what a developer's is: without a user, a home, an output, a current folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import health_predict
from health_predict.errors import ServiceError
from health_predict.settings import Settings

SOURCE = str(Path(health_predict.__file__).parents[1])
COMMAND = [sys.executable, "-c", "from health_predict.cli import main; main()"]
NOBODY = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]


def shell(line: str, place: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `line` of a shell, where "$@" is the command, below `place`."""
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, "HEALTH_PREDICT_STORAGE": "data"}
    return subprocess.run(
        ["bash", "-c", line, "bash", *COMMAND, *arguments],
        cwd=place,
        env={**known, **environment},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
    )


@pytest.fixture
def audited(tmp_path) -> Path:
    """A folder with an audit log: what `audit verify` reads is quick to make, and its result goes to stdout."""
    (tmp_path / "audit.jsonl").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("arguments", [("keys", "new", "ward-7"), ("status", "--json")], ids=" ".join)
def test_a_closed_stdout_is_told_before_anything_is_done(audited, arguments):
    ended = shell('"$@" >&-', audited, *arguments)
    assert ended.returncode == 11
    assert "stdout is closed" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert sorted(file.name for file in audited.iterdir()) == ["audit.jsonl"]


FULL = [("--help",), ("keys", "new", "ward-7"), ("audit", "verify", "audit.jsonl", "--json")]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", FULL, ids=" ".join)
def test_a_full_stdout_is_told(audited, arguments, unbuffered):
    ended = shell('"$@" >/dev/full', audited, *arguments, PYTHONUNBUFFERED=unbuffered)
    assert ended.returncode == 11
    assert "cannot write to stdout: No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception" not in ended.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [*FULL[1:], ("audit", "verify", "audit.jsonl")], ids=" ".join)
def test_a_reader_that_has_left_ends_a_command_as_a_shell_expects(audited, arguments, unbuffered):
    line = '{ sleep 0.2; "$@"; echo "code $?" >&2; } | true'
    ended = shell(line, audited, *arguments, PYTHONUNBUFFERED=unbuffered)
    assert ended.stderr.splitlines()[-1] == "code 141"
    assert "Traceback" not in ended.stderr
    assert "Exception" not in ended.stderr


@pytest.mark.parametrize("streams", ["<&- 2>&-", "2>/dev/full"])
def test_other_streams_that_are_missing_or_full_change_nothing(audited, streams):
    ended = shell(f'"$@" {streams}', audited, "audit", "verify", "audit.jsonl", "--json")
    assert ended.returncode == 0
    assert ended.stdout.startswith("{")
    refused = shell(f'"$@" {streams}', audited, "data", "validate")
    assert refused.returncode == 11


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "POSIX"},
        {"TERM": "dumb", "COLUMNS": "1"},
        {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=str,
)
def test_odd_locales_and_terminals_are_only_odd(audited, environment):
    ended = shell('"$@"', audited, "audit", "verify", "audit.jsonl", **environment)
    assert (ended.returncode, ended.stderr) == (0, "")
    shown = shell('"$@"', audited, "--help", **environment)
    assert shown.returncode == 0
    assert "Traceback" not in shown.stderr


def test_a_current_folder_that_is_gone_is_told(tmp_path):
    ended = shell('mkdir gone; cd gone; rmdir ../gone; "$@"', tmp_path, "status")
    assert ended.returncode == 11
    assert ended.stderr == "error: the current folder is gone or may not be read; change to another one\n"


def test_a_file_name_in_another_encoding_is_told(tmp_path):
    line = 'touch "$(printf "caf\\351.csv")"; "$@" --in "$(printf "caf\\351.csv")" --out out.csv'
    ended = shell(line, tmp_path, "predict")
    assert ended.returncode == 2
    assert "not UTF-8" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_storage_root_in_another_encoding_is_told(tmp_path):
    ended = shell('HEALTH_PREDICT_STORAGE="$(printf "caf\\351")" "$@"', tmp_path, "status")
    assert ended.returncode == 15
    assert "HEALTH_PREDICT_STORAGE is not valid" in ended.stderr
    assert "UTF-8" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", ["a%20b", "what?", "#1"])
def test_a_storage_root_that_mlflow_cannot_hold_is_told(name):
    with pytest.raises(ServiceError, match="HEALTH_PREDICT_STORAGE is not valid") as refused:
        Settings(storage=f"/data/{name}", tracking_uri=None)
    assert "rename the folder, or set MLFLOW_TRACKING_URI" in str(refused.value)
    assert Settings(storage=f"/data/{name}", tracking_uri="http://127.0.0.1:5000").storage == f"/data/{name}"
    assert Settings(storage=f"s3://bucket/{name}", tracking_uri=None).is_local is False


@pytest.mark.skipif(subprocess.run([*NOBODY, "true"], check=False).returncode != 0, reason="needs user namespaces")
@pytest.mark.parametrize("arguments", [("data", "validate"), ("audit", "verify", "audit.jsonl")], ids=" ".join)
def test_a_user_without_name_and_home_is_like_any_other(audited, arguments):
    ended = shell(f'{" ".join(NOBODY)} "$@"', audited, *arguments)
    assert "Traceback" not in ended.stderr
    assert ended.returncode == (11 if arguments[0] == "data" else 0)
