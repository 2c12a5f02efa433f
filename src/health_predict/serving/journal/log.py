"""The service's log: JSON lines on a file descriptor, written by a thread, so that a slow reader slows no answer.

A line names routes, versions, durations and callers. It never holds content of a request.
"""

import os
import time

import msgspec

from health_predict.store.background import Background

CAPACITY = 50_000  # most waiting lines, of about 200 bytes each
BATCH = 5_000
PERIOD = 0.2  # seconds between writes


class Log:
    """Writes access lines and events in order. `dropped` counts lines lost to a blocked reader."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._queue = Background("log", self._write, CAPACITY, PERIOD, BATCH)
        self._second, self._text = 0, ""

    @property
    def dropped(self) -> int:
        return self._queue.dropped

    def event(self, event: str, **fields: str | int | float | None) -> None:
        """Log an event of the service."""
        now = time.time()
        self._queue.put(msgspec.json.encode({"time": self._stamp(now), "event": event, **fields}))

    def access(self, request_id: str, route: str, status: int, seconds: float, version: str, caller: str) -> None:
        """Log one answered request, `seconds` long. All texts are our own, and safe inside quotes."""
        self._queue.put(
            f'{{"time":"{self._stamp(time.time())}","event":"request","request_id":"{request_id}","route":"{route}",'
            f'"status":{status},"ms":{seconds * 1000:.3f},"model_version":"{version}","caller":"{caller}"}}'.encode()
        )

    def close(self) -> None:
        self._queue.close(timeout=2.0)

    def _stamp(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._second, self._text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{int(now % 1 * 1000):03}Z"

    def _write(self, lines: list[bytes]) -> bool:
        data = b"\n".join(lines) + b"\n"
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:  # only the count can tell
            return False
        return True
