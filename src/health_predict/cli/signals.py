"""How a command handles SIGTERM."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATED = 128 + signal.SIGTERM  # the exit code of a command that the signal ended


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """While the block runs, SIGTERM raises SystemExit(TERMINATED), so that incomplete outputs are deleted."""

    def end(_number: int, _frame: FrameType | None) -> None:
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
