"""MLflow's client on dictionaries: what the registry's code asks of it, with the same errors."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
)
from simulated import Simulation

_TAG = re.compile(r"tags\.`([^`]+)` = '([^']*)'")
_STATUS = re.compile(r"attributes\.status = '(\w+)'")


@dataclass
class Run:
    name: str
    experiment: str
    tags: dict[str, str]
    status: str = "RUNNING"
    logged: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)

    def shown(self, run_id: str) -> SimpleNamespace:
        info = SimpleNamespace(run_id=run_id, experiment_id=self.experiment, status=self.status)
        return SimpleNamespace(info=info, data=SimpleNamespace(tags=dict(self.tags)))


@dataclass
class Database:
    """Everything that a server keeps."""

    experiments: set[str] = field(default_factory=set)
    runs: dict[str, Run] = field(default_factory=dict)
    models: dict[str, dict[str, str]] = field(default_factory=dict)  # tags by name
    versions: list[SimpleNamespace] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)

    def copy(self) -> "Database":
        return deepcopy(self)


class Client:
    """`MlflowClient` for one registered model."""

    def __init__(self, simulation: Simulation, database: Database):
        self._simulation, self._database = simulation, database

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        if name.startswith("_") or name == "search_experiments":  # asked under the lock of Workspace.registry
            return method
        access = super().__getattribute__("_simulation").access
        return lambda *values, **named: access(name, lambda: method(*values, **named), _unavailable)

    def search_experiments(self, max_results: int) -> list[str]:
        return []

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        return SimpleNamespace(experiment_id=name, name=name) if name in self._database.experiments else None

    def create_experiment(self, name: str, artifact_location: str | None = None) -> None:
        if name in self._database.experiments:
            raise MlflowException("it is there", RESOURCE_ALREADY_EXISTS)
        self._database.experiments.add(name)

    def create_run(self, experiment: str, run_name: str, tags: Mapping[str, str]) -> SimpleNamespace:
        run_id = f"run{len(self._database.runs) + 1:04d}"
        self._database.runs[run_id] = Run(run_name, experiment, dict(tags))
        return self._database.runs[run_id].shown(run_id)

    def set_terminated(self, run_id: str, status: str = "FINISHED") -> None:
        self._database.runs[run_id].status = status

    def log_batch(self, run_id: str, metrics: Sequence[Any], params: Sequence[Any], tags: Sequence[Any]) -> None:
        run = self._database.runs[run_id]
        run.logged |= {one.key: one.value for one in (*metrics, *params)}
        run.tags |= {one.key: one.value for one in tags}

    def log_artifacts(self, run_id: str, folder: str, path: Any = None) -> None:
        root = Path(folder)
        for file in (one for one in root.rglob("*") if one.is_file()):
            name = (Path(path or "") / file.relative_to(root)).as_posix()
            self._database.runs[run_id].artifacts[name] = file.read_bytes()

    def list_artifacts(self, run_id: str, path: str) -> list[SimpleNamespace]:
        names = self._database.runs[run_id].artifacts
        return [SimpleNamespace(path=name) for name in names if Path(name).parent.as_posix() == path]

    def download_artifacts(self, run_id: str, path: str, folder: str) -> str:
        found = {name: data for name, data in self._database.runs[run_id].artifacts.items() if name.startswith(path)}
        if not found:
            raise MlflowException("no such artifact", RESOURCE_DOES_NOT_EXIST)
        for name, data in found.items():
            file = Path(folder) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return str(Path(folder) / path)

    def search_runs(self, experiments: Sequence[str], query: str, order_by: Any = None) -> list[SimpleNamespace]:
        tags, status = dict(_TAG.findall(query)), _STATUS.search(query)
        return [
            run.shown(run_id)
            for run_id, run in reversed(self._database.runs.items())
            if run.experiment in experiments
            and tags.items() <= run.tags.items()
            and (status is None or run.status == status[1])
        ]

    def create_registered_model(self, name: str, tags: Mapping[str, str], description: str) -> None:
        if name in self._database.models:
            raise MlflowException("it is there", RESOURCE_ALREADY_EXISTS)
        self._database.models[name] = dict(tags)

    def get_registered_model(self, name: str) -> SimpleNamespace:
        if name not in self._database.models:
            raise MlflowException("no such model", RESOURCE_DOES_NOT_EXIST)
        return SimpleNamespace(tags=dict(self._database.models[name]))

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        self._database.models[name][key] = value

    def create_model_version(self, name: str, source: str, run_id: str, tags: Mapping[str, str]) -> SimpleNamespace:
        number = str(len(self._database.versions) + 1)
        self._database.versions.append(SimpleNamespace(name=name, version=number, run_id=run_id, tags=dict(tags)))
        return self._database.versions[-1]

    def search_model_versions(self, query: str) -> list[SimpleNamespace]:
        run, number = re.search(r"run_id = '([^']+)'", query), re.search(r"version_number = (\d+)", query)
        return [
            one
            for one in self._database.versions
            if (run is None or one.run_id == run[1]) and (number is None or one.version == number[1])
        ]

    def get_model_version(self, _name: str, number: str) -> SimpleNamespace:
        return self._numbered(number)

    def _numbered(self, number: str) -> SimpleNamespace:
        found = [one for one in self._database.versions if one.version == number]
        if not found:
            raise MlflowException("no such version", RESOURCE_DOES_NOT_EXIST)
        return found[0]

    def get_model_version_by_alias(self, _name: str, alias: str) -> SimpleNamespace:
        if alias not in self._database.aliases:
            raise MlflowException("no such alias", INVALID_PARAMETER_VALUE)
        return self._numbered(self._database.aliases[alias])

    def set_registered_model_alias(self, _name: str, alias: str, number: str) -> None:
        self._database.aliases[alias] = number

    def delete_registered_model_alias(self, _name: str, alias: str) -> None:
        self._database.aliases.pop(alias, None)


def _unavailable(said: str) -> MlflowException:
    return MlflowException(said, INTERNAL_ERROR)
