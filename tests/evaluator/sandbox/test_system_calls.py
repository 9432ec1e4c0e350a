"""Every system call is denied to a job, or is on a list that says why it harms nobody."""

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from avo.evaluator.sandbox import seccomp
from avo.evaluator.sandbox.jobs import ForkServer, Limits
from tests.evaluator.sandbox.isolation import FREE, LIMITS, result

if platform.machine() != "x86_64":
    pytest.skip("the table of system calls is that of x86-64", allow_module_level=True)

TABLE = {
    name: int(number)
    for number, _, name in (
        line.partition(" ") for line in Path(__file__).with_name("system_calls.txt").read_text().splitlines()
    )
}
"""All system calls of x86-64 up to Linux 7.0, from its arch/x86/entry/syscalls/syscall_64.tbl."""
PROBES = {"uretprobe", "uprobe"}
"""Linux lets these pass every filter. It ends a process that calls them from elsewhere than the kernel's own probes."""
UNKNOWN = {f"unknown {number}": number for number in (*range(337, 424), *range(472, 600))}
NEVER = """
    setpriority sched_setaffinity sched_setattr sched_setparam sched_setscheduler ioprio_set
    kill tkill rt_sigqueueinfo pidfd_open pidfd_getfd pidfd_send_signal ptrace process_vm_readv process_vm_writev
    process_madvise process_mrelease move_pages migrate_pages kcmp
    socket socketpair connect bind listen accept accept4 sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg
    shmget shmat msgget semget mq_open memfd_create userfaultfd io_uring_setup io_setup
    mount umount2 pivot_root chroot unshare setns fsopen open_tree move_mount name_to_handle_at open_by_handle_at
    setuid setgid setreuid setresuid setfsuid setgroups capset personality seccomp keyctl add_key request_key
    syslog bpf perf_event_open init_module finit_module delete_module kexec_load reboot swapon swapoff acct quotactl
    settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname iopl ioperm fanotify_init
    chown fchown lchown fchownat setxattr getxattr listxattr mknod mknodat
    chmod fchmod fchmodat fchmodat2 utime utimes futimesat utimensat truncate
"""
"""What reaches other processes, the network or the machine: on no list, whatever reason one would give."""
KINDS = pytest.mark.parametrize("limits", [LIMITS, FREE], ids=["confined", "free"])

CALLING = """
import ctypes, errno, json
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    ctypes.set_errno(0)
    status = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments))
    return "allowed" if status >= 0 else errno.errorcode[ctypes.get_errno()]
"""


def allowed(limits: Limits) -> Iterator[tuple[str, int | None]]:
    """The system calls that a job may make, with whatever arguments or some."""
    groups = [*seccomp.EVERY_JOB.values(), seccomp.OWN_PROCESS, {"clone": seccomp.CLONE}]
    groups += [] if limits.confined else seccomp.PROGRAMS.values()
    groups += [{name: rule[0] for rules in (seccomp.READ_ONLY, seccomp.ONE_OF) for name, rule in rules.items()}]
    return ((name, numbers[0]) for group in groups for name, numbers in group.items())


@KINDS
def test_a_call_that_is_not_on_the_list_is_denied(server: ForkServer, limits: Limits) -> None:
    listed = {name for name, _ in allowed(limits)} | PROBES
    others = {name: number for name, number in (TABLE | UNKNOWN).items() if name not in listed}
    code = (
        CALLING + f"result = json.dumps({{name: call(n, 0, 0, 0, 0, 0, 0) for name, n in {others!r}.items()}}).encode()"
    )
    said = json.loads(result(server, code, limits))
    assert {name: word for name, word in said.items() if word not in ("EPERM", "ENOSYS")} == {}
    assert said.keys() >= set(NEVER.split())


@KINDS
def test_the_list_has_the_kernels_numbers(limits: Limits) -> None:
    assert {name: number for name, number in allowed(limits) if TABLE[name] != number} == {}


@KINDS
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("prlimit64", "os.getppid(), 0, 0, 0"),
        ("fcntl", "1, 8, os.getppid()"),  # F_SETOWN: who is sent the signals of a descriptor
        ("fcntl", "1, 10, 9"),  # F_SETSIG: which signal
        ("fcntl", "1, 1026, 0"),  # F_NOTIFY: what others do in a folder
        ("ioctl", "0, 0x5412, 0"),  # TIOCSTI: typing on a terminal
        ("madvise", "0, 4096, 21"),  # MADV_PAGEOUT: pages of a library that the next job shares
        ("madvise", "0, 4096, 100"),  # MADV_HWPOISON
        ("prctl", "62, 1, os.getppid(), 0, 0"),  # PR_SCHED_CORE: with whom others share a core
        ("prctl", "1, 0, 0, 0, 0"),  # PR_SET_PDEATHSIG: to live longer than the server
        ("prctl", "4, 1, 0, 0, 0"),  # PR_SET_DUMPABLE
        ("clone", "0x10000000 | 17, 0, 0, 0, 0"),  # CLONE_NEWUSER
    ],
)  # fmt: skip
def test_a_call_that_reaches_beyond_the_job_is_denied_by_its_arguments(
    server: ForkServer, name: str, arguments: str, limits: Limits
) -> None:
    code = CALLING + f"import os\nresult = call({TABLE[name]}, {arguments}).encode()"
    assert result(server, code, limits) == "EPERM"


@KINDS
def test_a_job_has_no_capability(server: ForkServer, limits: Limits) -> None:
    code = "result = ''.join(line for line in open('/proc/self/status') if line.startswith(('Cap', 'NoNew'))).encode()"
    said = dict(line.split() for line in result(server, code, limits).splitlines())
    most = said.pop("CapBnd:")
    none = f"{0:016x}"
    assert said == {"CapInh:": none, "CapPrm:": none, "CapEff:": none, "CapAmb:": none, "NoNewPrivs:": "1"}
    assert most == none or os.geteuid() != 0, "only root may lower this, and nobody else gains from it"


@KINDS
def test_what_a_job_does_to_its_open_files_is_not_seen_by_the_next(server: ForkServer, limits: Limits) -> None:
    flags = "os.O_NONBLOCK | os.O_APPEND"
    result(server, f"import fcntl, os\nfor fd in range(4): fcntl.fcntl(fd, fcntl.F_SETFL, {flags})", limits)
    code = f"any(fcntl.fcntl(fd, fcntl.F_GETFL) & ({flags}) for fd in range(4))"
    assert result(server, f"import fcntl, os\nresult = repr({code}).encode()", limits) == "False"


def test_a_job_shares_no_writable_memory_with_its_server(server: ForkServer) -> None:
    shared = "[line for line in open('/proc/self/maps') if line.split()[1] in ('rw-s', '-w-s', 'rwxs')]"
    assert result(server, f"result = repr({shared}).encode()") == "[]"
