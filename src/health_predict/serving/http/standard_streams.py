"""Standard input, output and error of a process that may have been started without them."""

import os
import sys


def reopen_closed() -> None:
    """Give the null device to those that are closed.

    Else the next file or socket that is opened gets the number of one, and what is meant for the log is written to it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(descriptor, True)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115  # as long as the process
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
