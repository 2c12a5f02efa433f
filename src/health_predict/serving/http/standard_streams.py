"""Reopens standard input, output and error in a process that was started without them."""

import os
import sys


def reopen_closed() -> None:
    """Open the null device for each standard stream that is closed.

    Otherwise the next opened file or socket gets the stream's number, and the log is written to it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # opens with the lowest free number: that of the closed stream
            os.set_inheritable(descriptor, True)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115  # as long as the process
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
