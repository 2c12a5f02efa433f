"""One trained store for the whole test run, and the command line as a function."""

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from stores import PLACES, TRAIN_COMMAND, Trained, environment_of, prepare

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that none of them is left when the other workers have nothing more to do.

    Of these, the ones in `stateful` and `properties` take longest.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    first = sorted(slow, key=lambda path: (path.parent.name not in ("stateful", "properties"), path))
    place = {path: number for number, path in enumerate(first)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Invented data, trained by the real command once in a test run, whichever worker needs it first.

    TEST_STORES names a folder where runs that follow each other share it (`make mutate`).
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    base = Path(os.environ.get("TEST_STORES", base))
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
def health_predict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """The command line in this process: `health_predict(root, "promote", "--json")`."""
    from health_predict.cli import main

    def run(root: Path, *arguments: str, **environment: str) -> Result:
        for name in PLACES:
            monkeypatch.delenv(name, raising=False)
        for name, value in {**environment_of(root), **environment}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["health-predict", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    return run
