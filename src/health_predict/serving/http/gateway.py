"""The outermost layer of the service, around every request and its answer.

The gateway numbers the request, identifies the caller, refuses early when too many requests wait, sets the time limit,
reads the body, calls the route of the method and path, turns errors into answers without internal details, adds the
security headers, and counts and logs the answer.
"""

import asyncio
import re
import secrets
import traceback
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import Any, NamedTuple

from health_predict.errors import StorageError
from health_predict.serving.core import answers
from health_predict.serving.core.contract import InvalidEncounterError
from health_predict.serving.core.service import Call, NotReadyError, Service
from health_predict.serving.http.keys import ANONYMOUS, caller
from health_predict.serving.http.routes import Answer, Header, Route, headers

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_UUID = re.compile(rb"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE)
_CHECKS_OF_A_LIMIT = (
    4  # checks per time limit: a request is cancelled at its limit, or up to a quarter of the limit later
)

_LATER = (b"retry-after", b"1")
_CLOSE = (b"connection", b"close")
_JSON_LATER = headers(b"application/json", _LATER)
_JSON_CLOSE = headers(b"application/json", _CLOSE)
_JSON_UNCOMPRESSED = headers(b"application/json", (b"accept-encoding", b"identity"))
_JSON_CHALLENGE = headers(b"application/json", (b"www-authenticate", b"Bearer"))


class Disconnected(Exception):
    """The caller closed the connection before its request was complete."""


class TooLargeError(Exception):
    """The request's body is above the limit."""


@dataclass(frozen=True)
class Limits:
    """`concurrency`: most requests at a time. `seconds`: most time for one request."""

    concurrency: int
    seconds: float


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body. Raises TooLargeError as soon as it is above the limit."""
    message = await receive()
    body: bytes = message.get("body", b"")
    size = len(body)
    if message["type"] == "http.request" and not message.get("more_body"):
        if size > limit:
            raise TooLargeError
        return body
    parts = [body]
    while message["type"] == "http.request" and message.get("more_body") and size <= limit:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    if message["type"] != "http.request":
        raise Disconnected
    if size > limit:
        raise TooLargeError
    return b"".join(parts)


class _Deadlines:
    """Cancels requests that take too long. One timer checks all of them, as one for each costs more."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._started: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._armed = False

    def begin(self, started: float) -> asyncio.Task[Any]:
        """Watch the current task until `end`; a task that is late is cancelled."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # an ASGI application runs in a task
        self._started[task] = started
        if not self._armed:
            self._arm()
        return task

    def end(self, task: asyncio.Task[Any]) -> None:
        del self._started[task]
        self._late.discard(task)

    def is_late(self, task: asyncio.Task[Any]) -> bool:
        """Whether the task was cancelled here, and not by somebody else."""
        return task in self._late

    def _arm(self) -> None:
        self._armed = True
        asyncio.get_running_loop().call_later(self._seconds / _CHECKS_OF_A_LIMIT, self._check)

    def _check(self) -> None:
        self._armed = False
        latest = perf_counter() - self._seconds
        for task, started in self._started.items():
            if started < latest and task not in self._late:
                self._late.add(task)
                task.cancel()
        if self._started:
            self._arm()


class _Head(NamedTuple):
    """The request's number, and whether its body is compressed, or in another transfer coding than chunked."""

    request_id: str
    compressed: bool
    coded: bool


class Gateway:
    """The ASGI application that the server runs."""

    def __init__(
        self,
        service: Service,
        routes: Collection[Route],
        keys: Mapping[str, bytes],
        limits: Limits,
        waiting: Collection[object],
    ):
        """`keys` are digests by caller; without keys, everybody is answered. `waiting` holds the requests that the
        server has accepted and not answered."""
        self._service, self._keys, self._limits, self._waiting = service, keys, limits, waiting
        self._routes: dict[str, dict[str, Route]] = {}  # by path, then by method
        for route in routes:
            self._routes.setdefault(route.path, {})[route.method] = route
            if route.method == "GET":
                self._routes[route.path]["HEAD"] = route  # the server leaves the body out
        self._open_paths = {route.path for route in routes if not route.needs_key}
        self._deadlines = _Deadlines(limits.seconds)
        self._numbers = count(1)
        self._prefix = secrets.token_hex(8)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        path = scope["path"]
        given = scope["headers"]
        head = self._read_head(given)
        request_id = head.request_id
        name = ANONYMOUS if path in self._open_paths else caller(self._keys, given)
        call = Call(request_id, name or ANONYMOUS)
        task = self._deadlines.begin(started)
        status = 499  # nginx's status for a caller that closed the connection
        try:
            answer = await self._answer(scope, receive, call, name is not None, head)
            status = answer.status
            await self._send(send, answer, request_id)
        except Disconnected:
            pass
        except asyncio.CancelledError:
            # Status 499: no answer has begun. The server ends an answer that has begun and that nobody reads.
            if status != 499 or not self._deadlines.is_late(task):
                raise
            task.uncancel()
            status = 408
            late = Answer(status, _error("the request took too long", request_id), _JSON_CLOSE)
            await self._send(send, late, request_id)
        finally:
            self._deadlines.end(task)
            route = path if path in self._routes else "other"
            seconds = perf_counter() - started
            self._service.metrics.answered(route, status, seconds)
            self._service.log.access(request_id, route, status, seconds, self._service.model_version, call.caller)

    def admit(self, keys: Mapping[str, bytes]) -> None:
        """Replace the API keys: digests by caller."""
        self._keys = keys

    def refuse(self, status: int, detail: str) -> Answer:
        """The answer to bytes that never became a request; counted and logged as any other."""
        request_id = self._next_id()
        self._service.metrics.answered("other", status, 0.0)
        self._service.log.access(request_id, "other", status, 0.0, self._service.model_version, ANONYMOUS)
        body = _error(detail, request_id)
        own = ((b"content-length", b"%d" % len(body)), (b"x-request-id", request_id.encode()))
        return Answer(status, body, [*_JSON_CLOSE, *own])

    async def _answer(self, scope: Scope, receive: Receive, call: Call, known: bool, head: _Head) -> Answer:
        methods = self._routes.get(scope["path"], {})
        route = methods.get(scope["method"])
        refusal = self._refusal(route, call.request_id, known, head)
        if refusal:
            return refusal
        if route is None:
            return _no_such_route(methods, call.request_id)
        try:
            body = await read_body(receive, route.body.limit) if route.body else b""
            answer = await route.respond(body, call)
            return answer if isinstance(answer, Answer) else Answer(200, answers.encode(answer))
        except Disconnected:
            raise
        except Exception as error:  # noqa: BLE001  # every one has its answer; what it was is in the log
            return self._failure(error, call.request_id)

    def _refusal(self, route: Route | None, request_id: str, known: bool, head: _Head) -> Answer | None:
        """The answer to a request that is refused before its body is read; None: not refused."""
        if head.coded:
            return Answer(501, _error("of transfer codings only chunked is read", request_id), _JSON_CLOSE)
        if not known:
            return Answer(401, _error("a valid API key is needed", request_id), _JSON_CHALLENGE)
        if len(self._waiting) > self._limits.concurrency and not (route and route.always):
            return Answer(503, _error("too many requests at a time; try again", request_id), _JSON_LATER)
        if head.compressed and route and route.body:
            said = "the body is compressed (Content-Encoding); send it as it is"
            return Answer(415, _error(said, request_id), _JSON_UNCOMPRESSED)
        return None

    async def _send(self, send: Send, answer: Answer, request_id: str) -> None:
        own = [*answer.headers, (b"content-length", b"%d" % len(answer.body)), (b"x-request-id", request_id.encode())]
        if self._service.draining:
            own.append(_CLOSE)
        await send({"type": "http.response.start", "status": answer.status, "headers": own})
        await send({"type": "http.response.body", "body": answer.body})

    def _read_head(self, given: list[Header]) -> _Head:
        request_id, compressed, coded = "", False, False
        for name, value in given:
            # A caller's own request number is kept only if it is a UUID: any other text may be a patient's name.
            if name == b"x-request-id" and not request_id and _UUID.fullmatch(value):
                request_id = value.decode()
            elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                compressed = True
            elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                coded = True  # the parser decodes only the chunks of `gzip, chunked`, not the gzip
        return _Head(request_id or self._next_id(), compressed, coded)

    def _next_id(self) -> str:
        return f"{self._prefix}{next(self._numbers):08x}"

    def _failure(self, error: Exception, request_id: str) -> Answer:
        match error:
            case InvalidEncounterError():
                detail = [problem.to_json() for problem in error.problems]
                return Answer(422, answers.encode({"detail": detail, "request_id": request_id}))
            case NotReadyError():
                return Answer(503, _error("no verified model is loaded; /health says why", request_id), _JSON_LATER)
            case TooLargeError():
                return Answer(413, _error("the request is too large", request_id), _JSON_CLOSE)
            case StorageError():
                self._service.log.event("audit_failed", request_id=request_id, reason=str(error))
                return Answer(503, _error("the audit log cannot be written, so nothing is answered", request_id))
        self._service.log.event("bug", request_id=request_id, error=type(error).__name__, where=_where(error))
        return Answer(500, _error("the service has a bug; it is in its log under this number", request_id))


def _no_such_route(methods: Mapping[str, Route], request_id: str) -> Answer:
    if not methods:
        return Answer(404, _error("there is no such path", request_id))
    allowed = ", ".join(sorted(methods))
    said = f"the path is not asked with this method, but with {allowed}"
    return Answer(405, _error(said, request_id), headers(b"application/json", (b"allow", allowed.encode())))


def _error(detail: str, request_id: str) -> bytes:
    return answers.encode(answers.Error(detail, request_id))


def _where(error: Exception) -> str:
    """The lines of code that an exception passed. Not its message, which may hold a patient's value."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in reversed(frames))
