"""Runs a worker: sockets, signals, start and stop."""

import asyncio
import contextlib
import importlib.util
import ipaddress
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
import uvloop

from health_predict.errors import ServiceError
from health_predict.io.audit import AuditLog
from health_predict.io.predictions import PredictionLog
from health_predict.io.storage import open_storage
from health_predict.serving.app import Endpoints, build_app, build_probe_app
from health_predict.serving.gateway import DOCUMENTS, PROBES, Access, Gateway, Limits
from health_predict.serving.keys import load_keys
from health_predict.serving.log import Log
from health_predict.serving.metrics import Metrics
from health_predict.serving.service import Journal, Service
from health_predict.settings import ServingSettings

ROUTES = PROBES | DOCUMENTS | {"/predict", "/predict/batch", "/explain", "/model", "/metrics"}
STDOUT = 1
LAST_ANSWERS = 5.0  # seconds; what is open then is idle


@dataclass(frozen=True)
class Listen:
    host: str
    port: int


class _Server(uvicorn.Server):
    """A server that leaves the signals to `serve`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    @property
    def waiting(self) -> "set[asyncio.Task[None]]":
        return self.server_state.tasks


def run(bundle: Path, listen: Listen, settings: ServingSettings, endpoints: type[Endpoints] = Endpoints) -> None:
    """Serve the bundle until SIGTERM or SIGINT. SIGHUP takes up what the folder, or link, holds then.

    Raises ServiceError when the settings do not allow a start or the port is taken, StorageError or DataError when
    the audit log cannot be used. A bundle that does not verify does not end the worker: it is not ready, says why in
    /health, and tries again on SIGHUP.
    """
    log = Log(STDOUT)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(bundle, listen, settings, log, endpoints))
    finally:
        log.close()


async def serve(
    bundle: Path, listen: Listen, settings: ServingSettings, log: Log, kind: type[Endpoints] = Endpoints
) -> None:
    """As `run`, inside a running loop."""
    keys = _keys(listen, settings)
    metrics = Metrics()
    service = Service(bundle, metrics, log, _journal(settings, log, metrics), settings.batch_limit, settings.body_limit)
    metrics.count("log_dropped", "Lines of the log that could not be written", lambda: log.dropped)
    with_metrics = settings.probe_port is None
    endpoints = kind(service, settings.body_limit, settings.batch_body_limit, with_metrics)
    public = build_app(endpoints)
    open_paths = PROBES | DOCUMENTS | ({"/metrics"} if settings.metrics_open else set())
    limits = Limits(settings.concurrency, settings.request_timeout)
    server = _server(listen)
    server.config.app = Gateway(
        service, public, endpoints.table, ROUTES, Access(keys, frozenset(open_paths)), limits, server.waiting
    )
    servers = [server]
    if settings.probe_port is not None:
        probes = _server(Listen(listen.host, settings.probe_port))
        app, table = build_probe_app(endpoints), endpoints.probe_table
        probes.config.app = Gateway(service, app, table, ROUTES, Access({}, frozenset()), limits, ())
        servers.append(probes)
    try:
        await _serve_until_told(servers, service, settings.drain_seconds)
    finally:
        service.close()


async def _serve_until_told(servers: list[_Server], service: Service, drain_seconds: float) -> None:
    loop, stop, tasks = asyncio.get_running_loop(), asyncio.Event(), set[asyncio.Task[None]]()

    def reload() -> None:
        task = loop.create_task(service.reload())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # who starts a worker holds it back until now
    running = [loop.create_task(_until_closed(server)) for server in servers]
    reload()
    stopped = loop.create_task(stop.wait())
    await asyncio.wait([stopped, *running], return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        service.drain()
        await _drain(servers, drain_seconds)
    for server in servers:
        server.should_exit = True
    stopped.cancel()
    await asyncio.gather(*running)


async def _until_closed(server: _Server) -> None:
    try:
        await server.serve()
    except SystemExit as error:
        address = f"{server.config.host}:{server.config.port}"
        raise ServiceError(f"cannot listen on {address}; is another process using the port?") from error


async def _drain(servers: list[_Server], seconds: float) -> None:
    """Let callers go, in the order that loses nothing: every answer says that its connection closes; when nobody comes
    any more, or after `seconds`, no new connection is accepted; those that were are answered.
    """
    await _until_quiet(servers, seconds)
    for server in servers:
        for listener in server.servers:
            listener.close()
    await _until_quiet(servers, LAST_ANSWERS)


async def _until_quiet(servers: list[_Server], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    deadline, quiet = loop.time() + seconds, 0
    while loop.time() < deadline and quiet < 3:
        await asyncio.sleep(0.1)
        quiet = 0 if any(server.server_state.connections for server in servers) else quiet + 1


def _server(listen: Listen) -> _Server:
    config = uvicorn.Config(
        app=None,  # type: ignore[arg-type]  # set before the server starts: the gateway asks the server what is waiting
        host=listen.host,
        port=listen.port,
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=30,
    )
    return _Server(config)


def _keys(listen: Listen, settings: ServingSettings) -> dict[str, bytes]:
    keys = load_keys(settings.api_keys, settings.api_keys_file)
    if not keys and not settings.open_access and not _is_loopback(listen.host):
        raise ServiceError(
            f"{listen.host} can be reached from other machines, and no API keys are set: set HEALTH_PREDICT_API_KEYS "
            "or HEALTH_PREDICT_API_KEYS_FILE, or HEALTH_PREDICT_OPEN_ACCESS=true to answer everybody"
        )
    return keys


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _journal(settings: ServingSettings, log: Log, metrics: Metrics) -> Journal:
    audit = AuditLog(settings.audit_log) if settings.audit_log else None
    if settings.prediction_log is None:
        return Journal(audit=audit)
    if settings.prediction_log_key is None:
        raise ServiceError("HEALTH_PREDICT_PREDICTION_LOG needs HEALTH_PREDICT_PREDICTION_LOG_KEY beside it")
    if settings.prediction_log.startswith("s3://") and importlib.util.find_spec("boto3") is None:
        raise ServiceError("HEALTH_PREDICT_PREDICTION_LOG is on S3, which needs boto3; it is not installed here")
    predictions = PredictionLog(
        open_storage(settings.prediction_log), lambda reason: log.event("prediction_log_failed", reason=reason)
    )
    metrics.count("prediction_log_dropped", "Scored encounters that were not kept", lambda: predictions.dropped)
    metrics.count("prediction_log_written", "Scored encounters that were kept", lambda: predictions.written)
    return Journal(audit, predictions, settings.prediction_log_key.get_secret_value().encode())
