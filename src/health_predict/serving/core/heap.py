"""Trims glibc's heap; does nothing with other C libraries."""

import ctypes

_LIBC = ctypes.CDLL(None)


def give_back() -> None:
    """Return free memory to the operating system, such as loading a model leaves."""
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)
