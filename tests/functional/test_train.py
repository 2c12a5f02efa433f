"""`train` as a process of its own: one seed one result, killed and run again, on another Ray cluster."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.tracking import MlflowClient

from health_predict.adapters.registry import Registry
from health_predict.bundle.model import ENCODER, MODEL
from health_predict.store import layout
from health_predict.store.tables import read_table
from stores import TRAIN_COMMAND, Place, prepare

# A cluster wants a token from whoever joins it; invented here, the same for the head and the command.
RAY_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0f" * 32}

SOON = 300.0  # seconds; much is slower where tests run side by side


def until(condition: Callable[[], Any], what: str, seconds: float = SOON) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.1)


def statuses(place: Place) -> dict[str, str]:
    """Status of every run by its name, straight from the database; none before there is one."""
    file = place.root / "mlflow.db"
    if not file.exists():
        return {}
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)) as database:
        try:
            return dict(database.execute("select name, status from runs"))
        except sqlite3.OperationalError:  # the tables are not made yet
            return {}


def processes_of(root: Path) -> list[psutil.Process]:
    """Processes that were started, by whomever, for a command on this store: Ray's among them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HEALTH_PREDICT_STORAGE") == str(root):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [process for process in found if process.pid != os.getpid()]


@pytest.fixture(scope="module")
def recovered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, dict[str, str], dict[str, Any]]:
    """A store on which a training was killed while it exported its first model, and then run again.

    With the statuses of the runs after the kill, and the output of the second training.
    """
    place = prepare(tmp_path_factory.mktemp("recovered") / "store")
    before = {key: place.storage.read(key) for key in place.storage.list()}
    with place.command(*TRAIN_COMMAND) as process:
        until(lambda: any(name.startswith("Best_") for name in statuses(place)), "a best model")
        process.send_signal(signal.SIGKILL)
        process.communicate()
    until(lambda: not processes_of(place.root), "the end of all Ray processes", 60)
    killed = statuses(place)
    kept = {key: place.storage.read(key) for key in before}
    assert kept == before
    assert not place.storage.exists(layout.TRAINING)
    code, out, err = place.run(*TRAIN_COMMAND)
    assert code == 0, err
    return place, killed, json.loads(out.splitlines()[-1])


def test_a_killed_training_leaves_a_store_that_the_next_one_uses(recovered):
    place, killed, output = recovered
    assert killed["Training"] == "RUNNING"
    client = MlflowClient(place.settings.resolved_tracking_uri)
    experiment = client.get_experiment_by_name("HealthPredict_Training").experiment_id
    ended = [run.info.status for run in client.search_runs([experiment])]
    assert "RUNNING" not in ended
    assert "KILLED" in ended
    assert client.get_run(output["run_id"]).info.status == "FINISHED"
    registry: Registry = place.registry
    assert registry.register(output["winner"], {}).version == "1"


def test_one_seed_gives_one_result(recovered, trained):
    place, _, output = recovered

    def essence(found: dict[str, Any]) -> list[dict[str, Any]]:
        return [{key: model[key] for key in ("family", "config", "threshold", "metrics")} for model in found["models"]]

    assert essence(output) == essence(trained.output)
    for name in (MODEL, ENCODER):
        for mine, theirs in zip(output["models"], trained.output["models"], strict=True):
            one, two = (
                Path(
                    MlflowClient(where.settings.resolved_tracking_uri).download_artifacts(
                        model["run_id"], f"bundle/{name}"
                    )
                )
                for where, model in ((place, mine), (trained, theirs))
            )
            assert one.read_bytes() == two.read_bytes(), name


def test_no_ray_process_is_left_behind(recovered, trained):
    for place in (recovered[0], trained):
        until(lambda root=place.root: not processes_of(root), "the end of all processes", 10)


def test_the_training_says_what_it_did(trained):
    output = trained.output
    assert output["winner"] == output["models"][0]["run_id"]
    assert output["trials"] == 4
    assert output["synthetic"] is True
    assert output["skipped"] is False
    briers = [model["metrics"]["brier"]["estimate"] for model in output["models"]]
    assert briers == sorted(briers)
    assert all(model["onnx_difference"] <= 1e-6 for model in output["models"])
    for model in output["models"]:
        assert 0.55 < model["metrics"]["auroc"]["estimate"] < 0.8  # above: something leaks
        assert model["metrics"]["rows"] == read_table(trained.storage, layout.INITIAL_VALIDATION).height


@contextmanager
def ray_head(folder: Path) -> Iterator[str]:
    """A second Ray cluster of one CPU on this machine; ended by its own process, which takes the others with it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}"]
    command += ["--num-cpus=1", "--include-dashboard=false", "--node-ip-address=127.0.0.1", f"--temp-dir={folder}"]
    environment = {**os.environ, **RAY_TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    with (
        (folder.parent / "ray.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment) as head,
    ):

        def answers() -> bool:
            assert head.poll() is None, (folder.parent / "ray.log").read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            until(answers, "a Ray head")
            time.sleep(5)  # it answers before its node is registered
            yield f"127.0.0.1:{port}"
        finally:
            children = psutil.Process(head.pid).children(recursive=True)
            head.terminate()
            _, alive = psutil.wait_procs(children, timeout=20)
            for child in alive:
                child.kill()


@pytest.mark.slow
def test_ray_address_names_the_cluster_that_tunes(tmp_path):
    temporary = Path("/tmp") / f"hp-{os.getpid()}" / "r"  # noqa: S108  (Ray's sockets need a short path)
    temporary.parent.mkdir()
    place = prepare(tmp_path / "store", rows=3_000)
    with ray_head(temporary) as address:
        there = replace(place, environment={"RAY_ADDRESS": address, **RAY_TOKEN})
        code, out, err = there.run("train", "--families", "lightgbm", "--trials", "1", "--json")
        assert code == 0, err
        assert json.loads(out.splitlines()[-1])["trials"] == 1
        # A worker's log carries the number of the job that it worked for; this cluster has had one job.
        assert any("-01000000-" in file.name for file in temporary.rglob("worker-*"))
        with socket.socket() as probe:  # the cluster is somebody else's and goes on
            assert probe.connect_ex(("127.0.0.1", int(address.split(":")[1]))) == 0


def test_a_ray_address_where_nothing_answers_is_told(tmp_path):
    place = prepare(tmp_path / "store", rows=3_000)
    there = replace(place, environment={"RAY_ADDRESS": "127.0.0.1:9"})
    code, out, err = there.run("train", "--families", "lightgbm", "--trials", "1", "--json")
    assert code == 15
    assert "no Ray cluster answers at RAY_ADDRESS=127.0.0.1:9" in err
    assert "Traceback" not in err
    assert out == ""
    assert not place.storage.exists(layout.TRAINING)
