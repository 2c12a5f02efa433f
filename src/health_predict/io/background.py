"""A thread that writes what a fast producer hands over, in batches, and never makes the producer wait."""

import threading
from collections import deque
from collections.abc import Callable


class Background:
    """Lines on their way to something slow.

    `put` costs a fraction of a microsecond. A line is dropped, and counted in `dropped`, when `capacity` lines are
    waiting already or when `write` could not write them. Lines reach `write` in the order they came.
    """

    def __init__(self, name: str, write: Callable[[list[bytes]], bool], capacity: int, period: float, batch: int):
        """`write` gets at most `batch` lines every `period` seconds or sooner, and returns whether it wrote them."""
        self.written = 0
        self._refused = self._lost = self._given_up = 0  # the producer counts the first, the thread the second
        self._writing = 0
        self._write, self._capacity, self._period, self._batch = write, capacity, period, batch
        self._lines: deque[bytes] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        return self._refused + self._lost + self._given_up

    def put(self, line: bytes) -> None:
        if len(self._lines) >= self._capacity:
            self._refused += 1
            return
        self._lines.append(line)
        if len(self._lines) == self._batch:
            self._wake.set()

    def close(self, timeout: float) -> None:
        """Write what is left, for at most `timeout` seconds; what is not written then counts as dropped."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout)
        self._given_up = len(self._lines) + self._writing
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
            self._writing = len(lines)
            if self._is_written(lines):
                self.written += len(lines)
            else:
                self._lost += len(lines)
            self._writing = 0

    def _is_written(self, lines: list[bytes]) -> bool:
        try:
            return self._write(lines)
        except Exception:  # noqa: BLE001  # the thread goes on: what comes next may be written
            return False
