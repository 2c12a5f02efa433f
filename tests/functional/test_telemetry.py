"""Nothing that the product runs looks a foreign name up, connects elsewhere, or gives the machine an identity."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import health_predict
from health_predict import telemetry
from stores import PLACES

SOURCE = Path(health_predict.__file__).parents[1]
# On the path of every Python process that is started, Ray's workers too: writes down what would leave the machine.
GUARD = """
import os, socket
OWN = {"localhost", socket.gethostname(), socket.getfqdn(), "", "0.0.0.0", "::", None}

def note(what):
    with open(os.environ["GUARD_LOG"], "a") as log:
        log.write(f"{what}\\n")

def is_own(host):
    host = host.decode() if isinstance(host, bytes) else host
    return host in OWN or host.startswith("127.") or host in ("::1", own_address()) or host in ADDRESSES

look_up, connect = socket.getaddrinfo, socket.socket.connect
ADDRESSES = set()

def guarded(host, *arguments, **named):
    if not is_own(host):
        note(f"look-up of {host}")
        raise socket.gaierror(f"guarded: {host}")
    found = look_up(host, *arguments, **named)
    ADDRESSES.update(one[4][0] for one in found)
    return found

def guarded_connect(self, address):
    # Asking for the own address with a datagram socket sends nothing.
    streams = self.family in (socket.AF_INET, socket.AF_INET6) and self.type == socket.SOCK_STREAM
    if streams and not is_own(address[0]):
        note(f"connection to {address[0]}")
        raise ConnectionRefusedError(f"guarded: {address[0]}")
    return connect(self, address)

def own_address():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            connect(probe, ("192.0.2.1", 9))
        except OSError:
            return None
        return probe.getsockname()[0]

socket.getaddrinfo = guarded
socket.socket.connect = guarded_connect
"""
SHOW = "import json, os, health_predict; print(json.dumps(dict(os.environ)))"
SERVE = """
import sys
from pathlib import Path
from health_predict.cli.service import service
with service(Path(sys.argv[1])) as running:
    print(running._health()["status"])
"""


@dataclass(frozen=True)
class Ended:
    out: str
    reached: list[str]  # foreign names and addresses
    left: list[str]  # files in the home folder other than known caches


@pytest.fixture
def guarded(tmp_path) -> Callable[..., Ended]:
    """Runs a Python program with the guard, a home of its own, and variables that ask for telemetry."""
    home, log = tmp_path / "home", tmp_path / "log"
    for folder in (home, tmp_path / "guard"):
        folder.mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    quiet = ("CI", "PYTEST_CURRENT_TEST", "XDG_CACHE_HOME")  # some libraries are silent where they see a test
    known = {name: value for name, value in os.environ.items() if name not in (*quiet, *PLACES)}
    known |= {**dict.fromkeys(telemetry.OFF, ""), "RAY_USAGE_STATS_ENABLED": "1", "MLFLOW_DISABLE_TELEMETRY": "false"}
    known |= {"HOME": str(home), "GUARD_LOG": str(log)}
    known["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "guard"), str(SOURCE)])

    def run(*arguments: str, **environment: str) -> Ended:
        program = [sys.executable, *arguments]
        ended = subprocess.run(program, env=known | environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr[-2000:]
        # Bundles, fonts, and the token that Ray's own processes know each other by.
        caches = {home / ".cache" / "health-predict", home / ".cache" / "matplotlib", home / ".ray"}
        left = [str(file) for file in home.rglob("*") if file.is_file() and not caches & set(file.parents)]
        return Ended(ended.stdout, log.read_text().splitlines() if log.exists() else [], left)

    return run


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("socket.create_connection(('telemetry.example', 443))", "look-up of telemetry.example"),
        ("socket.socket().connect(('192.0.2.1', 443))", "connection to 192.0.2.1"),
    ],
)
def test_the_guard_sees_what_would_leave(guarded, line, seen):
    ended = guarded("-c", f"import socket\ntry:\n    {line}\nexcept OSError:\n    print('refused')")
    assert (ended.out, ended.reached) == ("refused\n", [seen])


@pytest.mark.slow
def test_without_the_switch_onnxruntime_identifies_the_machine(guarded):
    """Else the tests below would prove nothing; when this fails, the switch is needed no more."""
    assert any(file.endswith("deviceid") for file in guarded("-c", "import onnxruntime").left)


def test_every_switch_is_set_whatever_the_environment_says(guarded):
    seen = json.loads(guarded("-c", SHOW).out)
    assert {name: seen[name] for name in telemetry.OFF} == telemetry.OFF


@pytest.mark.slow
def test_commands_and_their_workers_reach_nobody(guarded, store):
    train = ("train", "--families", "lightgbm", "--trials", "1", "--seed", "2")
    for arguments in (("status",), ("evaluate", store.winner), train):
        program = ("-c", "from health_predict.cli import main; main()", *arguments)
        ended = guarded(*program, HEALTH_PREDICT_STORAGE=str(store.root))
        assert ended.reached == []
        assert ended.left == []


@pytest.mark.slow
def test_the_service_reaches_nobody(guarded, store, tmp_path):
    bundle = store.registry.download(store.winner, "bundle", tmp_path)
    ended = guarded("-c", SERVE, str(bundle))
    assert (ended.out, ended.reached, ended.left) == ("ok\n", [], [])
