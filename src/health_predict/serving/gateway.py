"""The outermost layer: every request passes it once, in and out.

It gives the request its number, asks who calls, refuses early when too many are waiting, sets the time limit, turns
errors into answers that tell nothing of the inside, adds the security headers, and counts and logs the answer.
A path of the table goes straight to its endpoint, everything else to FastAPI, which answers that there is no such
path or method.
"""

import asyncio
import re
import secrets
import traceback
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import Any

import msgspec

from health_predict.errors import StorageError
from health_predict.serving.contract import InvalidEncounterError
from health_predict.serving.keys import ANONYMOUS, caller
from health_predict.serving.service import Call, NotReadyError, Service

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CALL = "health_predict.call"  # where the scope holds the Call
PROBES = frozenset(("/health", "/livez", "/readyz"))
DOCUMENTS = frozenset(("/", "/docs", "/openapi.json"))
_UUID = re.compile(rb"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]
_JSON = (b"content-type", b"application/json")


class Disconnected(Exception):
    """The caller went away before its request was complete."""


class TooLargeError(Exception):
    """The request's body is above the limit."""


@dataclass(frozen=True)
class Limits:
    """`concurrency`: requests at a time. `seconds`: for one request."""

    concurrency: int
    seconds: float


@dataclass(frozen=True)
class Access:
    """Who may ask what: digests by caller (empty: everybody), and paths that need no key."""

    keys: Mapping[str, bytes]
    open_paths: frozenset[str]


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


async def answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    """Send a JSON answer."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]})
    await send({"type": "http.response.body", "body": body})


class Gateway:
    """The ASGI application that the server runs."""

    def __init__(
        self,
        service: Service,
        app: App,
        direct: Mapping[tuple[str, str], App],
        routes: frozenset[str],
        access: Access,
        limits: Limits,
        waiting: Callable[[], int],
    ):
        """`direct` are endpoints by method and path, reached without the router; `routes` are the paths that may be
        named in logs; `waiting` says how many requests the server has accepted and not answered."""
        self._service, self._app, self._direct, self._routes = service, app, direct, routes
        self._access, self._limits, self._waiting = access, limits, waiting
        self._numbers = count(1)
        self._prefix = secrets.token_hex(8)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        path = scope["path"]
        request_id = self._request_id(scope["headers"])
        name = ANONYMOUS if path in self._access.open_paths else caller(self._access.keys, scope["headers"])
        scope[CALL] = Call(request_id, name or ANONYMOUS)
        status = 0

        async def send_on(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._headers(message["headers"], request_id)
            await send(message)

        try:
            if name is None:
                await answer(send_on, 401, _error("a valid API key is needed", request_id), _CHALLENGE)
            elif self._waiting() > self._limits.concurrency and path not in PROBES:
                await answer(send_on, 503, _error("too many requests at a time; try again", request_id), _LATER)
            else:
                async with asyncio.timeout(self._limits.seconds):
                    endpoint = self._direct.get((scope["method"], path), self._app)
                    await endpoint(scope, receive, send_on)
        except Disconnected:
            status = 499  # as nginx writes it
        except Exception as error:
            failed, body, *headers = self._failure(error, request_id)
            if status:
                raise
            await answer(send_on, failed, body, *headers)
        finally:
            route = path if path in self._routes else "other"
            seconds = perf_counter() - started
            self._service.metrics.answered(route, status, seconds)
            self._service.log.access(
                request_id, route, status, seconds, self._service.model_version, scope[CALL].caller
            )

    def _request_id(self, headers: list[tuple[bytes, bytes]]) -> str:
        # A caller's own number is taken over when it is a UUID: anything else could be a patient's name.
        for name, value in headers:
            if name == b"x-request-id" and _UUID.fullmatch(value):
                return value.decode()
        return f"{self._prefix}{next(self._numbers):08x}"

    def _headers(self, headers: list[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
        own = {name for name, _ in headers}
        added = [header for header in _HEADERS if header[0] not in own]
        if self._service.draining:
            added.append((b"connection", b"close"))
        return [*headers, *added, (b"x-request-id", request_id.encode())]

    def _failure(self, error: Exception, request_id: str) -> tuple[Any, ...]:
        match error:
            case InvalidEncounterError():
                detail = [problem.to_json() for problem in error.problems]
                return 422, msgspec.json.encode({"detail": detail, "request_id": request_id})
            case NotReadyError():
                return 503, _error("no verified model is loaded; /health says why", request_id), _LATER
            case TooLargeError():
                return 413, _error("the request is too large", request_id), _CLOSE
            case TimeoutError():
                return 408, _error("the request took too long", request_id), _CLOSE
            case StorageError():
                self._service.log.event("audit_failed", request_id=request_id, reason=str(error))
                return 503, _error("the audit log cannot be written, so nothing is answered", request_id)
        self._service.log.event("bug", request_id=request_id, error=type(error).__name__, where=_where(error))
        return 500, _error("the service has a bug; it is in its log under this number", request_id)


_CHALLENGE = (b"www-authenticate", b"Bearer")
_LATER = (b"retry-after", b"1")
_CLOSE = (b"connection", b"close")


def _error(detail: str, request_id: str) -> bytes:
    return msgspec.json.encode({"detail": detail, "request_id": request_id})


def _where(error: Exception) -> str:
    """The places an exception went through. Not its message: that may hold a patient's value."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in reversed(frames))
