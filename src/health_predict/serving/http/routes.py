"""Routes, by which the gateway answers and which the OpenAPI document describes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from health_predict.serving.core import answers
from health_predict.serving.core.service import Call

Header = tuple[bytes, bytes]


def headers(kind: bytes, *more: Header, policy: bytes = b"default-src 'none'; frame-ancestors 'none'") -> list[Header]:
    """The headers of an answer with the content type `kind`; build them once, not for every answer."""
    return [
        (b"content-type", kind),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
        (b"content-security-policy", policy),
        (b"referrer-policy", b"no-referrer"),
        *more,
    ]


JSON = headers(b"application/json")


class Answer(NamedTuple):
    """A whole answer; `headers` come from the function of that name."""

    status: int
    body: bytes
    headers: list[Header] = JSON


Responder = Callable[[bytes, Call], Awaitable[Any]]


@dataclass(frozen=True)
class Body:
    """The JSON that a route takes: its type and an example, for the OpenAPI document, and its most bytes."""

    type: Any
    example: Any
    limit: int


@dataclass(frozen=True)
class Route:
    """A method and a path, taken literally, and the function that answers.

    `respond` gets the body (empty where the route takes none) and the call. It returns a structure, which is sent as
    JSON with status 200, or an `Answer`; `Gateway` lists the errors it may raise, and their answers. `returns` is the
    type of an answer with status 200, `unready` with status 503; a route without `returns` is not in the OpenAPI
    document. `needs_key`: a caller without a valid API key gets 401. `always`: answered however many requests wait.
    """

    method: str
    path: str
    respond: Responder
    summary: str = ""
    returns: type | None = None
    unready: type = answers.Error
    body: Body | None = None
    needs_key: bool = True
    always: bool = False
