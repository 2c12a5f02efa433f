"""Limits a connection until its request's head is complete: number of connections, seconds, and bytes of the head.

An `Upgrade` header (`h2c`, as Java's HttpClient and curl send it, or a WebSocket) is ignored (RFC 9110, 7.8). The
parser takes the bytes after the head of such a request for the other protocol, so a new parser gets the head again
without that header, and then the body.
"""

from dataclasses import dataclass
from time import monotonic
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEAD_LIMIT = 32 * 1024  # most bytes of a request line and headers, unless they arrive in one piece
MOST_HEADERS = 100


@dataclass(frozen=True)
class ConnectionLimits:
    """Most `connections` at a time, `seconds` until a head is complete, and bytes of a `message`, head and body."""

    connections: int
    seconds: float
    message: int


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with limits. The gateway words, counts and logs the refusals made here.

    There is no timer per request: the server calls `check` for all connections, at intervals.
    """

    def __init__(self, limits: ConnectionLimits, **given: Any):
        super().__init__(**given)
        self._limits = limits
        self._received = 0  # bytes of a request that is not complete yet
        self._waiting_since: float | None = (
            monotonic()
        )  # when the wait for a head began; None while a request is received or answered

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._refuse(503, "too many connections at a time; try again")

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > HEAD_LIMIT and self._is_too_much(data):
            self._refuse(431, "the head of the request is too large")
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parse(self._after_upgrade(data, upgrade))
        except httptools.HttpParserError:
            self.send_400_response("")
        cycle = self.cycle
        if cycle is not None and "method" in self.scope and not cycle.response_complete:
            self._waiting_since = None
            if not cycle.more_body:
                self._received = 0
            if len(self.headers) > MOST_HEADERS:
                self._refuse(431, "the request has too many headers")
        elif self._waiting_since is None:
            self._waiting_since = monotonic()

    def _should_upgrade(self) -> bool:
        return True  # uvicorn then leaves such a request alone; `data_received` gives it to the parser again

    def check(self, now: float) -> None:
        """Refuse a request whose head takes too long."""
        if self._waiting_since is None or now - self._waiting_since < self._limits.seconds:
            return
        if self._received:
            self._refuse(408, "the request took too long")
        else:
            self.transport.close()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered, and none has begun to arrive."""
        return not self._received and (self.cycle is None or self.cycle.response_complete)

    def send_400_response(self, _msg: str) -> None:
        self._refuse(400, "the request is not HTTP")

    def _parse(self, data: bytes) -> None:
        while data and not self.transport.is_closing():
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = self._after_upgrade(data, upgrade)
            except httptools.HttpParserError:
                self.send_400_response("")

    def _after_upgrade(self, data: bytes, upgrade: httptools.HttpParserUpgrade) -> bytes:
        """The bytes that a new parser has to read: after a head with `close` the old one skips everything."""
        data = self._head_without_upgrade() + data[upgrade.args[0] :]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return data

    def _head_without_upgrade(self) -> bytes:
        """The head that was just read, without `Upgrade`. Empty for CONNECT, which is refused: there are no tunnels."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            self._refuse(405, "the method CONNECT is not answered")
            return b""
        kept = [b"%s: %s\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        return b"".join([b"%s %s HTTP/%s\r\n" % (method, self.url, version), *kept, b"\r\n"])

    def _is_too_much(self, data: bytes) -> bool:
        if self.cycle is not None and "method" in self.scope and self.cycle.more_body:  # in the body, or after it
            return self._received > self._limits.message
        return b"\r\n\r\n" not in data[:HEAD_LIMIT]

    def _refuse(self, status: int, detail: str) -> None:
        if self.transport.is_closing():
            return
        answer = self.app.refuse(status, detail)
        lines = [name + b": " + value + b"\r\n" for name, value in answer.headers]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", answer.body]))
        self.transport.close()
