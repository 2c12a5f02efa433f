"""Places and secrets, from the environment: the only module that reads it.

Everything has a default that works on a laptop. Choices that shape a result are in `params.py`.
"""

import getpass
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from health_predict.data.schema import DISCHARGED_ON
from health_predict.errors import ServiceError
from health_predict.store.addresses import without_secrets

DATASET_URL = "https://archive.ics.uci.edu/static/public/296/diabetes+130-us+hospitals+for+years+1999-2008.zip"
ACTOR_LENGTH = 200  # characters


class _Environment(BaseSettings):
    """Settings whose errors name the variable, and never show its value."""

    model_config = SettingsConfigDict(env_prefix="HEALTH_PREDICT_", populate_by_name=True)

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            told = [f"{self._variable(one['loc'][0])} is not valid: {one['msg']}" for one in error.errors()]
            raise ServiceError("; ".join(told)) from None

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Without secrets: this may be in a traceback."""
        for name, value in super().__repr_args__():
            yield name, without_secrets(value) if isinstance(value, str) else value

    @field_validator("*", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("it is not UTF-8; is it a file name from another system? rename the file")
        return value

    @classmethod
    def _variable(cls, name: str | int) -> str:
        return f"{cls.model_config['env_prefix']}{name}".upper() if name in cls.model_fields else str(name)


def _actor() -> str:
    """Who runs this process, such as `ana@ward-7`: a name for every user id, also one that no user list has."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # no such user, as is usual in containers
        name = f"uid-{os.getuid()}"
    try:
        host = socket.gethostname()
    except OSError:
        host = ""
    told = f"{name}@{host or 'unknown-host'}"
    return "".join(letter if letter.isprintable() else "?" for letter in told)[:ACTOR_LENGTH]


def _cache() -> Path:
    """In the user's home, or in the current folder for a user who has none."""
    try:
        home = Path.home()
    except RuntimeError:
        home = Path()
    return home / ".cache" / "health-predict"


class Settings(_Environment):
    """Built once by an entry point; everything below receives values, not settings."""

    storage: str = Field("health-predict-data", description="Storage root: a folder, or s3://bucket/prefix.")
    raw_data: str | None = Field(
        None,
        description="The dataset as a zip or CSV file, local or s3://. If unset, `data fetch` downloads it from UCI.",
    )
    dataset_url: str = Field(DATASET_URL, description="URL from which `data fetch` downloads the dataset.")
    tracking_uri: str | None = Field(
        None,
        validation_alias=AliasChoices("MLFLOW_TRACKING_URI", "tracking_uri"),
        description="Address of an MLflow server. If unset, MLflow uses a SQLite file in the storage root "
        "(./mlflow.db for s3://).",
    )
    ray_address: str | None = Field(
        None,
        validation_alias=AliasChoices("RAY_ADDRESS", "ray_address"),
        description="Address of a Ray cluster for tuning. If unset, `train` starts one on this machine and "
        "stops it afterwards.",
    )
    s3_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "s3_endpoint"),
        description="Endpoint of S3-compatible storage other than AWS.",
    )
    model_name: str = Field(
        "HealthPredict",
        validation_alias=AliasChoices("MODEL_NAME", "model_name"),
        description="Name of the registered model in MLflow.",
    )
    model_alias: str = Field(
        "production",
        validation_alias=AliasChoices("MODEL_ALIAS", "model_alias"),
        description="Alias of the version that `serve` and `predict` use if `MODEL_VERSION` is unset.",
    )
    model_version: str | None = Field(
        None,
        validation_alias=AliasChoices("MODEL_VERSION", "model_version"),
        description="Version that `serve` and `predict` use, instead of the alias.",
    )
    cache: Path = Field(
        default_factory=_cache,
        description="Folder for downloaded bundles; below the current folder if the user has no home folder.",
    )
    discharge_column: str = Field(
        DISCHARGED_ON,
        min_length=1,
        description="Name of the column with the day of discharge in your files of encounters. Never a feature.",
    )
    actor: str = Field(
        default_factory=_actor,
        max_length=ACTOR_LENGTH,
        description="Name in the ledger of who decides: a person, or a service account and its task.",
    )

    @field_validator("ray_address")
    @classmethod
    def _names_a_cluster(cls, address: str | None) -> str | None:
        return None if address in ("", "local") else address  # as Ray means it: a cluster of its own

    @field_validator("actor")
    @classmethod
    def _printable(cls, actor: str) -> str:
        if not actor.isprintable():  # a line break would forge a line of a log
            raise ValueError("it has characters that cannot be printed")
        return without_secrets(actor.strip()) or _actor()

    @model_validator(mode="after")
    def _mlflow_can_be_there(self) -> "Settings":
        """MLflow takes paths apart as it does addresses."""
        odd = [letter for letter in "%?#" if letter in str(Path(self.storage).absolute())]
        if self.is_local and self.artifact_root and odd:
            raise ServiceError(
                f"HEALTH_PREDICT_STORAGE is not valid: MLflow can keep nothing in a folder with {odd[0]} in its path; "
                "rename the folder, or set MLFLOW_TRACKING_URI to an MLflow server"
            )
        return self

    @property
    def is_local(self) -> bool:
        """Whether the storage root is a folder."""
        return "://" not in self.storage

    @property
    def resolved_tracking_uri(self) -> str:
        """The MLflow server, or a SQLite file: inside a local storage root, else in the current folder."""
        if self.tracking_uri:
            return self.tracking_uri
        folder = Path(self.storage) if self.is_local else Path()
        return f"sqlite:///{(folder / 'mlflow.db').absolute()}"

    @property
    def has_no_registry(self) -> bool:
        """Is MLflow a SQLite file that nothing was written to yet. Only what writes makes it."""
        return not self.tracking_uri and not Path(self.resolved_tracking_uri.removeprefix("sqlite:///")).exists()

    @property
    def artifact_root(self) -> str | None:
        """Where runs keep their artifacts when there is no MLflow server to decide it."""
        if self.tracking_uri and not self.tracking_uri.startswith("sqlite"):
            return None
        root = str(Path(self.storage).absolute()) if self.is_local else self.storage.rstrip("/")
        return f"{root}/mlartifacts"


class ServingSettings(_Environment):
    """What a worker of the prediction service needs beside its bundle, host and port."""

    api_keys: str | None = Field(
        None, description="Callers and key digests, as `name:sha256`, separated by commas or white space."
    )
    api_keys_file: Path | None = Field(
        None, description="File with callers and key digests; lines beginning with # are comments."
    )
    open_access: bool = Field(
        False, description="Accept requests without an API key on an address other than loopback."
    )
    metrics_open: bool = Field(False, description="Answer /metrics without an API key on the public port.")
    probe_port: int | None = Field(
        None, description="Second port for /metrics and probes, without API keys. The public port then has no /metrics."
    )
    concurrency: int = Field(
        256, ge=1, description="Requests handled at the same time; further requests get 503 at once."
    )
    connections: int = Field(
        512, ge=1, description="Open connections at the same time; further connections get 503 and are closed."
    )
    request_timeout: float = Field(
        10.0,
        gt=0,
        description="Seconds to receive the head of a request, to complete a request, and to keep a connection "
        "without a request.",
    )
    body_limit: int = Field(64 * 1024, ge=1024, description="Largest body of a request to /predict or /explain, bytes.")
    batch_body_limit: int = Field(
        4 * 1024 * 1024, ge=1024, description="Largest body of a request to /predict/batch, bytes."
    )
    batch_limit: int = Field(1000, ge=1, description="Most encounters in one request to /predict/batch.")
    drain_seconds: float = Field(
        10.0,
        ge=0,
        description="Seconds after SIGTERM in which /readyz returns 503 and requests are still answered; 10 s "
        "lets a load balancer that probes every 5 s probe twice.",
    )
    audit_log: Path | None = Field(
        None, description="File of the append-only audit log. If unset, no audit log is written."
    )
    audit_log_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1024,
        description="Size at which a file of the audit log is closed and the next one begins, bytes.",
    )
    prediction_log: str | None = Field(
        None,
        description="Storage root (a folder or s3://) of the prediction log. If unset, scored encounters are not kept.",
    )
    prediction_log_key: SecretStr | None = Field(
        None,
        description="Secret of at least 16 characters that pseudonymises patient and encounter numbers. "
        "Required with `HEALTH_PREDICT_PREDICTION_LOG`.",
    )


def environment_without(kind: type[BaseSettings]) -> dict[str, str]:
    """This process's environment, for another process, without the variables that `kind` reads by its prefix."""
    prefix = str(kind.model_config.get("env_prefix", ""))
    read = {f"{prefix}{name}".upper() for name in kind.model_fields}
    return {name: value for name, value in os.environ.items() if name.upper() not in read}
