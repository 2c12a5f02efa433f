"""A lean HTTP client: it has to ask faster than the fastest side answers, on the other core."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

import uvloop


@dataclass(frozen=True)
class Target:
    """Where to send what: bodies in turns, on keep-alive connections."""

    name: str
    port: int
    bodies: tuple[bytes, ...]
    path: str = "/predict"
    headers: str = ""

    def requests(self) -> Iterator[bytes]:
        """Without an end."""
        head = f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n{self.headers}"
        return cycle([f"{head}content-length: {len(body)}\r\n\r\n".encode() + body for body in self.bodies])


def ask(target: Target, connections: int, seconds: float, rate: float | None = None) -> list[float]:
    """Seconds that each answer took. Every connection sends its next request when the answer is there, or, with
    `rate`, when its turn has come: so many a second over all connections.

    Raises SystemExit when an answer is anything but 200, or a connection ends.
    """
    return uvloop.run(_ask(target, connections, seconds, rate))


async def _ask(target: Target, connections: int, seconds: float, rate: float | None) -> list[float]:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    pause = connections / rate if rate else 0.0
    until = time.perf_counter() + seconds
    callers = [_Caller(target, times, until, pause, pause * turn / connections) for turn in range(connections)]
    for caller in callers:
        await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", target.port)
    await asyncio.gather(*(caller.done for caller in callers))
    return times


class _Caller(asyncio.Protocol):
    def __init__(self, target: Target, times: list[float], until: float, pause: float, start: float):
        self._name, self._requests, self._times = target.name, target.requests(), times
        self._until, self._pause = until, pause
        self._loop = asyncio.get_running_loop()
        self._due, self._left, self._answer = time.perf_counter() + start, 0, b""
        self.done: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def connection_lost(self, _error: Exception | None) -> None:
        self._fail(f"{self._name} closed a connection")

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not self._left:
            head, end, _ = self._answer.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self._fail(f"{self._name} answered {head[:40]!r}")
                return
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self._left = len(head) + 4 + int(length)
        if len(self._answer) >= self._left:
            self._times.append(time.perf_counter() - self._due)
            self._left, self._answer = 0, b""
            self._due = self._due + self._pause if self._pause else time.perf_counter()
            self._next()

    def _fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(SystemExit(reason))

    def _next(self) -> None:
        now = time.perf_counter()
        if now >= self._until and self._times:
            self.done.set_result(None)
            self._transport.close()
        elif self._due > now:
            self._loop.call_later(self._due - now, self._send)
        else:
            self._send()

    def _send(self) -> None:
        if not self._pause:
            self._due = time.perf_counter()
        self._transport.write(next(self._requests))
