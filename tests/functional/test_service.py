"""A service for the length of a block: what it is handed, and what of the environment it must not have."""

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from factories import encounters
from health_predict.cli.service import end, service
from health_predict.data.schema import CLINICAL
from health_predict.errors import ServiceError
from health_predict.store.bundles import fetch_bundle

pytestmark = pytest.mark.slow

TABLE = encounters(30)
ENCOUNTER = TABLE.select(field.name for field in CLINICAL).row(0, named=True)


@dataclass(frozen=True)
class Bundles:
    """Folders of versions 1 and 2."""

    first: Path
    second: Path


@pytest.fixture
def bundles(store) -> Bundles:
    registry = store.registry
    versions = [registry.register(run_id, {}) for run_id in (store.winner, store.other)]
    folders = (fetch_bundle(store.storage, lambda: registry, one, store.root / "cache") for one in versions)
    return Bundles(*folders)


def test_a_version_is_taken_up_once_and_the_requests_until_then_are_counted(bundles):
    with service(bundles.first) as running:
        assert running.ask(TABLE).version == "1"
        assert running.take_up(bundles.second, "2", ENCOUNTER) > 0
        assert running.ask(TABLE).version == "2"
        assert running.take_up(bundles.second, "2", ENCOUNTER) == 0


def test_it_asks_for_no_key_and_writes_to_no_real_log(bundles, tmp_path, monkeypatch):
    monkeypatch.setenv("HEALTH_PREDICT_API_KEYS", f"ward:{'0' * 64}")
    monkeypatch.setenv("HEALTH_PREDICT_AUDIT_LOG", str(tmp_path / "audit.jsonl"))
    monkeypatch.setenv("HEALTH_PREDICT_PREDICTION_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("HEALTH_PREDICT_PREDICTION_LOG_KEY", "invented")
    with service(bundles.first) as running:
        assert len(running.ask(TABLE).probability) == len(TABLE)
    assert not (tmp_path / "audit.jsonl").exists()
    assert not (tmp_path / "log").exists()


def test_a_service_that_does_not_heed_its_end_is_killed(monkeypatch):
    monkeypatch.setattr("health_predict.cli.service.END_SECONDS", 0.2)
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    end(process)
    assert process.returncode == -signal.SIGKILL
    process.stdout.close()


def test_an_interruption_while_it_ends_leaves_no_process(monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    def interrupted(_self, timeout=None):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        end(process)
    assert process.returncode is not None


def test_a_service_that_does_not_start_says_why_and_leaves_no_process(tmp_path, monkeypatch):
    before = set(psutil.Process().children())  # other tests of this process may have a worker
    monkeypatch.setattr("health_predict.cli.service.START_SECONDS", 3.0)
    with pytest.raises(ServiceError, match="did not become healthy"), service(tmp_path):
        pass
    assert set(psutil.Process().children()) <= before


def test_a_service_that_dies_is_an_error_of_the_service(bundles):
    with service(bundles.first) as running:
        running.process.kill()
        running.process.wait()
        with pytest.raises(ServiceError, match="does not answer"):
            running.ask(TABLE)
        with pytest.raises(ServiceError, match="does not answer"):
            running.take_up(bundles.second, "2", ENCOUNTER)
