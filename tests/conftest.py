"""One trained store for the whole test run, and the command line as a function."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from health_predict.io.registry import Registry
from health_predict.io.storage import Folder
from health_predict.params import Family, SplitParams, ValidationParams
from health_predict.settings import Settings
from health_predict.steps.fetch import fetch
from health_predict.steps.split import split
from health_predict.steps.validate import validate

FAMILIES: tuple[Family, ...] = ("lightgbm", "logistic_regression")
TRAIN_COMMAND = ("train", "--families", ",".join(FAMILIES), "--trials", "2", "--json")
ROWS = 10_000
# Little to train on, much to compare on: fast, and the gate can tell models apart.
SPLIT = SplitParams(initial_share=0.95, train_share=0.25, validation_share=0.15)

_PLACES = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "MODEL_NAME", "MODEL_ALIAS", "MODEL_VERSION", "HEALTH_PREDICT_STORAGE")


@dataclass(frozen=True)
class Place:
    """A store with its registry, as the default settings lay them out: MLflow on SQLite inside the folder."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def storage(self) -> Folder:
        return Folder(str(self.root))

    @property
    def settings(self) -> Settings:
        return Settings(storage=str(self.root), tracking_uri=None)

    @property
    def registry(self) -> Registry:
        settings = self.settings
        return Registry(settings.resolved_tracking_uri, settings.model_name, settings.artifact_root)

    def command(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start `health-predict` as a process of its own on this store."""
        return subprocess.Popen(
            [sys.executable, "-c", "from health_predict.cli import main; main()", *arguments],
            env={**environment_of(self.root), **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def run(self, *arguments: str, timeout: float = 300) -> tuple[int, str, str]:
        """Run `health-predict` as a process to its end: exit code, stdout, stderr."""
        with self.command(*arguments) as process:
            out, err = process.communicate(timeout=timeout)
        return process.returncode, out, err


def environment_of(root: Path) -> dict[str, str]:
    """This environment without the places of other stores, for processes on this one."""
    kept = {name: value for name, value in os.environ.items() if name not in _PLACES}
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


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Invented data, trained by the real command once in a test run, whichever worker needs it first."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    root, output = base / "trained" / "store", base / "trained" / "output.json"
    with (base / "trained.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.exists():
            code, out, err = prepare(root).run(*TRAIN_COMMAND)
            assert code == 0, err
            output.write_text(out.splitlines()[-1])
    return Trained(root, output=json.loads(output.read_text()))


@pytest.fixture
def store(trained: Trained, tmp_path: Path) -> Trained:
    """A copy of the trained store, to be written to. Artifacts of the runs stay where they are, and are only read."""
    root = tmp_path / "store"
    shutil.copytree(trained.root, root, ignore=shutil.ignore_patterns("mlartifacts"))
    return Trained(root, output=trained.output)


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The document on the last line of stdout."""
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture
def health_predict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Result]]:
    """The command line in this process: `health_predict(root, "promote", "--json")`."""
    from health_predict.cli import main

    def run(root: Path, *arguments: str, **environment: str) -> Result:
        for name in _PLACES:
            monkeypatch.delenv(name, raising=False)
        for name, value in {**environment_of(root), **environment}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["health-predict", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    yield run
