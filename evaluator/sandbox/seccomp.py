"""A seccomp filter for jobs that only compute: they may read files, and reach no other process.

No new processes, no sockets, no namespaces, no signals to or tracing of others; no file is made, changed, renamed or
removed. Jobs that call programs, like the compiler with its assembler, get a wider filter: they may start programs and
write files.

The filter needs no privileges (only NO_NEW_PRIVS), holds for root too, and cannot be removed.
"""

import ctypes
import errno
import os
import platform
import struct

# linux/prctl.h, linux/seccomp.h, linux/audit.h, linux/filter.h, linux/sched.h
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_OFFSET, _ARCH_OFFSET, _ARGUMENT_OFFSET = 0, 4, 16
_CLONE_THREAD = 0x00010000
_CLONE_NEW = 0x7E020000
"""The flags of ``clone`` that make a namespace, all of them."""
_X32_BIT = 0x40000000

_DENIED = {
    "x86_64": {
        "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "kill": 62, "tkill": 200,
        "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "pidfd_send_signal": 424, "ptrace": 101,
        "process_vm_readv": 310, "process_vm_writev": 311, "pidfd_getfd": 438, "socket": 41, "socketpair": 53,
        "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161,
        "bpf": 321, "perf_event_open": 298, "io_uring_setup": 425, "add_key": 248, "keyctl": 250,
        "shmget": 29, "shmat": 30, "msgget": 68, "semget": 64, "mq_open": 240,
        "creat": 85, "truncate": 76, "ftruncate": 77, "fallocate": 285, "rename": 82, "renameat": 264,
        "renameat2": 316, "mkdir": 83, "mkdirat": 258, "rmdir": 84, "link": 86, "linkat": 265, "unlink": 87,
        "unlinkat": 263, "symlink": 88, "symlinkat": 266, "mknod": 133, "mknodat": 259, "chmod": 90, "fchmod": 91,
        "fchmodat": 268, "fchmodat2": 452, "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260, "utime": 132,
        "utimes": 235, "futimesat": 261, "utimensat": 280, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190,
        "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199, "open_by_handle_at": 304, "reboot": 169,
        "init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246, "acct": 163, "swapon": 167,
        "settimeofday": 164, "clock_settime": 227, "adjtimex": 159, "sethostname": 170, "setdomainname": 171,
    },
    "aarch64": {
        "execve": 221, "execveat": 281, "kill": 129, "tkill": 130,
        "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "pidfd_send_signal": 424, "ptrace": 117,
        "process_vm_readv": 270, "process_vm_writev": 271, "pidfd_getfd": 438, "socket": 198, "socketpair": 199,
        "unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51,
        "bpf": 280, "perf_event_open": 241, "io_uring_setup": 425, "add_key": 217, "keyctl": 219,
        "shmget": 194, "shmat": 196, "msgget": 186, "semget": 190, "mq_open": 180,
        "truncate": 45, "ftruncate": 46, "fallocate": 47, "renameat": 38, "renameat2": 276, "mkdirat": 34,
        "linkat": 37, "unlinkat": 35, "symlinkat": 36, "mknodat": 33, "fchmod": 52, "fchmodat": 53, "fchmodat2": 452,
        "fchown": 55, "fchownat": 54, "utimensat": 88, "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7,
        "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16, "open_by_handle_at": 265, "reboot": 142,
        "init_module": 105, "finit_module": 273, "delete_module": 106, "kexec_load": 104, "acct": 89, "swapon": 224,
        "settimeofday": 170, "clock_settime": 112, "adjtimex": 171, "sethostname": 161, "setdomainname": 162,
    },
}  # fmt: skip
"""Linux system call numbers, from the kernel's syscall tables."""
_PROGRAMS_NEED = {
    "fork", "vfork", "execve", "kill", "tkill", "tgkill", "creat", "truncate", "ftruncate", "fallocate", "rename",
    "renameat", "renameat2", "mkdir", "mkdirat", "rmdir", "link", "linkat", "unlink", "unlinkat", "symlink",
    "symlinkat", "chmod", "fchmod", "fchmodat", "fchmodat2", "utime", "utimes", "futimesat", "utimensat",
}  # fmt: skip
"""Denied only to jobs that call no programs."""
_OWN_ONLY = {"x86_64": {"tgkill": 234, "prlimit64": 302}, "aarch64": {"tgkill": 131, "prlimit64": 261}}
"""Allowed where the first argument is 0 or the caller's own process id: ``abort`` needs the first."""
_OPEN = {"x86_64": {2: 1, 257: 2}, "aarch64": {56: 2}}
"""Calls that open a file by path (open, openat), and which of their arguments holds the flags."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3, _OPENAT2 = 435, 437
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


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
    if machine not in _DENIED:
        raise OSError(errno.ENOSYS, f"no seccomp filter for {machine}: only x86_64 and aarch64 are known")
    deny = _ERRNO | errno.EPERM
    code = [
        (_LOAD, 0, 0, _ARCH_OFFSET),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_OFFSET),
        (_JUMP_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]
    allowed = _PROGRAMS_NEED if programs else set()
    for name, number in _DENIED[machine].items():
        code += [] if name in allowed else [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, deny)]
    for name, number in _OWN_ONLY[machine].items():
        code += (
            []
            if name in allowed
            else [
                (_JUMP_EQUAL, 0, 5, number),
                (_LOAD, 0, 0, _ARGUMENT_OFFSET),
                (_JUMP_EQUAL, 2, 0, 0),
                (_JUMP_EQUAL, 1, 0, os.getpid()),
                (_RETURN, 0, 0, deny),
                (_RETURN, 0, 0, _ALLOW),
            ]
        )
    for number, argument in _OPEN[machine].items():
        code += (
            []
            if programs
            else [
                (_JUMP_EQUAL, 0, 4, number),
                (_LOAD, 0, 0, _ARGUMENT_OFFSET + 8 * argument),
                (_JUMP_SET, 0, 1, _WRITING),
                (_RETURN, 0, 0, deny),
                (_RETURN, 0, 0, _ALLOW),
            ]
        )
    # These take their flags from memory, which a filter cannot read. Without them the C library uses clone and openat.
    for number in (_CLONE3, _OPENAT2):
        code += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    # Programs: no flag that makes a namespace. Without programs: the flag of threads.
    code += [
        (_JUMP_EQUAL, 0, 3, _CLONE[machine]),
        (_LOAD, 0, 0, _ARGUMENT_OFFSET),
        (_JUMP_SET, 0, 1, _CLONE_NEW) if programs else (_JUMP_SET, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, deny),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)
