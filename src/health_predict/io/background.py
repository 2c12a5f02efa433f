"""A thread that writes what a fast producer hands over, in batches, and never makes the producer wait."""

import threading
from collections import deque
from collections.abc import Callable


class Background:
    """Lines on their way to something slow.

    `put` costs a fraction of a microsecond. A line is dropped, and counted in `dropped`, when `capacity` lines are
    waiting already or when `write` says that it could not write them. Lines reach `write` in the order they came.
    """

    def __init__(self, name: str, write: Callable[[list[bytes]], bool], capacity: int, period: float, batch: int):
        """`write` gets at most `batch` lines every `period` seconds or sooner, and returns whether it wrote them."""
        self.dropped = 0
        self.written = 0
        self._write, self._capacity, self._period, self._batch = write, capacity, period, batch
        self._lines: deque[bytes] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        if len(self._lines) >= self._capacity:
            self.dropped += 1
            return
        self._lines.append(line)
        if len(self._lines) == self._batch:
            self._wake.set()

    def close(self, timeout: float) -> None:
        """Write what is left, for at most `timeout` seconds; what is left then counts as dropped."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout)
        self.dropped += len(self._lines)
        self._lines.clear()

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(self._period)
            self._wake.clear()
            self._flush()
        self._flush()

    def _flush(self) -> None:
        while self._lines:
            lines = [self._lines.popleft() for _ in range(min(len(self._lines), self._batch))]
            if self._write(lines):
                self.written += len(lines)
            else:
                self.dropped += len(lines)
