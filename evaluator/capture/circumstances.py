"""The circumstances of a process, drawn anew for each: the time and random numbers.

So a plan that depends on them is another one when it is captured again, even if it depends on the date. The C library
asks for the time in the vDSO, code that the kernel maps into every process. Here it is led to code of ours, which
starts at a drawn time and lets a microsecond pass from call to call. What asks the kernel itself, by a system call or
for the times of files, gets the true time.
"""

import contextlib
import ctypes
import mmap
import platform
import secrets
import struct
import time

import numpy

_FAR_NS = 10 * 365 * 86400 * 10**9
"""The date that is drawn is at most this far from the true one: ten years."""
_EARLY_NS = 10**9
"""All other clocks start within this, far behind the kernel's: what waits for a time of theirs goes on at once."""
_STEP_NS = 1000


def draw() -> None:
    """Draw the circumstances of this process, for good. Where the kernel lets no process change its vDSO, and on other
    processors than x86-64, the time stays true.
    """
    numpy.random.seed()  # a fork goes on from its parent's state; Python's own random is seeded anew in it
    chance = secrets.SystemRandom()
    if platform.machine() == "x86_64":
        date_ns = time.time_ns() + chance.randrange(-_FAR_NS, _FAR_NS)
        with contextlib.suppress(OSError, AttributeError):
            _set_clocks(date_ns, chance.randrange(_EARLY_NS))


def _set_clocks(date_ns: int, other_ns: int) -> None:
    """Have the C library's clocks go on from these times.

    Raises ``OSError`` where the kernel refuses, ``AttributeError`` where the vDSO has other functions.
    """
    code, clocks = _pages(2)
    ctypes.memmove(clocks, struct.pack("<QQ", date_ns, other_ns), 16)
    vdso, jumps, end = ctypes.CDLL("linux-vdso.so.1"), {}, code
    for name, function in _functions(clocks, clocks + 8).items():
        entry = ctypes.cast(getattr(vdso, name), ctypes.c_void_p).value or 0
        jumps[entry] = _to_rax(end) + b"\xff\xe0"  # jmp rax
        ctypes.memmove(end, function, len(function))
        end += len(function)
    _protect(code, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC)
    first, size = _vdso()
    _protect(first, size, mmap.PROT_READ | mmap.PROT_WRITE)
    for entry, jump in jumps.items():
        ctypes.memmove(entry, jump, len(jump))
    _protect(first, size, mmap.PROT_READ | mmap.PROT_EXEC)


def _vdso() -> tuple[int, int]:
    """Return the address and size of the vDSO, which the kernel protects as a whole; raise ``OSError`` without one."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            if line.rstrip().endswith("[vdso]"):
                first, end = (int(each, 16) for each in line.split()[0].split("-"))
                return first, end - first
    raise OSError("this process has no vDSO")


def _pages(number: int) -> list[int]:
    """Return the addresses of new pages that are never freed, as code may use them to the end."""
    allocate = ctypes.CDLL(None, use_errno=True).mmap
    allocate.restype = ctypes.c_void_p
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    access = mmap.PROT_READ | mmap.PROT_WRITE
    first = allocate(None, ctypes.c_size_t(number * mmap.PAGESIZE), access, kind, -1, ctypes.c_long(0))
    if first in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "the kernel gives no memory")
    return [first + i * mmap.PAGESIZE for i in range(number)]


def _protect(address: int, size: int, protection: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), protection) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refuses to change code of its own")


def _to_rax(number: int) -> bytes:
    return b"\x48\xb8" + struct.pack("<Q", number)  # mov rax, number


def _functions(date: int, other: int) -> dict[str, bytes]:
    """Return machine code by the names of the functions that it replaces, for clocks at two addresses, uint64 each in
    nanoseconds. Arguments and results are where the System V ABI for x86-64 has them.
    """
    read = (  # advances the clock at rax; then rax is in seconds, and rdx has the nanoseconds
        b"\xb9" + struct.pack("<I", _STEP_NS)  # mov ecx, step
        + b"\xf0\x48\x0f\xc1\x08"  # lock xadd [rax], rcx
        + b"\x48\x89\xc8"  # mov rax, rcx
        + b"\x31\xd2"  # xor edx, edx
        + b"\xb9" + struct.pack("<I", 10**9)  # mov ecx, 10**9
        + b"\x48\xf7\xf1"  # div rcx
    )  # fmt: skip
    dates = b"".join(
        b"\x83\xff" + bytes([clock])  # cmp edi, clock
        + b"\x48\x0f\x44\xc6"  # cmove rax, rsi
        for clock in (0, 5, 11)  # CLOCK_REALTIME, CLOCK_REALTIME_COARSE, CLOCK_TAI of linux/time.h
    )  # fmt: skip
    return {
        "__vdso_clock_gettime": b"\x49\x89\xf0"  # mov r8, rsi
        + b"\x48\xbe" + struct.pack("<Q", date)  # mov rsi, date
        + _to_rax(other)
        + dates
        + read
        + b"\x49\x89\x00"  # mov [r8], rax
        + b"\x49\x89\x50\x08"  # mov [r8 + 8], rdx
        + b"\x31\xc0\xc3",  # xor eax, eax; ret
        "__vdso_gettimeofday": _to_rax(date)
        + read
        + b"\x48\x85\xff\x74\x14"  # test rdi, rdi; jz to the end
        + b"\x48\x89\x07"  # mov [rdi], rax
        + b"\x48\x89\xd0"  # mov rax, rdx
        + b"\x31\xd2"  # xor edx, edx
        + b"\xb9" + struct.pack("<I", 1000)  # mov ecx, 1000
        + b"\x48\xf7\xf1"  # div rcx
        + b"\x48\x89\x47\x08"  # mov [rdi + 8], rax
        + b"\x31\xc0\xc3",  # xor eax, eax; ret
        "__vdso_time": _to_rax(date)
        + read
        + b"\x48\x85\xff\x74\x03"  # test rdi, rdi; jz to the end
        + b"\x48\x89\x07"  # mov [rdi], rax
        + b"\xc3",  # ret
    }  # fmt: skip
