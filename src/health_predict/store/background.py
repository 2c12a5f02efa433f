"""A thread that writes what a fast producer hands over, in batches, and never makes the producer wait."""

import threading
from collections import deque
from collections.abc import Callable


class Background:
    """A queue of lines for a slow writer.

    `put` costs a fraction of a microsecond. A line is dropped, and counted in `dropped`, when `capacity` lines are
    waiting already, when `write` could not write them, or after `close`. Lines reach `write` in the order they came.
    """

    def __init__(self, name: str, write: Callable[[list[bytes]], bool], capacity: int, period: float, batch: int):
        """`write` gets at most `batch` lines every `period` seconds or sooner, and returns whether it wrote them."""
        self.written = 0
        self._refused = self._lost = self._given_up = 0  # the producer counts the first, the thread the second
        self._writing = 0
        self._write, self._capacity, self._period, self._batch = write, capacity, period, batch
        self._lines: deque[bytes] = deque()
        self._wake = threading.Event()
        self._closing = self._closed = False
        self._settling = threading.Lock()  # of what is written, lost or given up; `put` does without
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        return self._refused + self._lost + self._given_up

    def put(self, line: bytes) -> None:
        if self._closing or len(self._lines) >= self._capacity:
            self._refused += 1
            return
        self._lines.append(line)
        if len(self._lines) == self._batch:
            self._wake.set()

    def close(self, timeout: float) -> None:
        """Write what is left, for at most `timeout` seconds; what is not written then counts as dropped.

        A second call does nothing. Called from the writer's own thread, after a failed `write`, it does not wait.
        """
        self._closing = True
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        with self._settling:
            if not self._closed:
                self._closed = True
                self._given_up = len(self._lines) + self._writing
                self._lines.clear()

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(self._period)
            self._wake.clear()
            self._flush()
        self._flush()

    def _flush(self) -> None:
        while lines := self._take():
            self._settle(len(lines), self._is_written(lines))

    def _take(self) -> list[bytes]:
        with self._settling:
            lines = [self._lines.popleft() for _ in range(min(len(self._lines), self._batch))]
            self._writing = len(lines)
        return lines

    def _settle(self, lines: int, written: bool) -> None:
        """Count them, unless they were given up: then they are counted already."""
        with self._settling:
            self._writing = 0
            if not self._closed:
                self.written += lines if written else 0
                self._lost += 0 if written else lines

    def _is_written(self, lines: list[bytes]) -> bool:
        try:
            return self._write(lines)
        except Exception:  # noqa: BLE001  # the thread goes on: what comes next may be written
            return False
