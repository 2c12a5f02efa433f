"""MLflow on SQLite: runs that say how they ended, versions that are whole, aliases that follow the ledger."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from health_predict.adapters.registry import (
    BUNDLE,
    HOST,
    MACHINE,
    PID,
    PREPROCESSOR,
    PREVIOUS,
    PRODUCTION,
    REQUIRED,
    SHA256,
    STARTED,
    Registry,
)
from health_predict.bundle.model import MODEL, load_bundle
from health_predict.errors import BundleError, StorageError, TrackingError
from health_predict.serving.core.model import load_model
from health_predict.store.bundles import VERSION, download_bundle, fetch_bundle
from health_predict.store.ledger import Version
from health_predict.store.storage import Folder

EXPERIMENT = "Invented"
TAGS = {"family": "lightgbm"}
NOTHING = Folder("/nowhere")  # a store that keeps no bundle


def fetched(registry: Registry, version: Version, cache: Path) -> Path:
    """The bundle of a version that only MLflow has."""
    return fetch_bundle(NOTHING, lambda: registry, version, cache)


@pytest.fixture
def registry(store) -> Registry:
    return store.registry


@pytest.fixture
def client(store) -> MlflowClient:
    return MlflowClient(store.settings.resolved_tracking_uri)


@pytest.fixture
def parts(store, registry, tmp_path) -> Path:
    """The artifacts that a version needs, to be damaged."""
    for path in (BUNDLE, Path(PREPROCESSOR).parent.as_posix()):
        registry.download(store.winner, path, tmp_path)
    return tmp_path


def logged(registry: Registry, parts: Path) -> str:
    """A finished run that holds the parts."""
    with registry.run(EXPERIMENT, "invented", {}) as run_id:
        for name in {Path(part).parent for part in REQUIRED}:
            if (parts / name).exists():
                registry.log_folder(run_id, parts / name, name.as_posix())
    return run_id


def test_a_complete_run_becomes_one_version_however_often_it_is_registered(store, registry):
    first = registry.register(store.winner, TAGS)
    assert registry.register(store.winner, TAGS) == first
    assert (first.name, first.version, first.run_id) == ("HealthPredict", "1", store.winner)
    assert registry.version("1") == first


@pytest.mark.parametrize("part", REQUIRED)
def test_a_run_without_a_part_is_refused_by_its_name(registry, parts, part):
    (parts / part).unlink()
    with pytest.raises(BundleError, match=f"cannot be registered: it has no {part}$"):
        registry.register(logged(registry, parts), TAGS)
    with pytest.raises(TrackingError, match="version 1"):
        registry.version("1")


def test_a_run_without_anything_is_refused_with_all_that_it_lacks(registry):
    with registry.run(EXPERIMENT, "empty", {}) as run_id:
        pass
    with pytest.raises(BundleError) as refused:
        registry.register(run_id, TAGS)
    assert all(part in str(refused.value) for part in REQUIRED)


def test_a_run_with_an_altered_bundle_is_refused(registry, parts):
    content = bytearray((parts / BUNDLE / MODEL).read_bytes())
    content[-1] ^= 1
    (parts / BUNDLE / MODEL).write_bytes(content)
    with pytest.raises(BundleError, match=f"{MODEL} in .* was altered"):
        registry.register(logged(registry, parts), TAGS)


def test_an_unknown_run_is_a_tracking_error(registry):
    with pytest.raises(TrackingError, match="0000"):
        registry.register("0000", TAGS)


def test_aliases_follow_the_ledger_and_move_once(store, registry, parts):
    assert registry.at(PRODUCTION) is None
    one, two = registry.register(store.winner, TAGS), registry.register(store.other, TAGS)
    assert registry.follow("2", "1")
    assert (registry.at(PRODUCTION), registry.at(PREVIOUS)) == (two, one)
    assert not registry.follow("2", "1")
    assert registry.follow("1", "2")
    assert (registry.at(PRODUCTION), registry.at(PREVIOUS)) == (one, two)
    assert registry.follow("1", None)
    assert (registry.at(PRODUCTION), registry.at(PREVIOUS)) == (one, None)


def test_nothing_decided_moves_no_alias(registry):
    assert not registry.follow(None, None)


def test_a_run_says_how_it_ended(registry, client):
    ids = {}
    for status, error in (("FAILED", ValueError), ("KILLED", KeyboardInterrupt)):
        with pytest.raises(error), registry.run(EXPERIMENT, status, {}) as ids[status]:
            raise error
    with registry.run(EXPERIMENT, "fine", {"a": "b"}) as ids["FINISHED"]:
        assert client.get_run(ids["FINISHED"]).info.status == "RUNNING"
    assert {status: client.get_run(run_id).info.status for status, run_id in ids.items()} == {s: s for s in ids}
    assert [run.info.run_id for run in registry.finished_runs(EXPERIMENT, {"a": "b"})] == [ids["FINISHED"]]
    assert registry.finished_runs("No such experiment", {}) == []


def test_runs_of_a_process_that_is_gone_are_ended_and_others_are_left(registry, client):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    with registry.run(EXPERIMENT, "mine", {}) as mine:
        experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
        tags = client.get_run(mine).data.tags
        written = [
            {**tags, PID: str(gone.pid)},
            {**tags, STARTED: "1"},  # its process id was given to another process since
            {**tags, PID: str(gone.pid), MACHINE: "another container on a host of the same name"},
            {HOST: tags[HOST], PID: str(gone.pid)},  # no proof
        ]
        others = [client.create_run(experiment, tags=one).info.run_id for one in written]
        assert registry.end_orphans(EXPERIMENT) == 2
        found = [client.get_run(run_id).info.status for run_id in (*others, mine)]
    assert found == ["KILLED", "KILLED", "RUNNING", "RUNNING", "RUNNING"]
    assert registry.end_orphans(EXPERIMENT) == 0
    assert registry.end_orphans("No such experiment") == 0


def test_a_bundle_is_downloaded_once_and_verified(store, registry, tmp_path):
    version = registry.register(store.winner, TAGS)
    folder = fetched(registry, version, tmp_path / "cache")
    assert load_bundle(folder).manifest.run_id == store.winner
    changed = (folder / MODEL).stat().st_mtime_ns
    assert fetched(registry, version, tmp_path / "cache") == folder
    assert (folder / MODEL).stat().st_mtime_ns == changed


def test_a_bundle_in_the_cache_that_was_damaged_is_downloaded_again(store, registry, tmp_path):
    version = registry.register(store.winner, TAGS)
    folder = fetched(registry, version, tmp_path / "cache")
    for name in (MODEL, VERSION):
        (folder / name).write_bytes(b"cut")
        assert fetched(registry, version, tmp_path / "cache") == folder
    (folder / MODEL).unlink()
    assert load_bundle(fetched(registry, version, tmp_path / "cache"))


def test_a_download_that_does_not_verify_is_refused_until_it_does(registry, parts, client, tmp_path):
    run_id = logged(registry, parts)
    version = registry.register(run_id, TAGS)
    artifacts = Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://"))
    (artifacts / BUNDLE / MODEL).write_bytes(b"cut")
    cache = tmp_path / "cache"
    for _ in range(2):
        with pytest.raises(BundleError, match=MODEL):
            fetched(registry, version, cache)
    shutil.copy(parts / BUNDLE / MODEL, artifacts / BUNDLE / MODEL)
    assert load_bundle(fetched(registry, version, cache))


def test_a_download_that_fails_leaves_nothing(registry, parts, client, tmp_path):
    run_id = logged(registry, parts)
    version = registry.register(run_id, TAGS)
    shutil.rmtree(Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://")) / BUNDLE)
    with pytest.raises(TrackingError, match="download bundle"):
        fetched(registry, version, tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_another_whole_bundle_in_the_place_of_the_registered_one_is_refused(store, registry, parts, client, tmp_path):
    run_id = logged(registry, parts)
    version = registry.register(run_id, TAGS)
    artifacts = Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://"))
    shutil.rmtree(artifacts / BUNDLE)
    shutil.copytree(registry.download(store.other, BUNDLE, tmp_path / "other"), artifacts / BUNDLE)
    with pytest.raises(BundleError, match="not the one that was registered"):
        fetched(registry, version, tmp_path / "cache")
    with pytest.raises(BundleError, match="another bundle"):
        registry.register(run_id, TAGS)
    with pytest.raises(BundleError, match=r"not the one that version\.json names"):
        load_model(download_bundle(NOTHING, lambda: registry, version, tmp_path / "cache"))


def test_a_cache_that_cannot_be_written_is_a_storage_error(store, registry, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StorageError, match=r"the cache .* cannot be written"):
        fetched(registry, registry.register(store.winner, TAGS), tmp_path / "cache")


def test_a_server_that_does_not_answer_is_told_within_seconds():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(TrackingError, match=rf"cannot reach MLflow \(MLflow at {address}\).*Is the server running"):
        Registry(address, "HealthPredict")
    assert time.monotonic() - began < 20


def test_a_database_that_is_none_is_a_tracking_error(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"this is no database, and longer than the header of one " * 40)
    with pytest.raises(TrackingError, match="cannot reach MLflow"):
        Registry(f"sqlite:///{tmp_path}/mlflow.db", "HealthPredict")


def test_what_is_logged_to_a_run_is_there(registry, client):
    with registry.run(EXPERIMENT, "outer", {}) as outer, registry.run(EXPERIMENT, "inner", {"a": "b"}, outer) as inner:
        registry.log(inner, {"depth": 4}, {"auroc": 0.7}, {"curve": (0.5, 0.6)}, {"kind": "x"})
        registry.log(inner)
    run = client.get_run(inner)
    assert run.info.run_name == "inner"
    assert run.data.params == {"depth": "4"}
    assert run.data.metrics == {"auroc": 0.7, "curve": 0.6}
    assert [(point.step, point.value) for point in client.get_metric_history(inner, "curve")] == [(1, 0.5), (2, 0.6)]
    assert [point.step for point in client.get_metric_history(inner, "auroc")] == [0]
    assert abs(client.get_metric_history(inner, "auroc")[0].timestamp / 1000 - time.time()) < 600
    tags = run.data.tags
    assert (tags["a"], tags["kind"], tags["mlflow.parentRunId"]) == ("b", "x", outer)
    assert "mlflow.parentRunId" not in client.get_run(outer).data.tags
    assert (tags[HOST], tags[PID]) == (socket.gethostname(), str(os.getpid()))
    assert client.get_experiment_by_name(EXPERIMENT).artifact_location.endswith(f"/{EXPERIMENT}")


def test_runs_are_found_by_all_of_their_tags_newest_first(registry):
    ids = []
    for number in ("1", "2", "3"):
        with registry.run(EXPERIMENT, number, {"kind": "x", "number": number}) as run_id:
            ids.append(run_id)
        time.sleep(0.01)
    found = registry.finished_runs(EXPERIMENT, {"kind": "x"})
    assert [run.info.run_id for run in found] == ids[::-1]
    assert [run.info.run_id for run in registry.finished_runs(EXPERIMENT, {"kind": "x", "number": "2"})] == [ids[1]]


def test_artifacts_are_there_by_their_path_wherever_the_store_is_now(store, registry, tmp_path):
    (tmp_path / "given" / "deep").mkdir(parents=True)
    (tmp_path / "given" / "deep" / "file").write_text("content")
    with registry.run(EXPERIMENT, "artifacts", {}) as run_id:
        registry.log_folder(run_id, tmp_path / "given")
        registry.log_folder(run_id, tmp_path / "given" / "deep", "other")
    assert registry.holds(run_id, "deep")
    assert registry.holds(run_id, "other")
    assert not registry.holds(run_id, "nothing")
    assert (registry.download(run_id, "other", tmp_path / "one") / "file").read_text() == "content"

    moved = tmp_path / "moved"
    shutil.copytree(store.root, moved)
    shutil.rmtree(store.root / "mlartifacts" / EXPERIMENT)
    there = Registry(f"sqlite:///{moved}/mlflow.db", registry.model_name, str(moved / "mlartifacts"))
    assert there.holds(run_id, "deep")
    assert (there.download(run_id, "deep", tmp_path / "two") / "file").read_text() == "content"


def test_a_version_has_its_tags_and_a_model_beside_it_has_none_of_its_versions(store, registry, client):
    version = registry.register(store.winner, TAGS)
    found = client.get_model_version(registry.model_name, "1")
    assert found.tags == {**TAGS, SHA256: registry.bundle(store.winner).sha256}
    assert found.tags[SHA256] == version.sha256
    assert "readmission" in client.get_registered_model(registry.model_name).description
    assert (registry.has_version("1"), registry.has_version("2")) == (True, False)
    assert (registry.run_of("1"), registry.run_of("2")) == (store.winner, None)
    other = registry.for_model("Other")
    assert (other.model_name, other.tracking_uri) == ("Other", registry.tracking_uri)
    assert not other.has_version("1")
    assert other.at(PRODUCTION) is None
    assert other.register(store.winner, TAGS).name == "Other"
    assert registry.register(store.other, TAGS).version == "2"


def test_an_alias_cannot_point_at_a_version_that_was_deleted(store, registry, client):
    registry.register(store.winner, TAGS)
    registry.register(store.other, TAGS)
    registry.follow("2", "1")
    client.delete_model_version(registry.model_name, "1")
    assert registry.at(PREVIOUS) is None
    assert not registry.follow("2", "1")
    assert registry.follow("1", None)
    assert registry.at(PRODUCTION) is None


def test_who_holds_a_model_is_written_by_generation_and_stays(registry):
    assert registry.holders() == {}
    registry.hold("one", 1, over=False)
    assert registry.holders() == {1: "one"}
    registry.hold("two", 1, over=False)
    assert registry.holders() == {1: "one"}
    registry.hold("two", 1, over=True)
    registry.hold("three", 2, over=False)
    assert registry.holders() == {1: "two", 2: "three"}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda dead: dead.version("7"), "find version 7 of HealthPredict"),
        (lambda dead: dead.has_version("7"), "find version 7 of HealthPredict"),
        (lambda dead: dead.at(PRODUCTION), "look up the alias production"),
        (lambda dead: dead.holders(), "find the model HealthPredict"),
        (lambda dead: dead.hold("me", 1, over=False), "hold the model HealthPredict"),
        (lambda dead: dead.finished_runs(EXPERIMENT, {}), f"search the experiment {EXPERIMENT}"),
        (lambda dead: dead.end_orphans(EXPERIMENT), f"search the experiment {EXPERIMENT}"),
        (lambda dead: dead.log("0" * 32, {"depth": 4}), f"log to the run {'0' * 32}"),
        (lambda dead: dead.holds("0" * 32, "x"), f"list the artifacts of the run {'0' * 32}"),
        (lambda dead: dead.download("0" * 32, "x", Path("/nowhere")), f"download x of the run {'0' * 32}"),
        (lambda dead: dead.log_folder("0" * 32, Path("/nowhere")), f"upload to the run {'0' * 32}"),
    ],
)
def test_what_could_not_be_done_is_told_with_the_place_and_what_to_do(registry, store, what, said):
    (store.root / "mlflow.db").write_bytes(b"this is no database, and longer than the header of one " * 40)
    with pytest.raises(TrackingError) as told:
        what(registry)
    assert str(told.value).startswith(f"cannot {said} (MLflow at {registry.tracking_uri}): ")
    assert str(told.value).endswith(
        "Is the server running? MLFLOW_TRACKING_URI says where it is; unset, a SQLite file below the storage root is "
        "used."
    )
