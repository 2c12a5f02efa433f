"""A worker as a process, with a bundle trained on invented data."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

import factories
from health_predict.bundle.export import Provenance, export
from health_predict.data.cohort import label, select_cohort
from health_predict.data.schema import CLINICAL
from health_predict.data.splits import split
from health_predict.params import BundleParams, Params, PreprocessorParams, SearchParams, SplitParams
from health_predict.serving import command
from health_predict.serving.core.service import Journal, Service
from health_predict.serving.http.api import metrics_route, probe_routes, public_routes, with_document
from health_predict.serving.http.gateway import Gateway, Limits
from health_predict.serving.journal.log import Log
from health_predict.serving.journal.metrics import ServingMetrics
from health_predict.training.candidates import CANDIDATES
from health_predict.training.fit import fit, prepare

EXAMPLE: Mapping[str, Any] = {field.name: field.example for field in CLINICAL if field.required}
CLINICAL_NAMES = tuple(field.name for field in CLINICAL)


def export_bundle(folder: Path, seed: int = 71) -> Path:
    """LightGBM on 2,000 invented encounters: other seeds give other models."""
    splits = split(select_cohort(factories.encounters(2_000, seed=seed)), SplitParams(initial_share=0.95))
    train, validation = label(splits.train, "lt30"), label(splits.validation, "lt30")
    candidate = CANDIDATES["lightgbm"]
    prepared = prepare(candidate.encoding, train, validation, PreprocessorParams())
    fitted = fit("lightgbm", candidate.default(len(train.outcomes)), prepared, SearchParams(), BundleParams.capacity)
    provenance = Provenance(
        "run", "initial", "lt30", (), synthetic=True, simulation=None, git_revision="unknown", seed=seed
    )
    export(folder, fitted, train, validation, {}, provenance, Params())
    return folder


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Worker:
    """A running worker."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, output: Path):
        self.process, self.port, self._output = process, port, output
        self.url = f"http://127.0.0.1:{port}"

    def wait_for_answer(self, path: str = "/livez") -> httpx.Response:
        """The first answer of any status."""
        until = time.monotonic() + 30
        while time.monotonic() < until and self.process.poll() is None:
            try:
                return httpx.get(self.url + path)
            except httpx.TransportError:
                time.sleep(0.02)
        raise AssertionError(f"the worker does not answer: {self._output.read_text()}")

    def wait_for_status(self, *statuses: str) -> dict[str, Any]:
        """What /health says once it says one of these."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            health = dict(self.wait_for_answer("/health").json())
            if health["status"] in statuses:
                return health
            time.sleep(0.02)
        raise AssertionError(f"the worker is {health['status']}: {health['reason']}")

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """Exit code."""
        self.process.terminate()
        return self.process.wait(timeout=30)

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.splitlines()]


@contextmanager
def running(bundle: Path, scratch: Path, host: str = "127.0.0.1", **settings: str) -> Iterator[Worker]:
    """A worker on a free port that does not drain for long; `settings` are HEALTH_PREDICT_ variables."""
    settings = {"drain_seconds": "0", **settings}
    port, output = free_port(), scratch / f"worker-{time.monotonic_ns()}.log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEALTH_PREDICT_")}
    environment = {**kept, **{f"HEALTH_PREDICT_{name.upper()}": value for name, value in settings.items()}}
    with output.open("wb") as sink:
        process = subprocess.Popen(command(bundle, host, port), env=environment, stdout=sink, stderr=sink)
    try:
        yield Worker(process, port, output)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=30)


class InProcess:
    """A gateway without sockets or a process of its own: a thousand requests a second for tests that guess."""

    def __init__(self, bundle: Path, log: Log):
        self.metrics = ServingMetrics()
        service = Service(bundle, self.metrics, log, Journal(), batch_limit=1000, encounter_limit=64 * 1024)
        routes = [*public_routes(service, 64 * 1024, 4 * 1024 * 1024), *probe_routes(service)]
        routes = with_document([*routes, metrics_route(service, needs_key=True)])
        self._gateway = Gateway(service, routes, {}, Limits(concurrency=8, seconds=60), ())
        self._runner = asyncio.Runner()
        self._runner.run(service.reload())

    def ask(self, method: str, path: str, body: bytes = b"", headers: tuple[tuple[bytes, bytes], ...] = ()) -> Any:
        """Status and JSON of the answer; text where it is not JSON."""
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
            "root_path": "", "headers": list(headers), "http_version": "1.1", "scheme": "http",
        }  # fmt: skip
        self._runner.run(self._gateway(scope, receive, send))
        start, content = sent
        kind = dict(start["headers"])[b"content-type"]
        found = content["body"]
        return start["status"], json.loads(found) if kind == b"application/json" else found.decode()

    def close(self) -> None:
        self._runner.close()
