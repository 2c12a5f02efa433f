"""Processes that die between any two writes, or take turns at every access, without a line of it in the product.

An `Actor` stands for one process. `watched(storage)` is a store, and `watching_mlflow()` a patch of MLflow's client,
that tell the actor at work of every access. It can die before a write, within it or after it: `Killed` is no
`Exception`, so nothing repairs it, and a dead actor's further accesses fail too, so that what a `finally` would still
write is lost, as it is when a process is really killed.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shutil import copyfile
from typing import Any, Literal
from unittest.mock import patch

from mlflow.tracking import MlflowClient

from health_predict.adapters.registry import Registry
from health_predict.store.storage import Storage

When = Literal["before", "within", "after"]

STORAGE_WRITES = ("write", "write_if", "delete")
STORAGE_READS = ("read", "read_with_version", "read_with_state", "exists", "list")
MLFLOW_WRITES = (
    "create_run", "update_run", "set_terminated", "log_batch", "log_param", "log_metric", "set_tag", "delete_tag",
    "log_artifact", "log_artifacts", "log_dict", "log_text", "delete_run", "create_experiment", "set_experiment_tag",
    "create_registered_model", "update_registered_model", "rename_registered_model", "delete_registered_model",
    "set_registered_model_tag", "delete_registered_model_tag", "set_registered_model_alias",
    "delete_registered_model_alias", "create_model_version", "update_model_version", "set_model_version_tag",
    "delete_model_version_tag", "delete_model_version",
)  # fmt: skip
MLFLOW_READS = (
    "get_run", "search_runs", "get_experiment", "get_experiment_by_name", "search_experiments", "list_artifacts",
    "download_artifacts", "get_registered_model", "search_registered_models", "get_model_version",
    "get_model_version_by_alias", "search_model_versions", "get_metric_history",
)  # fmt: skip


class Killed(BaseException):
    """The process is gone."""


@dataclass(frozen=True)
class Death:
    """Of an actor: at its n-th write, counted from 1."""

    write: int
    when: When


@dataclass
class Actor:
    """One process. `turn` is called before every access: a scheduler waits there."""

    death: Death | None = None
    turn: Callable[[str], None] = lambda _access: None
    writes: list[str] = field(default_factory=list)
    dead: bool = False

    def reads(self, access: str, read: Callable[[], Any]) -> Any:
        self._lives(access)
        return read()

    def changes(self, access: str, write: Callable[[], Any], half: Callable[[], Any]) -> Any:
        """Write, unless this is where the actor dies; `half` is what a death within the write leaves."""
        self._lives(access)
        self.writes.append(access)
        if self.death is None or len(self.writes) != self.death.write:
            return write()
        self.dead = True
        {"before": lambda: None, "within": half, "after": write}[self.death.when]()
        raise Killed(f"{self.death.when} {access}, write {self.death.write}")

    def _lives(self, access: str) -> None:
        if self.dead:
            raise Killed(f"dead before {access}")
        self.turn(access)


_AT_WORK: ContextVar[Actor | None] = ContextVar("actor at work", default=None)


@contextmanager
def acting(actor: Actor) -> Iterator[Actor]:
    """The actor does what this thread does."""
    token = _AT_WORK.set(actor)
    try:
        yield actor
    finally:
        _AT_WORK.reset(token)


def killed(actor: Actor, command: Callable[[], Any]) -> bool:
    """Run a command as the actor; returns whether it died of it."""
    with acting(actor):
        try:
            command()
        except Killed:
            return True
    return False


class Watched:
    """A store that tells the actor at work of every access. `written` is called with what was written."""

    def __init__(self, storage: Storage, written: Callable[[str, bytes], None] = lambda _key, _data: None):
        self._storage, self._written = storage, written

    def __getattr__(self, name: str) -> Any:
        method, actor = getattr(self._storage, name), _AT_WORK.get()
        if name == "below":  # a store in this one
            return lambda prefix: Watched(method(prefix), self._written)
        if not callable(method) or actor is None or name not in (*STORAGE_WRITES, *STORAGE_READS):
            return method

        def told(key: str = "", *arguments: Any) -> Any:
            access = f"{name} {key}"
            if name in STORAGE_READS:
                return actor.reads(access, lambda: method(key, *arguments))
            return actor.changes(access, lambda: write(key, *arguments), lambda: self._torn(key, *arguments))

        def write(key: str, *arguments: Any) -> None:
            method(key, *arguments)
            if arguments:
                self._written(key, arguments[0])

        return told

    def _torn(self, key: str, data: bytes = b"", *_version: Any) -> None:
        """What a folder holds when a write is cut short: half of a file that never got its name."""
        place = Path(self._storage.path(key))
        place.parent.mkdir(parents=True, exist_ok=True)
        (place.parent / ".torn.tmp").write_bytes(data[: len(data) // 2])


@contextmanager
def watching_mlflow() -> Iterator[None]:
    """MLflow's clients, those that exist already as well, tell the actor at work of every access; uploads too."""
    halves = {"log_batch": _without_tags}
    with (
        patch.multiple(
            MlflowClient,
            **{name: _told(MlflowClient, name) for name in MLFLOW_READS},
            **{name: _told(MlflowClient, name, halves.get(name, _nothing)) for name in MLFLOW_WRITES},
        ),
        patch.object(Registry, "log_folder", _told(Registry, "log_folder", _half_a_folder)),
    ):
        yield


def _told(kind: type, name: str, half: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A method that tells the actor; one that writes has something that it leaves when it is cut short."""
    method = getattr(kind, name)

    def told(*arguments: Any, **named: Any) -> Any:
        actor = _AT_WORK.get()
        if actor is None:
            return method(*arguments, **named)

        def do(what: Callable[..., Any]) -> Any:
            token = _AT_WORK.set(None)  # what MLflow calls of itself is a part of the one access
            try:
                return what(*arguments, **named)
            finally:
                _AT_WORK.reset(token)

        if half is None:
            return actor.reads(name, lambda: do(method))
        return actor.changes(name, lambda: do(method), lambda: do(partial(half, method)))

    return told


def _nothing(*_arguments: Any, **_named: Any) -> None:
    """A database does all of it or nothing."""


def _half_a_folder(upload: Callable[..., Any], registry: Registry, run_id: str, folder: Path, *path: Any) -> None:
    files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
    with tempfile.TemporaryDirectory() as scratch:
        for file in files[: len(files) // 2]:
            copy = Path(scratch) / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copyfile(file, copy)
        upload(registry, run_id, Path(scratch), *path)


def _without_tags(log: Callable[..., Any], client: MlflowClient, run_id: str, **logged: Any) -> None:
    """MLflow writes metrics, parameters and tags one after the other."""
    log(client, run_id, **{**logged, "tags": ()})
