"""A Landlock domain for jobs: they reach only the files that Python and the compiler are made of, and one own folder.

A domain needs no privileges, holds for root too, and cannot be removed. A process inside cannot inspect those outside,
so their environment and memory are out of reach as well. Linux has Landlock since 5.13, and since 5.19 in the version
needed here (renaming between folders). Without it, what jobs may read is not restricted.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

from avo.evaluator.folders import OURS, ROOT
from avo.evaluator.sandbox import tools

# linux/landlock.h; the system calls have these numbers on every architecture
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_RIGHTS = {2: 14, 3: 15, 4: 15, 5: 16}
"""Number of access rights to files, by version of the interface; later versions have those of 5."""
_TCP = 0b11
"""Binding and connecting; part of the interface since version 4."""
_SCOPES = 0b11
"""Abstract sockets, and signals to processes outside; part of the interface since version 6."""

READABLE = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/proc/self", "/proc/cpuinfo", "/sys/devices/system")
"""What programs are made of, and what they may ask about the machine."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


def version() -> int:
    """Return the kernel's Landlock version; 0 where it is too old, missing or switched off."""
    known = _call(_CREATE_RULESET, None, 0, _VERSION)
    return known if known >= min(_RIGHTS) else 0


def restrict(folder: str) -> None:
    """Restrict this process for good: it may read what it is made of, and do anything in ``folder``.

    Does nothing where the kernel has no Landlock. Raises ``OSError`` when the kernel refuses. The process must have
    set ``NO_NEW_PRIVS``.
    """
    known = version()
    if not known:
        return
    everything = (1 << _RIGHTS[min(known, max(_RIGHTS))]) - 1
    attributes = struct.pack("QQQ", everything, _TCP, _SCOPES)[: 24 if known >= 6 else 16 if known >= 4 else 8]
    ruleset = _checked(_CREATE_RULESET, attributes, len(attributes), 0)
    for path in _made_of():
        _allow(ruleset, path, _READ_FILE | _READ_DIR | _EXECUTE)
    for path in _DEVICES:
        _allow(ruleset, path, _READ_FILE | _WRITE_FILE)
    _allow(ruleset, folder, everything)
    _checked(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _made_of() -> Iterable[str]:
    """Yield the folders of the interpreter, its packages and ``OURS``, but not the folder these lie in; and the
    assemblers that the environment names.
    """
    entries = {Path(entry).resolve() for entry in sys.path if entry}
    yield from READABLE
    yield from (sys.prefix, sys.base_prefix, *map(os.path.realpath, OURS))
    yield from (str(entry) for entry in sorted(entries - {ROOT.resolve()}))
    yield from tools.chosen().values()


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not on this machine
    if not os.path.isdir(path):
        access &= _EXECUTE | _READ_FILE | _WRITE_FILE
    _checked(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", access, descriptor), 0)
    os.close(descriptor)


def _call(number: int, *arguments: int | bytes | None) -> int:
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    return int(syscall(number, *arguments))


def _checked(number: int, *arguments: int | bytes | None) -> int:
    result = _call(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "the kernel refuses the Landlock rules that candidates run under")
    return result
