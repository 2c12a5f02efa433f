"""The failpoints themselves: what is left of a killed process, and that no write of the product escapes them."""

import ast
import inspect
from pathlib import Path

import pytest
from failpoints import (
    MLFLOW_READS,
    MLFLOW_WRITES,
    STORAGE_READS,
    STORAGE_WRITES,
    Actor,
    Death,
    Killed,
    Watched,
    acting,
    killed,
    watching_mlflow,
)

from health_predict.adapters import registry
from health_predict.adapters.registry import Registry
from health_predict.store.storage import Folder, Storage

BESIDE = {"connect", "path", "below", "private"}  # methods of a store that read and write nothing


@pytest.fixture
def storage(tmp_path) -> Watched:
    storage = Watched(Folder(str(tmp_path / "store")))
    storage.write("key", b"old")
    return storage


@pytest.mark.parametrize(("when", "left"), [("before", b"old"), ("within", b"old"), ("after", b"new")])
def test_a_killed_write_leaves_the_old_or_the_new(storage, when, left):
    assert killed(Actor(Death(1, when)), lambda: storage.write("key", b"new"))
    assert storage.read("key") == left
    assert storage.list() == ["key"]


def test_an_actor_dies_at_its_nth_write_and_reads_before_it(storage):
    actor = Actor(Death(2, "before"))

    def command():
        storage.write("first", storage.read("key"))
        storage.write("second", b"")

    assert killed(actor, command)
    assert storage.list() == ["first", "key"]
    assert actor.writes == ["write first", "write second"]


def test_what_a_dead_process_would_still_write_is_lost(storage):
    def command():
        try:
            storage.write("first", b"")
        finally:
            storage.write("last", b"")

    assert killed(Actor(Death(1, "after")), command)
    assert storage.list() == ["first", "key"]


@pytest.mark.slow
def test_a_run_of_a_killed_process_stays_running_with_half_of_its_files(tmp_path):
    registry = Registry(f"sqlite:///{tmp_path}/mlflow.db", "Invented", f"{tmp_path}/artifacts")
    (tmp_path / "logged").mkdir()
    for name in ("a", "b"):
        (tmp_path / "logged" / name).write_bytes(b"")
    seen = []

    def command():
        with registry.run("Experiment", "run", {}) as run_id:
            seen.append(run_id)
            registry.log_folder(run_id, tmp_path / "logged")

    actor = Actor(Death(3, "within"))
    with watching_mlflow():
        assert killed(actor, command)
    assert actor.writes == ["create_experiment", "create_run", "log_folder"]
    assert [file.path for file in registry._client.list_artifacts(seen[0])] == ["a"]
    assert registry._client.get_run(seen[0]).info.status == "RUNNING"


def test_a_process_that_lives_is_only_counted(storage):
    with acting(Actor()) as actor:
        storage.write("key", b"new")
        storage.write_if("other", b"", None)
        storage.delete("key")
    assert actor.writes == ["write key", "write_if other", "delete key"]
    assert storage.list() == ["other"]


def test_a_dead_actor_does_nothing_more(storage):
    actor = Actor(dead=True)
    for access in (lambda: storage.read("key"), lambda: storage.write("key", b"new")):
        with acting(actor), pytest.raises(Killed):
            access()
    assert storage.read("key") == b"old"


def test_every_access_of_the_product_is_one_that_an_actor_is_told_of():
    methods = {name for name, _ in inspect.getmembers(Storage, inspect.isfunction) if not name.startswith("_")}
    assert methods <= {*STORAGE_READS, *STORAGE_WRITES, *BESIDE}
    calls = {
        node.attr
        for node in ast.walk(ast.parse(Path(registry.__file__).read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self._client"
    }
    assert "create_model_version" in calls
    assert calls <= {*MLFLOW_READS, *MLFLOW_WRITES}
