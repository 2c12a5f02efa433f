"""The worker with one of its own layers replaced by what the libraries offer for it.

`python -m benchmarks.layers.ordinary LAYER BUNDLE PORT`; the layers are the keys of `REPLACED`.
"""

import asyncio
import logging
import queue
import sys
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any
from unittest.mock import patch
from uuid import uuid4

import msgspec
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from prometheus_client import Counter, Histogram
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from health_predict.serving.core import answers, heap
from health_predict.serving.core.contract import InvalidEncounterError
from health_predict.serving.core.service import Call, NotReadyError, Service
from health_predict.serving.http import gateway, server
from health_predict.serving.http.gateway import Limits
from health_predict.serving.http.keys import caller
from health_predict.serving.http.routes import JSON, Answer, Route
from health_predict.serving.journal.metrics import BUCKETS, ServingMetrics
from health_predict.settings import ServingSettings


class UvicornConnection(HttpToolsProtocol):
    """uvicorn's, without limits."""

    def __init__(self, _limits: object, **given: Any):
        super().__init__(**given)

    @property
    def is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def check(self, now: float) -> None:
        pass


class Framework:
    """A FastAPI application in place of gateway and routes: its router, a dependency that asks for the key, handlers of
    exceptions; around it an ASGI middleware, as FastAPI's own kind costs more than all the rest.
    """

    def __init__(
        self, service: Service, routes: list[Route], keys: dict[str, bytes], limits: Limits, waiting: Collection[Any]
    ):
        self._service, self._limits, self._waiting = service, limits, waiting
        self._app = FastAPI(
            openapi_url=None, exception_handlers={InvalidEncounterError: _invalid, NotReadyError: _later}
        )

        def known(request: Request) -> Call:
            name = caller(keys, request.headers.raw)
            if name is None:
                raise HTTPException(401, "a valid API key is needed")
            return Call(request.state.request_id, name)

        for route in routes:
            self._app.add_api_route(route.path, _endpoint(route, known), methods=[route.method])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        started, status, request_id = perf_counter(), 0, uuid4().hex
        scope["state"]["request_id"] = request_id
        own = [*JSON[1:], (b"x-request-id", request_id.encode())]

        async def with_headers(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        app = self._app if len(self._waiting) <= self._limits.concurrency else Response(status_code=503)
        try:
            async with asyncio.timeout(self._limits.seconds):
                await app(scope, receive, with_headers)
        except TimeoutError:
            await Response(status_code=408)(scope, receive, with_headers)
        path, seconds = scope["path"], perf_counter() - started
        self._service.metrics.answered(path, status, seconds)
        self._service.log.access(request_id, path, status, seconds, self._service.model_version, "-")


def _endpoint(route: Route, known: Callable[[Request], Call]) -> Callable[..., Awaitable[Response]]:
    async def endpoint(request: Request, call: Annotated[Call, Depends(known)]) -> Response:
        answer = await route.respond(await request.body(), call)
        if isinstance(answer, Answer):
            return Response(answer.body, answer.status)
        return Response(answers.encode(answer), media_type="application/json")

    return endpoint


async def _invalid(_request: Request, error: Exception) -> Response:
    return Response(answers.encode([problem.to_json() for problem in error.problems]), 422)  # type: ignore[attr-defined]


async def _later(_request: Request, _error: Exception) -> Response:
    return Response(status_code=503)


class ClientMetrics(ServingMetrics):
    """prometheus_client's own counters and histogram."""

    def __init__(self) -> None:
        super().__init__()
        self._request_seconds = Histogram("own_request_seconds", "Time to answer", ["route"], buckets=BUCKETS)
        self._answers = Counter("own_requests", "Answers", ["route", "status"])
        self._by_band = Counter("own_predictions", "Scored encounters", ["risk_band"])
        self._by_unknown = Counter("own_unknown", "Unknown values", ["field"])
        self._by_missing = Counter("own_missing", "Missing values", ["field"])
        self._died = Counter("own_outside_cohort", "Outside the cohort")

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._request_seconds.labels(route).observe(seconds)
        self._answers.labels(route, status).inc()

    def predicted(self, band: str, unknown: Iterable[str], missing: Iterable[str], outside_cohort: bool) -> None:
        self._by_band.labels(band).inc()
        for name in unknown:
            self._by_unknown.labels(name).inc()
        for name in missing:
            self._by_missing.labels(name).inc()
        if outside_cohort:
            self._died.inc()


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return msgspec.json.encode(
            {"time": self.formatTime(record), "event": record.msg, **record.__dict__["fields"]}
        ).decode()


class StandardLog:
    """The standard library's logging, to a stream."""

    dropped = 0

    def __init__(self, _descriptor: int):
        self._logger = logging.getLogger("layers")
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        self._handle()

    def event(self, event: str, **fields: object) -> None:
        self._logger.info(event, extra={"fields": fields})

    def access(self, request_id: str, route: str, status: int, seconds: float, version: str, caller: str) -> None:
        self.event(
            "request", request_id=request_id, route=route, status=status, ms=round(seconds * 1000, 3),
            model_version=version, caller=caller,
        )  # fmt: skip

    def close(self) -> None:
        pass

    def _handle(self) -> None:
        self._logger.addHandler(self._stream())

    def _stream(self) -> logging.Handler:
        stream = logging.StreamHandler(sys.stdout)
        stream.setFormatter(_Json())
        return stream


class QueuedLog(StandardLog):
    """The same, from a thread: QueueHandler and QueueListener."""

    def _handle(self) -> None:
        lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._logger.addHandler(QueueHandler(lines))
        self._listener = QueueListener(lines, self._stream())
        self._listener.start()

    def close(self) -> None:
        self._listener.stop()


def _nothing(*_given: object) -> None:
    pass


class TimerForEach:
    """A timer of the event loop for each request."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._timers: dict[asyncio.Task[Any], asyncio.TimerHandle] = {}

    def begin(self, _started: float) -> asyncio.Task[Any]:
        task: Any = asyncio.current_task()
        self._timers[task] = asyncio.get_running_loop().call_later(self._seconds, task.cancel)
        return task

    def end(self, task: asyncio.Task[Any]) -> None:
        self._timers.pop(task).cancel()

    def is_late(self, _task: asyncio.Task[Any]) -> bool:
        return True


REPLACED: dict[str, AbstractContextManager[Any]] = {
    "none": nullcontext(),
    "gateway": patch.object(server, "Gateway", Framework),
    "connection": patch.object(server, "Connection", UvicornConnection),
    "deadlines": patch.object(gateway, "_Deadlines", TimerForEach),
    "metrics": patch.object(server, "ServingMetrics", ClientMetrics),
    "log": patch.object(server, "Log", StandardLog),
    "log, queued": patch.object(server, "Log", QueuedLog),
    "filter": patch.object(server, "_make_no_new_connections", _nothing),
    "give_back": patch.object(heap, "give_back", _nothing),
}


def main() -> None:
    layer, bundle, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    with REPLACED[layer]:
        server.run(bundle, server.Listen("127.0.0.1", port), ServingSettings())


if __name__ == "__main__":
    main()
