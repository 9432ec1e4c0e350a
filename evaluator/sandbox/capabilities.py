"""Takes all of Linux's capabilities from a process, for good: what root may do beyond being the owner of its files."""

import ctypes
import os

# linux/prctl.h, linux/capability.h
_PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 47, 4
_VERSION_3 = 0x20080522


def drop() -> None:
    """Drop the capabilities of this process, which must have one thread, and of all that it will start.

    Raises ``OSError`` when the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(64):  # the bounding set: what root would get back with the next program
        if libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            break  # there is no such capability, or this is not root, to whom NO_NEW_PRIVS gives none back
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header, none = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), f"the kernel refuses to drop capabilities: {os.strerror(ctypes.get_errno())}")
