"""Runs a worker: sockets, signals, start and stop."""

import asyncio
import contextlib
import ctypes
import importlib.util
import ipaddress
import logging
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic

import uvicorn
import uvloop

from health_predict.errors import ServiceError
from health_predict.serving.core.service import Journal, Service
from health_predict.serving.http.api import metrics_route, probe_routes, public_routes, with_document
from health_predict.serving.http.connection import HEAD_LIMIT, Connection, ConnectionLimits
from health_predict.serving.http.gateway import Gateway, Limits
from health_predict.serving.http.keys import load_keys
from health_predict.serving.journal.audit import AuditLog
from health_predict.serving.journal.log import Log
from health_predict.serving.journal.metrics import ServingMetrics
from health_predict.settings import ServingSettings
from health_predict.store.addresses import without_secrets
from health_predict.store.prediction_log import PredictionLog
from health_predict.store.storage import open_storage

STDOUT = 1
SHORTEST_KEY = 16  # least characters of the secret for pseudonyms: with a short one, all patient numbers could be tried
LAST_LINES = 5.0  # most seconds to write the prediction log at the end
LAST_ANSWERS = 5.0  # most seconds for requests that began to arrive before the listeners closed
QUIET = 3  # checks without a request, 0.1 s apart, after which no request is expected
_CHECK_EVERY = 5  # ticks of uvicorn, 0.1 s each
_SO_ATTACH_FILTER = 26  # Linux's number for the socket option
_NO_NEW_CONNECTIONS = (  # a packet filter: drops packets with the SYN flag, lets all others through
    (0x30, 0, 0, 13),  # load the TCP flags
    (0x45, 0, 1, 2),  # test SYN
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # accept
)


@dataclass(frozen=True)
class Listen:
    host: str
    port: int


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to `serve`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % _CHECK_EVERY == 0:
            for connection in self.open:
                connection.check(monotonic())
        return await super().on_tick(counter)

    @property
    def open(self) -> list[Connection]:
        return list(self.server_state.connections)  # type: ignore[arg-type]  # uvicorn knows its own classes only

    @property
    def waiting(self) -> "set[asyncio.Task[None]]":
        return self.server_state.tasks


def run(bundle: Path, listen: Listen, settings: ServingSettings) -> None:
    """Serve the bundle until SIGTERM, SIGINT or SIGQUIT. SIGHUP loads the bundle anew, from the folder or link.

    Before it ends, the worker drains: /readyz answers 503, and requests are answered for `drain_seconds`. A second
    SIGTERM or SIGINT ends it at once.

    Raises ServiceError when the settings do not allow a start or the port is taken, StorageError or DataError when
    the audit log cannot be used. A bundle that does not verify does not end the worker: it is not ready, says why in
    /health, and tries again on SIGHUP.
    """
    log = Log(STDOUT)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(bundle, listen, settings, log))
    finally:
        log.close()


async def serve(bundle: Path, listen: Listen, settings: ServingSettings, log: Log) -> None:
    """As `run`, inside a running event loop."""
    keys = _keys(listen, settings)
    _log_errors_of_libraries(log)
    metrics = ServingMetrics()
    service = Service(bundle, metrics, log, _journal(settings, log, metrics), settings.batch_limit, settings.body_limit)
    metrics.count("log_dropped", "Lines of the log that could not be written", lambda: log.dropped)
    limits = Limits(settings.concurrency, settings.request_timeout)
    server = _server(listen, settings)
    routes = [*public_routes(service, settings.body_limit, settings.batch_body_limit), *probe_routes(service)]
    servers = [server]
    if settings.probe_port is None:
        routes.append(metrics_route(service, needs_key=not settings.metrics_open))
    else:
        probes = _server(Listen(listen.host, settings.probe_port), settings)
        own = [*probe_routes(service), metrics_route(service, needs_key=False)]
        probes.config.app = Gateway(service, own, {}, limits, probes.waiting)
        servers.append(probes)
    gateway = Gateway(service, with_document(routes), keys, limits, server.waiting)
    server.config.app = gateway

    def read_keys_again() -> None:
        try:
            gateway.admit(_keys(listen, settings))
        except ServiceError as error:
            log.event("keys_refused", reason=str(error))

    stop = _Stop()
    try:
        await _serve_until_told(servers, service, stop, settings.drain_seconds, read_keys_again)
    finally:
        service.close(0.0 if stop.at_once.is_set() else LAST_LINES)


class _Stop:
    """Whether the worker was told to end (`begun`), and to end at once (`at_once`)."""

    def __init__(self) -> None:
        self.begun, self.at_once = asyncio.Event(), asyncio.Event()
        self._told = 0

    def tell(self) -> None:
        self._told += 1
        self.begun.set()
        if self._told > 1:
            self.at_once.set()


async def _serve_until_told(
    servers: list[_Server], service: Service, stop: _Stop, drain_seconds: float, on_reload: Callable[[], None]
) -> None:
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def reload() -> None:
        task = loop.create_task(service.reload())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def look_again() -> None:
        on_reload()
        reload()

    loop.add_signal_handler(signal.SIGHUP, look_again)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.tell)
    loop.add_signal_handler(signal.SIGQUIT, stop.begun.set)
    # The process that starts a worker blocks these signals until now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGQUIT})
    running = [loop.create_task(_until_closed(server)) for server in servers]
    reload()
    told = loop.create_task(stop.begun.wait())
    await asyncio.wait([told, *running], return_when=asyncio.FIRST_COMPLETED)
    at_once = loop.create_task(_leave_at_once(stop, servers))
    if stop.begun.is_set():
        seconds = drain_seconds if service.has_model else 0.0  # a worker that was never ready gets no requests
        service.drain(seconds)
        draining = loop.create_task(_drain(servers, seconds))
        await asyncio.wait([draining, at_once], return_when=asyncio.FIRST_COMPLETED)
        if draining.done():
            draining.result()
        draining.cancel()
    for server in servers:
        server.should_exit = True
    await asyncio.gather(*running)
    told.cancel()
    at_once.cancel()


async def _leave_at_once(stop: _Stop, servers: list[_Server]) -> None:
    """Once told to end at once, stop waiting for requests."""
    await stop.at_once.wait()
    for server in servers:
        server.force_exit = True


async def _until_closed(server: _Server) -> None:
    try:
        await server.serve()
    except SystemExit as error:
        address = f"{server.config.host}:{server.config.port}"
        raise ServiceError(f"cannot listen on {address}; is another process using the port?") from error


async def _drain(servers: list[_Server], seconds: float) -> None:
    """Let callers go without losing a request. For `seconds` all requests are answered, with `Connection: close`; then
    new connections are blocked, those that wait in the kernel are accepted, and all requests that have begun are
    answered.
    """
    await asyncio.sleep(seconds)
    listeners = [listener for server in servers for listener in server.servers]
    for listener in listeners:
        _make_no_new_connections(listener)
    await asyncio.sleep(0.1)  # time for the kernel to finish handshakes, and for the event loop to accept
    for listener in listeners:
        listener.close()
    await _until_quiet(servers, LAST_ANSWERS)


async def _until_quiet(servers: list[_Server], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    deadline, quiet, before = loop.time() + seconds, 0, -1
    while loop.time() < deadline and quiet < QUIET:
        await asyncio.sleep(0.1)
        answered = sum(server.server_state.total_requests for server in servers)
        idle = all(connection.is_idle for server in servers for connection in server.open)
        quiet = quiet + 1 if idle and answered == before else 0
        before = answered


def _make_no_new_connections(listener: asyncio.Server) -> None:
    """Block new connections, on Linux only: elsewhere a connection made at the moment of closing is reset."""
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in _NO_NEW_CONNECTIONS))
    option = struct.pack("HP", len(_NO_NEW_CONNECTIONS), ctypes.addressof(program))
    for listening in listener.sockets:
        with contextlib.suppress(OSError), socket.fromfd(listening.fileno(), listening.family, listening.type) as own:
            own.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)


def _server(listen: Listen, settings: ServingSettings) -> _Server:
    limits = ConnectionLimits(
        settings.connections, settings.request_timeout, 2 * settings.batch_body_limit + HEAD_LIMIT
    )
    config = uvicorn.Config(
        app=None,  # type: ignore[arg-type]  # set before the server starts: the gateway asks the server what is waiting
        host=listen.host,
        port=listen.port,
        http=partial(Connection, limits),  # type: ignore[arg-type]
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


class Events(logging.Handler):
    """Logs errors of libraries by place and type, without their messages, which may hold a patient's value."""

    def __init__(self, log: Log):
        super().__init__(logging.ERROR)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = type(record.exc_info[1]).__name__ if record.exc_info else None
        self._log.event("server_error", where=f"{record.name}:{record.lineno}", error=error)


def _log_errors_of_libraries(log: Log) -> None:
    for name in ("uvicorn", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [Events(log)], False


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


def _journal(settings: ServingSettings, log: Log, metrics: ServingMetrics) -> Journal:
    audit = AuditLog(settings.audit_log, settings.audit_log_bytes) if settings.audit_log else None
    if audit and audit.torn:
        log.event("audit_log_torn", bytes=audit.torn)
    if settings.prediction_log is None:
        return Journal(audit=audit)
    key = settings.prediction_log_key.get_secret_value() if settings.prediction_log_key else ""
    if len(key) < SHORTEST_KEY:
        raise ServiceError(
            "HEALTH_PREDICT_PREDICTION_LOG needs HEALTH_PREDICT_PREDICTION_LOG_KEY beside it, of at least "
            f"{SHORTEST_KEY} characters"
        )
    if settings.prediction_log.startswith("s3://") and importlib.util.find_spec("boto3") is None:
        raise ServiceError("HEALTH_PREDICT_PREDICTION_LOG is on S3, which needs boto3; it is not installed here")
    storage = open_storage(settings.prediction_log)
    storage.connect()  # now, as connecting later would delay answers
    predictions = PredictionLog(storage, lambda why: log.event("prediction_log_failed", reason=without_secrets(why)))
    metrics.count("prediction_log_dropped", "Scored encounters that were not kept", lambda: predictions.dropped)
    metrics.count("prediction_log_written", "Scored encounters that were kept", lambda: predictions.written)
    return Journal(audit, predictions, key.encode())
