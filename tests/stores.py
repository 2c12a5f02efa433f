"""Stores of this test run: a folder with invented data, MLflow inside it, and commands that run on it."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forked import Command
from health_predict.adapters.registry import Registry
from health_predict.params import Family, SplitParams, ValidationParams
from health_predict.settings import Settings
from health_predict.steps.data.fetch import fetch
from health_predict.steps.data.split import split
from health_predict.steps.data.validate import validate
from health_predict.store.simulations import existing_world
from health_predict.store.storage import Folder, Storage
from health_predict.workspace import Workspace

FAMILIES: tuple[Family, ...] = ("lightgbm", "logistic_regression")
TRAIN_COMMAND = ("train", "--families", ",".join(FAMILIES), "--trials", "2", "--json")
ROWS = 10_000
# Little to train on, much to compare on: fast, and the gate can tell models apart.
SPLIT = SplitParams(initial_share=0.95, train_share=0.25, validation_share=0.15)

PLACES = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "MODEL_NAME", "MODEL_ALIAS", "MODEL_VERSION", "HEALTH_PREDICT_STORAGE")


@dataclass(frozen=True)
class Place:
    """A store with its registry, as the default settings lay them out: MLflow on SQLite inside the folder."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    artifacts: str | None = None  # where runs keep theirs; None: in the store

    @property
    def storage(self) -> Folder:
        return Folder(str(self.root))

    @property
    def settings(self) -> Settings:
        known = {"tracking_uri": self.environment.get("MLFLOW_TRACKING_URI")}
        model = self.environment.get("MODEL_NAME")
        return Settings(storage=str(self.root), **known, **({"model_name": model} if model else {}))

    @property
    def registry(self) -> Registry:
        settings = self.settings
        artifacts = self.artifacts or settings.artifact_root
        return Registry(settings.resolved_tracking_uri, settings.model_name, artifacts)

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.storage, lambda: self.registry, self.settings.cache)

    def simulation(self, name: str) -> "Place":
        """The world of a replay that was begun in this store, as a place of its own."""
        storage, found = existing_world(self.storage, name)
        tracking_uri = self.settings.resolved_tracking_uri
        environment = {"MLFLOW_TRACKING_URI": tracking_uri, "MODEL_NAME": found.model}
        return Place(Path(storage.root), environment, self.settings.artifact_root)

    def command(self, *arguments: str, start_new_session: bool = False) -> Command:
        """Start `health-predict` as a process of its own on this store; not `serve`, which becomes another program."""
        return Command(arguments, {**environment_of(self.root), **self.environment}, start_new_session)

    def run(self, *arguments: str, timeout: float = 300) -> tuple[int, str, str]:
        """Run `health-predict` as a process to its end: exit code, stdout, stderr."""
        with self.command(*arguments) as process:
            out, err = process.communicate(timeout=timeout)
        return process.returncode, out, err


def workspace_of(storage: Storage, registry: Any) -> Workspace:
    """A workspace of parts; the registry may be one that stands for MLflow."""
    return Workspace(storage, lambda: registry, Path(storage.root) / "cache")


def environment_of(root: Path) -> dict[str, str]:
    """This environment without the places of other stores, for processes on this one."""
    kept = {name: value for name, value in os.environ.items() if name not in PLACES}
    return {**kept, "HEALTH_PREDICT_STORAGE": str(root), "HEALTH_PREDICT_CACHE": str(root / "cache")}


@dataclass(frozen=True)
class Trained(Place):
    """The shared store. Nobody may write to it; `store` is a copy."""

    output: dict[str, Any] = field(default_factory=dict)  # of `train --json`

    @property
    def winner(self) -> str:
        return str(self.output["winner"])

    @property
    def other(self) -> str:
        """Run id of the model that did not win."""
        return next(model["run_id"] for model in self.output["models"] if model["run_id"] != self.winner)


def prepare(root: Path, rows: int = ROWS, params: SplitParams = SPLIT) -> Place:
    """A store with invented data, fetched, validated and split."""
    place = Place(root)
    fetch(place.storage, None, "http://127.0.0.1:9/unused", rows, lambda _received, _total: None)
    validate(place.storage, ValidationParams())
    split(place.storage, params)
    return place
