"""The C library's heap, asked to be small. Other C libraries than glibc have none of this, and are left alone."""

import ctypes

_LIBC = ctypes.CDLL(None)


def give_back() -> None:
    """Return to the system what loading a model took and left free."""
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)
