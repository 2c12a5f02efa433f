"""Settings that a machine decides: there is always an actor, and always a cache."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from health_predict import settings
from health_predict.errors import ServiceError
from health_predict.settings import Settings

NOBODY = 54_321  # a user id that no user list has
BECOME = ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"]
SHOW = "from health_predict.settings import Settings; print(Settings().actor, Settings().cache)"


def can_become() -> bool:
    return bool(shutil.which("unshare")) and subprocess.run([*BECOME, "true"], check=False).returncode == 0


def test_the_actor_is_who_the_environment_says(monkeypatch):
    monkeypatch.setenv("HEALTH_PREDICT_ACTOR", " nightly retraining (Airflow) ")
    assert Settings().actor == "nightly retraining (Airflow)"


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_actor_is_the_user(monkeypatch, empty):
    expected = Settings().actor
    monkeypatch.setenv("HEALTH_PREDICT_ACTOR", empty)
    assert Settings().actor == expected
    assert expected.endswith(f"@{socket.gethostname()}")


@pytest.mark.parametrize("actor", ["ana\nbob", "ana\x1b[31m", "ana\u2028bob", "caf\udce9", "a" * 201])
def test_an_actor_that_would_forge_a_log_is_refused_without_showing_it(monkeypatch, actor):
    with pytest.raises(ServiceError, match="HEALTH_PREDICT_ACTOR is not valid") as refused:
        if actor.isascii() or "\udce9" in actor:
            monkeypatch.setenv("HEALTH_PREDICT_ACTOR", actor)
            Settings()
        else:
            Settings(actor=actor)
    assert actor not in str(refused.value)


def test_what_a_machine_says_of_the_user_is_cleaned(monkeypatch):
    monkeypatch.setenv("LOGNAME", "ana\nbob")
    monkeypatch.setattr(socket, "gethostname", lambda: "ward\x1b7")
    assert Settings().actor == "ana?bob@ward?7"


def test_a_machine_that_says_nothing_still_has_an_actor(monkeypatch):
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found")

    def nowhere() -> str:
        raise OSError("not permitted")

    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setattr(socket, "gethostname", nowhere)
    assert Settings().actor == f"uid-{os.getuid()}@unknown-host"


@pytest.mark.skipif(not can_become(), reason="needs Linux and its user namespaces")
def test_a_user_id_without_name_and_home_has_an_actor_and_a_cache():
    environment = {"PYTHONPATH": str(Path(settings.__file__).parents[1])}
    ended = subprocess.run(
        [*BECOME, sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == [f"uid-{NOBODY}@{socket.gethostname()}", ".cache/health-predict"]
