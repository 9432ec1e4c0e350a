"""The memory of a judge's process: it keeps what tensors free, and seldom looks for cycles."""

import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Parameters of glibc's allocator, malloc.h."""
_KEPT_BYTES = 2**30


def keep_freed_memory() -> None:
    """Have the allocator reuse what tensors free: to return pages and get new ones takes a tenth of an evaluation."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def collect_seldom() -> None:
    """Leave all that is there by now, torch and Triton, out of collections, and make these seldom.

    With Python's own thresholds they take up to a fifteenth of a verdict. What a judge leaves in cycles is small.
    """
    gc.freeze()
    gc.set_threshold(20_000, 10, 100)
