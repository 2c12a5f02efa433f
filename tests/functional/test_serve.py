"""`health-predict serve`: hands newly promoted versions to its service, and ends with it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from health_predict.adapters.registry import BUNDLE, PREPROCESSOR
from health_predict.bundle.model import MODEL
from health_predict.errors import TrackingError
from serving.support import EXAMPLE, Worker, export_bundle, free_port
from stores import Trained, environment_of

pytestmark = pytest.mark.slow


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


@contextmanager
def started(line: list[str], environment: dict[str, str], scratch: Path, drain: str = "0") -> Iterator[Worker]:
    """A supervisor whose service drains for so many seconds; `process` is the supervisor."""
    port, output = free_port(), scratch / "serve.log"
    environment = {**environment, "HEALTH_PREDICT_DRAIN_SECONDS": drain, "TMPDIR": str(scratch)}
    with output.open("wb") as sink:
        process = subprocess.Popen([*line, str(port)], env=environment, stdout=sink, stderr=sink)
    try:
        yield Worker(process, port, output)
    finally:
        process.terminate()
        process.wait(timeout=60)


@contextmanager
def serving(store: Trained, scratch: Path, *arguments: str) -> Iterator[Worker]:
    line = [sys.executable, "-c", "from health_predict.cli import main; main()", "serve", *arguments, "--port"]
    with started(line, environment_of(store.root), scratch) as found:
        until(lambda: any(scratch.glob("health-predict-*/in-service")) or found.process.poll() is not None)
        found.wait_for_status("ok")
        yield found


def version(worker: Worker) -> str:
    return str(httpx.get(f"{worker.url}/health").json()["model_version"])


def is_gone(worker: Worker) -> bool:
    try:
        httpx.get(f"{worker.url}/livez")
    except httpx.ConnectError:
        return True
    return False


@pytest.fixture
def promoted(store: Trained) -> Trained:
    """Two versions, the first in production."""
    for run_id in (store.winner, store.other):
        store.registry.register(run_id, {})
    store.registry.follow("1", None)
    return store


def test_watching_takes_up_a_promoted_version_without_a_failed_request(promoted, tmp_path):
    statuses: list[int] = []
    with serving(promoted, tmp_path, "--watch", "--watch-seconds", "0.3") as worker:
        done = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=worker.url) as client:
                while not done.is_set():
                    statuses.append(client.post("/predict", json=dict(EXAMPLE)).status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        until(lambda: bool(statuses))
        promoted.registry.follow("2", "1")
        until(lambda: version(worker) == "2")
        done.set()
        asking.join()
    assert set(statuses) == {200}


def test_sighup_to_the_supervisor_looks_once(promoted, tmp_path):
    with serving(promoted, tmp_path) as worker:
        promoted.registry.follow("2", "1")
        worker.tell(signal.SIGHUP)
        until(lambda: version(worker) == "2")


def test_a_promoted_bundle_that_was_altered_leaves_the_old_one_and_health_says_so(promoted, tmp_path):
    registry, parts = promoted.registry, tmp_path / "parts"
    parts.mkdir()
    with registry.run("Invented", "altered", {}) as run_id:
        for path in (BUNDLE, Path(PREPROCESSOR).parent.as_posix()):
            registry.log_folder(run_id, registry.download(promoted.winner, path, parts), path)
    registry.register(run_id, {})
    for model in promoted.root.rglob(f"{run_id}/**/{MODEL}"):
        model.write_bytes(b"altered")
    with serving(promoted, tmp_path, "--watch", "--watch-seconds", "0.3") as worker:
        registry.follow("3", "1")
        until(lambda: httpx.get(f"{worker.url}/health").json()["last_reload"]["ok"] is False)
        health = httpx.get(f"{worker.url}/health")
        assert (health.status_code, health.json()["model_version"]) == (200, "1")
        assert MODEL in health.json()["last_reload"]["reason"]
        assert 'reloads_total{result="refused"}' in httpx.get(f"{worker.url}/metrics").text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_of_the_supervisor_is_the_end_of_both(promoted, tmp_path, number):
    with serving(promoted, tmp_path) as worker:
        worker.tell(number)
        assert worker.process.wait(timeout=30) == 0
        assert is_gone(worker)
    assert list(tmp_path.glob("health-predict-*")) == []


SUPERVISOR = """
import sys
from pathlib import Path
from health_predict.cli.serve import supervise

folders = iter(sys.argv[1:2])

def resolve():
    for folder in folders:
        return Path(folder)
    {otherwise}

sys.exit(supervise(resolve, "127.0.0.1", int(sys.argv[2]), {watch}, drain_seconds=0))
"""
HANG = "from concurrent.futures import ThreadPoolExecutor as P; P().submit(__import__('time').sleep, 600).result()"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(tmp_path_factory.mktemp("bundle"))


def supervised(bundle: Path | None, scratch: Path, otherwise: str, watch: float | None) -> Any:
    """A supervisor whose first look finds the bundle, if there is one; the others do otherwise."""
    script = SUPERVISOR.format(otherwise=otherwise, watch=watch)
    if bundle is None:
        script = script.replace("sys.argv[1:2]", "()")
    return started([sys.executable, "-c", script, str(bundle)], dict(os.environ), scratch)


def test_a_full_disk_while_looking_changes_nothing(bundle, tmp_path):
    with supervised(bundle, tmp_path, "raise OSError(28, 'No space left on device')", watch=0.1) as worker:
        worker.wait_for_status("ok")
        until(lambda: worker.output.count("the model in service stays") > 2)
        assert worker.process.poll() is None
        assert version(worker)


def test_a_supervisor_that_fails_takes_its_service_with_it(bundle, tmp_path):
    with supervised(bundle, tmp_path, "raise ZeroDivisionError", watch=None) as worker:
        worker.wait_for_status("ok")
        worker.tell(signal.SIGHUP)
        assert worker.process.wait(timeout=30) == 1
        assert is_gone(worker)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("first", [True, False], ids=["first-look", "later-look"])
def test_the_end_does_not_wait_for_a_registry_that_hangs(bundle, tmp_path, number, first):
    with supervised(None if first else bundle, tmp_path, HANG, watch=0.1) as worker:
        worker.wait_for_status("loading" if first else "ok")
        time.sleep(0.3)  # until a look hangs
        worker.tell(number)
        assert worker.process.wait(timeout=30) == 0
        assert is_gone(worker)
    assert list(tmp_path.glob("health-predict-*")) == []


def test_a_second_signal_to_the_supervisor_ends_both_at_once(bundle, tmp_path):
    script = SUPERVISOR.format(otherwise="raise OSError", watch=None)
    with started([sys.executable, "-c", script, str(bundle)], dict(os.environ), tmp_path, drain="600") as worker:
        worker.wait_for_status("ok")
        worker.tell(signal.SIGTERM)
        worker.wait_for_status("draining")
        worker.tell(signal.SIGTERM)
        assert worker.process.wait(timeout=30) == 128 + signal.SIGKILL
        assert is_gone(worker)


def test_watching_waits_for_a_registry_that_is_down_at_the_start_and_is_not_ready(promoted, tmp_path):
    port = free_port()
    line = [sys.executable, "-c", "from health_predict.cli import main; main()", "serve", "--watch"]
    line += ["--watch-seconds", "0.3", "--port"]
    environment = environment_of(promoted.root) | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    with started(line, environment, tmp_path) as worker:
        health = worker.wait_for_status("loading")
        assert "no bundle yet" in health["reason"]
        until(lambda: worker.output.count("no model can be served yet") > 0)
        assert worker.process.poll() is None
        assert httpx.post(f"{worker.url}/predict", json=dict(EXAMPLE)).status_code == 503


def test_without_watching_a_registry_that_is_down_at_the_start_ends_it(promoted, tmp_path):
    line = [sys.executable, "-c", "from health_predict.cli import main; main()", "serve", "--port", str(free_port())]
    environment = environment_of(promoted.root) | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}"}
    ended = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == TrackingError.exit_code
    assert "cannot reach MLflow" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_sighup_at_any_time_of_the_start_ends_nothing(bundle, tmp_path):
    with supervised(bundle, tmp_path, "raise OSError", watch=None) as worker:
        until(lambda: any(tmp_path.glob("health-predict-*/in-service")))
        for _ in range(60):
            worker.tell(signal.SIGHUP)
            time.sleep(0.02)
        worker.wait_for_status("ok")
        assert worker.process.poll() is None


def test_the_end_of_the_service_is_the_end_of_the_supervisor(bundle, tmp_path):
    with supervised(bundle, tmp_path, "raise OSError", watch=None) as worker:
        worker.wait_for_status("ok")
        (service,) = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().split()
        os.kill(int(service), signal.SIGKILL)
        assert worker.process.wait(timeout=30) == 128 + signal.SIGKILL
