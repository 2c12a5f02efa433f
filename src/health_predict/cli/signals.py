"""What a command does when it is told to end."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATED = 128 + signal.SIGTERM  # the exit code of a command that the signal ended


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """While the block runs, SIGTERM ends it as an error would: what is half done is cleared away."""

    def end(_number: int, _frame: FrameType | None) -> None:
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
