"""A seccomp filter for jobs that only compute: they may read files, and reach no other process.

It is a list of the system calls that a job may make, each group with the reason why it harms nobody: what it reads or
changes is the job's own and ends with it. Everything else is denied, calls that only later kernels know included: new
processes, sockets, namespaces, signals to others and tracing of them; the priorities, processors and memory of other
processes; the kernel's log, clock, keys and modules; any change to a file. Jobs that call programs, like the compiler
with its assembler, get a wider filter: they may start programs, write files, and signal any process that namespaces and
Landlock let them reach.

The filter needs no privileges (only NO_NEW_PRIVS), holds for root too, and cannot be removed.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator

# linux/prctl.h, linux/seccomp.h, linux/audit.h, linux/filter.h, linux/sched.h
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_OFFSET, _ARCH_OFFSET, _ARGUMENT_OFFSET = 0, 4, 16
_CLONE_THREAD = 0x00010000
_CLONE_NEW = 0x7E020000
"""The flags of ``clone`` that make a namespace, all of them."""
_X32_BIT = 0x40000000
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_FIRST_NEW = 424
"""From this number on, system calls have the same number everywhere (Linux 5.1). To these the filter says ``ENOSYS``,
as a kernel does that does not know them: the C library then takes the older call, whose arguments a filter can read
(``clone3`` and ``openat2`` take theirs from memory, which it cannot)."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

Numbers = tuple[int | None, int | None]
"""The number on x86_64 and on aarch64, from the kernel's tables; None where there is no such call."""

EVERY_JOB: dict[str, dict[str, Numbers]] = {
    "reads, writes and waits for descriptors that it has": {
        "read": (0, 63), "write": (1, 64), "close": (3, 57), "lseek": (8, 62), "pread64": (17, 67),
        "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66), "preadv": (295, 69), "pwritev": (296, 70),
        "sendfile": (40, 71), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "close_range": (436, 436),
        "pipe": (22, None), "pipe2": (293, 59), "poll": (7, None), "ppoll": (271, 73), "select": (23, None),
        "pselect6": (270, 72), "epoll_create": (213, None), "epoll_create1": (291, 20), "epoll_ctl": (233, 21),
        "epoll_wait": (232, None), "epoll_pwait": (281, 22), "eventfd": (284, None), "eventfd2": (290, 19),
    },
    "reads what files there are, within what Landlock and namespaces show": {
        "stat": (4, None), "fstat": (5, 80), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291),
        "statfs": (137, 43), "fstatfs": (138, 44), "access": (21, None), "faccessat": (269, 48),
        "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78), "getdents": (78, None),
        "getdents64": (217, 61), "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "umask": (95, 166),
    },
    "changes its own memory": {
        "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "mremap": (25, 216),
    },
    "runs its own threads and ends": {
        "exit": (60, 93), "exit_group": (231, 94), "futex": (202, 98), "set_robust_list": (273, 99),
        "set_tid_address": (218, 96), "rseq": (334, 293), "sched_yield": (24, 124), "arch_prctl": (158, None),
        "wait4": (61, 260), "waitid": (247, 95),
    },
    "handles signals to itself and sets its own timers": {
        "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
        "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "pause": (34, None),
        "restart_syscall": (219, 128), "alarm": (37, None), "getitimer": (36, 102), "setitimer": (38, 103),
        "timer_create": (222, 107), "timer_settime": (223, 110), "timer_gettime": (224, 108),
        "timer_getoverrun": (225, 109), "timer_delete": (226, 111), "nanosleep": (35, 101),
        "clock_nanosleep": (230, 115),
    },
    "asks for its own identity, limits and usage": {
        "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getpgrp": (111, None),
        "getpgid": (121, 155), "getsid": (124, 156), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176),
        "getegid": (108, 177), "getresuid": (118, 148), "getresgid": (120, 150), "getgroups": (115, 158),
        "getrlimit": (97, 163), "setrlimit": (160, 164), "getrusage": (98, 165), "times": (100, 153),
    },
    "asks for the time, random bytes and what machine this is": {
        "time": (201, None), "gettimeofday": (96, 169), "clock_gettime": (228, 113), "clock_getres": (229, 114),
        "getrandom": (318, 278), "uname": (63, 160), "sysinfo": (99, 179), "getcpu": (309, 168),
        "sched_getaffinity": (204, 123), "sched_get_priority_max": (146, 125), "sched_get_priority_min": (147, 126),
        "sched_getscheduler": (145, 120), "sched_getparam": (143, 121),
    },
}  # fmt: skip
"""Why a job may make a call, and the calls."""
PROGRAMS: dict[str, dict[str, Numbers]] = {
    # A program calls tgkill to abort, with a process id that a filter cannot know beforehand. kill, which reaches many
    # processes at once, is not needed: no job of ours ends a program, and the server ends what is left.
    "starts programs": {
        "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "setpgid": (109, 154), "setsid": (112, 157),
        "tgkill": (234, 131),
    },
    # Not what Landlock does not govern: modes, times, and before Linux 6.2 truncate by name.
    "changes files, within what Landlock and namespaces let it": {
        "open": (2, None), "openat": (257, 56), "creat": (85, None), "ftruncate": (77, 46),
        "fallocate": (285, 47), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
        "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "link": (86, None), "linkat": (265, 37),
        "unlink": (87, None), "unlinkat": (263, 35), "symlink": (88, None), "symlinkat": (266, 36),
        "flock": (73, 32), "fsync": (74, 82), "fdatasync": (75, 83),
    },
}  # fmt: skip
"""What jobs that call programs may do besides."""
OWN_PROCESS: dict[str, Numbers] = {"tgkill": (234, 131), "prlimit64": (302, 261)}
"""Allowed where the first argument is 0 or the job's own process id: ``abort`` needs the first."""
READ_ONLY: dict[str, tuple[Numbers, int]] = {"open": ((2, None), 1), "openat": ((257, 56), 2)}
"""Allowed without a flag to write, and which argument holds the flags."""
ONE_OF: dict[str, tuple[Numbers, int, tuple[int, ...]]] = {
    # duplicates, flags and locks (asm-generic/fcntl.h), not who gets a descriptor's signals and which
    "fcntl": ((72, 25), 1, (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030)),
    # terminal or not, its size, bytes to read, blocking, close on exec (asm-generic/ioctls.h)
    "ioctl": ((16, 29), 1, (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),
    # what is done to its own pages (asm-generic/mman-common.h), not what throws pages of shared files out of memory
    "madvise": ((28, 233), 2, (0, 1, 2, 3, 4, 8, 10, 11, 14, 15, 16, 17, 18, 19)),
    # names of threads and of memory, and questions, not whom it shares a core with
    "prctl": ((157, 167), 0, (3, 15, 16, 21, 23, 39, 0x53564D41)),
}
"""Allowed with these values of an argument, counted from 0."""
CLONE: Numbers = (56, 220)
"""Allowed for threads; to jobs that call programs for processes too, in the same namespaces."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


_Instruction = tuple[int, int, int, int]


def confine(*, programs: bool = False) -> None:
    """Install the filter in this process, for good; ``programs``: one that lets it call programs and change files.

    Raises ``OSError`` when the kernel or machine cannot.
    """
    code = _filter(platform.machine(), programs)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refuses the seccomp filter")


def _filter(machine: str, programs: bool) -> bytes:
    if machine not in _AUDIT_ARCH:
        raise OSError(errno.ENOSYS, f"no seccomp filter for {machine}: only x86_64 and aarch64 are known")
    column = list(_AUDIT_ARCH).index(machine)
    code: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCH_OFFSET),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_OFFSET),
        (_JUMP_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]
    for number, rule in _rules(column, programs):
        code += [(_JUMP_EQUAL, 0, len(rule), number), *rule]
    code += [
        (_JUMP_AT_LEAST, 0, 1, _FIRST_NEW),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def _rules(column: int, programs: bool) -> Iterator[tuple[int, list[_Instruction]]]:
    """Yield the number of each call that is allowed, and what decides on its arguments; the first rule counts."""
    for group in (*EVERY_JOB.values(), *(PROGRAMS.values() if programs else ())):
        for numbers in group.values():
            yield from _rule(numbers[column], [(_RETURN, 0, 0, _ALLOW)])
    for numbers in OWN_PROCESS.values():
        yield from _rule(numbers[column], _where(0, _JUMP_EQUAL, (0, os.getpid())))
    for numbers, argument in READ_ONLY.values():
        yield from _rule(numbers[column], _where(argument, _JUMP_SET, (_WRITING,), deny=True))
    for numbers, argument, values in ONE_OF.values():
        yield from _rule(numbers[column], _where(argument, _JUMP_EQUAL, values))
    flags = _CLONE_NEW if programs else _CLONE_THREAD
    yield from _rule(CLONE[column], _where(0, _JUMP_SET, (flags,), deny=programs))


def _rule(number: int | None, rule: list[_Instruction]) -> Iterator[tuple[int, list[_Instruction]]]:
    if number is not None:
        yield number, rule


def _where(argument: int, jump: int, values: tuple[int, ...], *, deny: bool = False) -> list[_Instruction]:
    """Allow the call where ``jump`` holds for an argument, its lower 32 bits, and a value; or deny it there."""
    either = ((_RETURN, 0, 0, _ERRNO | errno.EPERM), (_RETURN, 0, 0, _ALLOW))
    tests = [(jump, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [(_LOAD, 0, 0, _ARGUMENT_OFFSET + 8 * argument), *tests, either[deny], either[not deny]]
