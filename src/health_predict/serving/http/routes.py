"""What a route is: the gateway answers by it, and the OpenAPI document describes it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from health_predict.serving.core import answers
from health_predict.serving.core.service import Call

Header = tuple[bytes, bytes]


def headers(kind: bytes, *more: Header, policy: bytes = b"default-src 'none'; frame-ancestors 'none'") -> list[Header]:
    """The headers of an answer of this content type; built once, not for every answer."""
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
    """What a route takes as JSON: its type and an example, for the document, and its largest size in bytes."""

    type: Any
    example: Any
    limit: int


@dataclass(frozen=True)
class Route:
    """A method and a path, taken literally, and the function that answers.

    `respond` gets the body (empty where the route takes none) and the call. It returns a structure, which is sent as
    JSON with status 200, or an `Answer`; what it may raise, and how that is answered, is in `Gateway`.
    `returns` is the type of a good answer, `unready` of one with status 503; a route without `returns` is not in the
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
