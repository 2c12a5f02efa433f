"""MLflow: runs of trainings, and the versions of the registered model. Nothing else imports mlflow.

A registered version is a finished run that holds its preprocessor and its bundle; the aliases `production` and
`previous` say which version serves. The promotion ledger (`ledger.py`) is the authority on them: `follow` makes the
aliases say what the ledger says, so a promotion that was interrupted between the two is completed by the next one.
"""

import hashlib
import json
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

# A server that does not answer is reported within seconds, not after MLflow's default of several minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
import requests
import sqlalchemy
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from health_predict.errors import BundleError, StorageError, TrackingError
from health_predict.io.bundle import ENCODER, MANIFEST, MODEL, REFERENCE, load_bundle
from health_predict.io.processes import Process, is_gone, machine, this_process

PRODUCTION, PREVIOUS = "production", "previous"
PREPROCESSOR = "preprocessor/preprocessor.joblib"
BUNDLE = "bundle"
REQUIRED = (PREPROCESSOR, *(f"{BUNDLE}/{name}" for name in (ENCODER, MODEL, REFERENCE, MANIFEST)))
VERSION_FILE = "version.json"
# Tags of a run: the process that writes it, as `processes.Process`, and where that is, for people.
HOST, MACHINE, PID, STARTED = (f"health_predict.{name}" for name in ("host", "machine", "pid", "started"))
EVALUATION = "evaluation.json"
SHA256 = "health_predict.bundle_sha256"  # tag of a version: the bundle that was registered

logging.getLogger("mlflow").setLevel(logging.ERROR)
logging.getLogger("alembic").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Version:
    """One version of the registered model. `sha256` is its bundle's; None where it was registered without."""

    name: str
    version: str
    run_id: str
    sha256: str | None = None


class Registry:
    """One MLflow server (or SQLite file), one registered model."""

    def __init__(self, tracking_uri: str, model_name: str, artifact_root: str | None = None):
        """Raises TrackingError when MLflow does not answer.

        `artifact_root` is where new experiments keep their artifacts; None leaves that to the server.
        """
        self.tracking_uri = tracking_uri
        self.model_name = model_name
        self._artifact_root = artifact_root
        with self._telling("reach MLflow"):
            mlflow.set_tracking_uri(tracking_uri)
            self._client = MlflowClient(tracking_uri)
            self._client.search_experiments(max_results=1)

    # Runs

    @contextmanager
    def run(self, experiment: str, name: str, tags: Mapping[str, str], parent: str | None = None) -> Iterator[str]:
        """A run around the block, yielded as its id: finished after it, failed or killed when it raises.

        It says which process writes it, for `end_orphans`.
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
            self._client.log_artifacts(run_id, str(folder), path)

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
        """Mark runs as killed whose process is gone for certain; returns how many.

        Of another host, container or boot nothing is known, so runs from there are left alone.
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
        """The version of a run; made now unless the run has one.

        Raises BundleError, naming what is missing, when the run does not hold its preprocessor and a bundle that
        verifies, or when its bundle is no longer the one that was registered.
        """
        sha256 = self.check_complete(run_id)
        with self._telling(f"register the run {run_id}"):
            self._ensure_model()
            known = self._client.search_model_versions(f"name = '{self.model_name}' and run_id = '{run_id}'")
            if known:
                version = _version(known[0])
                if version.sha256 not in (None, sha256):
                    raise BundleError(f"the run {run_id} holds another bundle than version {version.version} had")
                return version
            source = f"runs:/{run_id}/{BUNDLE}"
            tagged = {**tags, SHA256: sha256}
            return _version(self._client.create_model_version(self.model_name, source, run_id, tags=tagged))

    def check_complete(self, run_id: str) -> str:
        """SHA-256 of the run's bundle. Raises BundleError when the run lacks a part that a version needs, or its
        bundle does not verify."""
        with self._telling(f"list the artifacts of the run {run_id}"):
            held = {
                file.path
                for folder in (BUNDLE, Path(PREPROCESSOR).parent.as_posix())
                for file in self._client.list_artifacts(run_id, folder)
            }
        missing = [part for part in REQUIRED if part not in held]
        if missing:
            raise BundleError(f"the run {run_id} cannot be registered: it has no {', no '.join(missing)}")
        with tempfile.TemporaryDirectory() as folder:
            return load_bundle(self.download(run_id, BUNDLE, Path(folder))).sha256

    def version(self, number: str) -> Version:
        """Raises TrackingError when there is no such version."""
        with self._telling(f"find version {number} of {self.model_name}"):
            return _version(self._client.get_model_version(self.model_name, number))

    def at(self, alias: str) -> Version | None:
        """The version that an alias points at; None when the alias, or the model, does not exist."""
        with self._telling(f"look up the alias {alias}"):
            try:
                return _version(self._client.get_model_version_by_alias(self.model_name, alias))
            except MlflowException as error:
                # An unset alias is reported as an invalid parameter.
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

    def follow(self, production: str | None, previous: str | None) -> bool:
        """Make the aliases say what the ledger says; returns whether anything had to change."""
        changed = False
        for alias, number in ((PREVIOUS, previous), (PRODUCTION, production)):
            found = self.at(alias)
            if number is None and found is not None:
                with self._telling(f"remove the alias {alias}"):
                    self._client.delete_registered_model_alias(self.model_name, alias)
                changed = True
            elif number is not None and (found is None or found.version != number):
                with self._telling(f"move the alias {alias} to version {number}"):
                    self._client.set_registered_model_alias(self.model_name, alias, number)
                changed = True
        return changed

    # Bundles

    def download(self, run_id: str, path: str, folder: Path) -> Path:
        """Download one folder of a run's artifacts into `folder`; returns where it is."""
        with self._telling(f"download {path} of the run {run_id}"):
            return Path(self._client.download_artifacts(run_id, path, str(folder)))

    def fetch_bundle(self, version: Version, cache: Path) -> Path:
        """As `download_bundle`, and verified. BundleError when what came is not the bundle that was registered."""
        place = self.download_bundle(version, cache)
        if version.sha256 not in (None, load_bundle(place).sha256):
            raise BundleError(f"the bundle of version {version.version} is not the one that was registered")
        return place

    def download_bundle(self, version: Version, cache: Path) -> Path:
        """The folder of a version's bundle as the registry has it: downloaded once, and again when it is not whole.

        Beside the bundle lie `version.json` with the version's name, number, run and digests, and `evaluation.json`
        where the run was evaluated. Raises TrackingError when the download fails, which leaves what there was, and
        StorageError when the cache cannot be written.
        """
        place = cache / version.name / version.run_id
        if _is_whole(place, version):
            return place
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place.parent, prefix=".") as folder:
                downloaded = self._download_version(version, Path(folder))
                if place.exists():
                    place.rename(Path(folder) / "before")
                downloaded.rename(place)
        except OSError as error:
            if not _is_whole(place, version):  # else another process was faster
                raise StorageError(f"the cache {cache} cannot be written: {error.strerror}") from error
        return place

    def _download_version(self, version: Version, folder: Path) -> Path:
        bundle = self.download(version.run_id, BUNDLE, folder)
        described = asdict(version)
        if self._holds(version.run_id, Path(EVALUATION).stem):
            evaluation = self.download(version.run_id, Path(EVALUATION).stem, folder)
            (evaluation / EVALUATION).rename(bundle / EVALUATION)
            described["evaluation_sha256"] = _sha256(bundle / EVALUATION)
        (bundle / VERSION_FILE).write_text(json.dumps(described) + "\n")
        return bundle

    def _holds(self, run_id: str, path: str) -> bool:
        with self._telling(f"list the artifacts of the run {run_id}"):
            return bool(self._client.list_artifacts(run_id, path))

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = f"{self._artifact_root}/{name}" if self._artifact_root else None
        with _unless_there():
            self._client.create_experiment(name, artifact_location=location)
        return str(self._client.get_experiment_by_name(name).experiment_id)

    def _ensure_model(self) -> None:
        try:
            self._client.get_registered_model(self.model_name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            with _unless_there():
                self._client.create_registered_model(
                    self.model_name, description="Risk of readmission within 30 days of patients with diabetes."
                )

    @contextmanager
    def _telling(self, action: str) -> Iterator[None]:
        try:
            yield
        except (MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
            reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
            raise TrackingError(
                f"cannot {action} (MLflow at {self.tracking_uri}): {reason}. Is the server running? "
                "MLFLOW_TRACKING_URI says where it is; unset, a SQLite file below the storage root is used."
            ) from error


def _writer(tags: Mapping[str, str]) -> Process:
    return Process(tags[MACHINE], int(tags[PID]), tags.get(STARTED, ""))


def _version(found: ModelVersion) -> Version:
    return Version(str(found.name), str(found.version), str(found.run_id), found.tags.get(SHA256))


def _is_whole(place: Path, version: Version) -> bool:
    """Is this the version's bundle, with every file as it was when it was downloaded."""
    try:
        described = json.loads((place / VERSION_FILE).read_bytes())
        evaluation = described.pop("evaluation_sha256", None)
        return (
            described == asdict(version)
            and version.sha256 in (None, load_bundle(place).sha256)
            and (evaluation is None or _sha256(place / EVALUATION) == evaluation)
        )
    except (BundleError, OSError, ValueError):
        return False


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def _unless_there() -> Iterator[None]:
    """What another process has made since this one looked is as good."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
