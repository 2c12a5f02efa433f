"""MLflow: runs of trainings, and the versions of the registered model. Nothing else imports mlflow.

A registered version is a finished run that holds its preprocessor and its bundle; the aliases `production` and
`previous` point at the version that serves and the one before. The promotion ledger (`ledger.py`) is the authority on
both aliases; a tag of the registered model names that ledger. Only `production.py` moves aliases and tag.

MLflow stores absolute paths of artifacts. Those of a local store are looked up below the store first, so that a store
that was moved still works.
"""

import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

# A server that does not answer is reported within seconds, not after MLflow's default of several minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout is for results

import mlflow
import requests
import sqlalchemy
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from health_predict.adapters.processes import Process, is_gone, machine, this_process
from health_predict.bundle.model import ENCODER, MANIFEST, MODEL, REFERENCE, Bundle, load_bundle
from health_predict.errors import BundleError, TrackingError
from health_predict.store.addresses import without_secrets
from health_predict.store.ledger import Version

PRODUCTION, PREVIOUS = "production", "previous"
PREPROCESSOR = "preprocessor/preprocessor.joblib"
BUNDLE = "bundle"
REQUIRED = (PREPROCESSOR, *(f"{BUNDLE}/{name}" for name in (ENCODER, MODEL, REFERENCE, MANIFEST)))
# Tags of a run: the process that writes it, as `processes.Process`, and its host, for people.
HOST, MACHINE, PID, STARTED = (f"health_predict.{name}" for name in ("host", "machine", "pid", "started"))
EVALUATION = "evaluation.json"
# Tags of the registered model: the ledger with authority on it, as JSON; after the dot, the number of takeovers.
HOLDER = "health_predict.ledger."
SHA256 = "health_predict.bundle_sha256"  # tag of a version: the bundle that was registered

logging.getLogger("mlflow").setLevel(logging.ERROR)
logging.getLogger("alembic").setLevel(logging.ERROR)


class Registry:
    """One MLflow server (or SQLite file), one registered model."""

    def __init__(self, tracking_uri: str, model_name: str, artifact_root: str | None = None):
        """Raises TrackingError when MLflow does not answer.

        `artifact_root` is where new experiments keep their artifacts; None leaves that to the server.
        """
        self.tracking_uri = without_secrets(tracking_uri)  # for messages
        self._tracking_uri = tracking_uri
        self.model_name = model_name
        self._artifact_root = artifact_root
        self._local_root = Path(artifact_root) if artifact_root and "://" not in artifact_root else None
        with self._telling("reach MLflow"):
            mlflow.set_tracking_uri(tracking_uri)
            self._client = MlflowClient(tracking_uri)
            self._client.search_experiments(max_results=1)

    def for_model(self, name: str) -> "Registry":
        """A registry for another registered model of the same MLflow."""
        return Registry(self._tracking_uri, name, self._artifact_root)

    # Runs

    @contextmanager
    def run(self, experiment: str, name: str, tags: Mapping[str, str], parent: str | None = None) -> Iterator[str]:
        """Yield the id of a new MLflow run: finished after the block, failed or killed when the block raises.

        The run is tagged with the process that writes it, for `end_orphans`.
        """
        with self._telling(f"start the run {name}"):
            nested = {"mlflow.parentRunId": parent} if parent else {}
            here = this_process()
            writer = {HOST: socket.gethostname(), MACHINE: here.machine, PID: str(here.pid), STARTED: here.started}
            run = self._client.create_run(
                self._experiment(experiment), run_name=name, tags={**tags, **writer, **nested}
            )
        run_id = str(run.info.run_id)
        try:
            yield run_id
        except BaseException as error:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            with self._telling(f"end the run {name}"):
                self._client.set_terminated(run_id, status)
            raise
        with self._telling(f"end the run {name}"):
            self._client.set_terminated(run_id)

    def log(
        self,
        run_id: str,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        curves: Mapping[str, Sequence[float]] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log in one batch. `curves` are metrics with a value at each step, counted from 1."""
        now = int(time.time() * 1000)
        points = [Metric(name, value, now, 0) for name, value in (metrics or {}).items()]
        for name, values in (curves or {}).items():
            points += [Metric(name, value, now, step) for step, value in enumerate(values, start=1)]
        with self._telling(f"log to the run {run_id}"):
            self._client.log_batch(
                run_id,
                metrics=points,
                params=[Param(name, str(value)) for name, value in (params or {}).items()],
                tags=[RunTag(name, value) for name, value in (tags or {}).items()],
            )

    def log_folder(self, run_id: str, folder: Path, path: str | None = None) -> None:
        """Upload all files of a folder, below `path` of the run's artifacts."""
        with self._telling(f"upload to the run {run_id}"):
            place = self._local_artifacts(run_id)
            if place is None:
                self._client.log_artifacts(run_id, str(folder), path)
            else:
                shutil.copytree(folder, place / (path or ""), dirs_exist_ok=True)

    def finished_runs(self, experiment: str, tags: Mapping[str, str]) -> list[Run]:
        """Finished runs of an experiment that have all the tags, newest first."""
        conditions = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        with self._telling(f"search the experiment {experiment}"):
            found = self._client.get_experiment_by_name(experiment)
            if found is None:
                return []
            query = f"attributes.status = 'FINISHED' and {conditions}"
            return list(self._client.search_runs([found.experiment_id], query, order_by=["start_time DESC"]))

    def end_orphans(self, experiment: str) -> int:
        """Mark running runs as killed whose process has certainly ended; returns their number.

        Runs of another host, container or boot are left alone, as the state of their processes is unknown.
        """
        with self._telling(f"search the experiment {experiment}"):
            found = self._client.get_experiment_by_name(experiment)
            if found is None:
                return 0
            query = f"attributes.status = 'RUNNING' and tags.`{MACHINE}` = '{machine()}'"
            orphans = [
                run for run in self._client.search_runs([found.experiment_id], query) if is_gone(_writer(run.data.tags))
            ]
            for run in orphans:
                self._client.set_terminated(run.info.run_id, "KILLED")
        return len(orphans)

    # Versions

    def register(self, run_id: str, tags: Mapping[str, str]) -> Version:
        """The registered version of a run; registered now unless the run has one.

        Raises BundleError, naming what is missing, when the run lacks its preprocessor or a bundle that verifies, or
        when its bundle is no longer the one that was registered.
        """
        sha256 = self.complete_bundle(run_id).sha256
        with self._telling(f"register the run {run_id}"):
            self._ensure_model({})
            known = self._client.search_model_versions(f"name = '{self.model_name}' and run_id = '{run_id}'")
            if known:
                version = _version(known[0])
                if version.sha256 not in (None, sha256):
                    raise BundleError(f"the run {run_id} holds another bundle than version {version.version} had")
                return version
            source = f"runs:/{run_id}/{BUNDLE}"
            tagged = {**tags, SHA256: sha256}
            return _version(self._client.create_model_version(self.model_name, source, run_id, tags=tagged))

    def complete_bundle(self, run_id: str) -> Bundle:
        """The run's bundle, verified. Raises BundleError when it is invalid, or the run lacks a part of a version."""
        parent = Path(PREPROCESSOR).parent.as_posix()
        held = {path for folder in (BUNDLE, parent) for path in self._artifacts(run_id, folder)}
        missing = [part for part in REQUIRED if part not in held]
        if missing:
            raise BundleError(f"the run {run_id} cannot be registered: it has no {', no '.join(missing)}")
        return self.bundle(run_id)

    def bundle(self, run_id: str) -> Bundle:
        """The run's bundle, verified. Raises BundleError when it is invalid, TrackingError when the run has none."""
        with tempfile.TemporaryDirectory() as folder:
            return load_bundle(self.download(run_id, BUNDLE, Path(folder)))

    def version(self, number: str) -> Version:
        """The version with this number. Raises TrackingError when there is none."""
        with self._telling(f"find version {number} of {self.model_name}"):
            return _version(self._client.get_model_version(self.model_name, number))

    def has_version(self, number: str) -> bool:
        return self.run_of(number) is not None

    def run_of(self, number: str) -> str | None:
        """Id of a version's run; None where there is no such version."""
        with self._telling(f"find version {number} of {self.model_name}"):
            found = self._client.search_model_versions(f"name = '{self.model_name}' and version_number = {number}")
            return str(found[0].run_id) if found else None

    def at(self, alias: str) -> Version | None:
        """The version that an alias points at; None when the alias, or the model, does not exist."""
        with self._telling(f"look up the alias {alias}"):
            try:
                return _version(self._client.get_model_version_by_alias(self.model_name, alias))
            except MlflowException as error:
                # MLflow reports an unset alias as an invalid parameter.
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

    def follow(self, production: str | None, previous: str | None) -> bool:
        """Set both aliases to the ledger's versions; returns whether one of them changed.

        An alias to a version that was deleted in MLflow is removed.
        """
        changed = False
        for alias, number in ((PREVIOUS, previous), (PRODUCTION, production)):
            found = self.at(alias)
            if number is not None and (found is None or found.version != number) and not self.has_version(number):
                number = None  # noqa: PLW2901
            if number is None and found is not None:
                with self._telling(f"remove the alias {alias}"):
                    self._client.delete_registered_model_alias(self.model_name, alias)
                changed = True
            elif number is not None and (found is None or found.version != number):
                with self._telling(f"move the alias {alias} to version {number}"):
                    self._client.set_registered_model_alias(self.model_name, alias, number)
                changed = True
        return changed

    # The ledger with authority on the model

    def holders(self) -> dict[int, str]:
        """Holders as `hold` wrote them, by generation; empty where the model has no holder or does not exist."""
        with self._telling(f"find the model {self.model_name}"):
            try:
                tags = self._client.get_registered_model(self.model_name).tags
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return {}
                raise
        return {int(name.removeprefix(HOLDER)): str(tags[name]) for name in tags if name.startswith(HOLDER)}

    def hold(self, holder: str, generation: int, over: bool) -> None:
        """Write the model's holder for a generation; a generation that has a holder keeps it, unless `over` is true.

        Of several processes that create the model at once, the first holds it.

        MLflow cannot compare and swap. A holder writes only its own generation, and a takeover writes the next one, so
        that a late write of an earlier holder never hides a later holder.
        """
        name = f"{HOLDER}{generation}"
        with self._telling(f"hold the model {self.model_name}"):
            if not self._ensure_model({name: holder}) and (over or generation not in self.holders()):
                self._client.set_registered_model_tag(self.model_name, name, holder)

    # Artifacts

    def download(self, run_id: str, path: str, folder: Path) -> Path:
        """Download the folder `path` of a run's artifacts into `folder`; returns the local path."""
        with self._telling(f"download {path} of the run {run_id}"):
            place = self._local_artifacts(run_id)
            if place and (place / path).is_dir():
                return Path(shutil.copytree(place / path, folder / path, dirs_exist_ok=True))
            return Path(self._client.download_artifacts(run_id, path, str(folder)))

    def holds(self, run_id: str, path: str) -> bool:
        """Whether the run has artifacts below `path`."""
        return bool(self._artifacts(run_id, path))

    def _artifacts(self, run_id: str, path: str) -> list[str]:
        """Paths of the files in one folder of a run's artifacts."""
        with self._telling(f"list the artifacts of the run {run_id}"):
            place = self._local_artifacts(run_id)
            if place and (place / path).is_dir():
                return [file.relative_to(place).as_posix() for file in (place / path).iterdir()]
            return [file.path for file in self._client.list_artifacts(run_id, path)]

    def _local_artifacts(self, run_id: str) -> Path | None:
        """Folder of a run's artifacts in a local store, also after the store was moved; None elsewhere."""
        if self._local_root is None:
            return None
        experiment = self._client.get_experiment(self._client.get_run(run_id).info.experiment_id)
        return self._local_root / str(experiment.name) / run_id / "artifacts"

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = f"{self._artifact_root}/{name}" if self._artifact_root else None
        with _unless_there():
            self._client.create_experiment(name, artifact_location=location)
        return str(self._client.get_experiment_by_name(name).experiment_id)

    def _ensure_model(self, tags: Mapping[str, str]) -> bool:
        """Create the registered model with these tags unless it exists; returns whether it was created."""
        try:
            self._client.create_registered_model(
                self.model_name,
                tags=dict(tags),
                description="Risk of readmission within 30 days of patients with diabetes.",
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return False
        return True

    @contextmanager
    def _telling(self, action: str) -> Iterator[None]:
        try:
            yield
        except (  # ImportError: the driver for the address's database is not installed
            MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError, OSError, ImportError
        ) as error:  # fmt: skip
            said = without_secrets(str(error)).strip() or type(error).__name__
            reason = said.splitlines()[0][:300]
            raise TrackingError(
                f"cannot {action} (MLflow at {self.tracking_uri}): {reason}. Is the server running? "
                "MLFLOW_TRACKING_URI says where it is; unset, a SQLite file below the storage root is used."
            ) from error


def _writer(tags: Mapping[str, str]) -> Process:
    return Process(tags[MACHINE], int(tags[PID]), tags.get(STARTED, ""))


def _version(found: ModelVersion) -> Version:
    return Version(str(found.name), str(found.version), str(found.run_id), found.tags.get(SHA256))


@contextmanager
def _unless_there() -> Iterator[None]:
    """Ignore the error that the thing to be created exists: another process has created it meanwhile."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
