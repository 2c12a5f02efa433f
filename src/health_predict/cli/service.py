"""Runs an API process during a `with` block: scores encounters over HTTP and switches to newly promoted versions."""

import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl

from health_predict.cli.serve import point
from health_predict.data.schema import CLINICAL
from health_predict.errors import ServiceError
from health_predict.serving import command
from health_predict.settings import ServingSettings, environment_without
from health_predict.steps.loop.score import BatchScores

START_SECONDS = 60.0
END_SECONDS = 20.0  # to answer what was asked, before it is killed
AT_ONCE = 500  # encounters in one request; about 600 kB


@dataclass(frozen=True)
class RunningApi:
    """An API process that is ready. `link` is the symbolic link to the folder of the bundle that it serves."""

    address: str
    link: Path
    process: "subprocess.Popen[bytes]"

    def ask(self, encounters: pl.DataFrame) -> BatchScores:
        """Probabilities from `/predict/batch`. ServiceError if an encounter is refused or the version changes."""
        rows = encounters.select(field.name for field in CLINICAL).to_dicts()
        probability: list[float] = []
        versions: set[str] = set()
        with httpx.Client(base_url=self.address, timeout=START_SECONDS) as client:
            for start in range(0, len(rows), AT_ONCE):
                answer = _answered(client, "/predict/batch", rows[start : start + AT_ONCE])
                if answer["refused"]:
                    raise ServiceError(f"the API refused {answer['refused']} of {AT_ONCE} encounters of the batch")
                probability += [one["probability_score"] for one in answer["predictions"]]
                versions.add(answer["model_version"])
        if len(versions) != 1:
            raise ServiceError(f"the API answered one batch with the versions {', '.join(sorted(versions))}")
        return BatchScores(np.array(probability), versions.pop())

    def take_up(self, folder: Path, version: str, encounter: dict[str, Any]) -> int:
        """Switch to the bundle of a version; returns the number of requests answered until the version answers.

        Returns 0 if the API serves the version already, because it was started after the promotion. Raises ServiceError
        if a request fails or the version does not answer within START_SECONDS.
        """
        if self._health()["model_version"] == version:
            return 0
        answered = 0
        point(self.link, folder)
        self.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + START_SECONDS
        with httpx.Client(base_url=self.address, timeout=10) as client:
            while time.monotonic() < end:
                found = _answered(client, "/predict", encounter)["model_version"]
                answered += 1
                if found == version:
                    return answered
        health = self._health()
        raise ServiceError(
            f"the API at {self.address} answers with version {health['model_version']}, not {version}: "
            f"{health['last_reload']}"
        )

    def _health(self) -> Any:
        with httpx.Client(base_url=self.address, timeout=10) as client:
            return _answered(client, "/health")


@contextmanager
def service(folder: Path) -> Iterator[RunningApi]:
    """Start an API process on a free port and end it after the block. Raises ServiceError if it does not start.

    The process ignores the environment's `ServingSettings`: it requires no API key and writes neither audit log nor
    prediction log.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as scratch:
        link = Path(scratch) / "in-service"
        point(link, folder)
        environment = {**environment_without(ServingSettings), "HEALTH_PREDICT_DRAIN_SECONDS": "0"}  # no load balancer
        process = subprocess.Popen(  # noqa: S603
            command(link, port=port), stdout=log, stderr=subprocess.STDOUT, env=environment
        )
        try:
            _wait_until_healthy(address, process, log)
            yield RunningApi(address, link, process)
        finally:
            end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End the process: SIGTERM, and SIGKILL after END_SECONDS or if this process is interrupted."""
    try:
        process.terminate()
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.kill()  # nothing happens where it has ended
        process.wait()


def _answered(client: httpx.Client, path: str, body: Any = None) -> Any:
    """The JSON response to GET or, with a body, POST. ServiceError without a response of status 2xx."""
    try:
        response = client.get(path) if body is None else client.post(path, json=body)
    except httpx.TransportError as error:
        raise ServiceError(f"the API does not answer to {path}: {type(error).__name__}") from error
    if not response.is_success:
        raise ServiceError(f"the API answered {response.status_code} to {path}")
    return response.json()


def _wait_until_healthy(address: str, process: "subprocess.Popen[bytes]", log: Any) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{address}/health", timeout=5).is_success:
                return
        except httpx.TransportError:  # not listening yet
            pass
        time.sleep(0.1)
    log.seek(0)
    said = log.read()[-2000:].decode(errors="replace")
    raise ServiceError(f"the API at {address} did not become healthy within {START_SECONDS:.0f} s; it said:\n{said}")
