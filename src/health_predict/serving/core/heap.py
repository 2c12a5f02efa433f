"""The C library's heap, asked to be small. Other C libraries than glibc have none of this, and are left alone."""

import ctypes

_LIBC = ctypes.CDLL(None)
_M_ARENA_MAX = -8  # of mallopt(3)


def share_one() -> None:
    """One heap for all threads: each would get its own, 3 MiB here, and ours hardly allocate."""
    if hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Return to the system what loading a model took and left free."""
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)
