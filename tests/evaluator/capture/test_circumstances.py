"""A process has a time of its own, by whichever function of Python or C it asks for it."""

import json
import platform
import subprocess
import sys
import time
from typing import Any

import pytest

from avo.evaluator.capture import Capturer
from avo.evaluator.problem import Call
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code is x86-64's")

CLOCKS = """
import ctypes, datetime, json, threading, time
from avo.evaluator.capture import circumstances
circumstances._set_clocks(1_000_000_000_999_999_000, 5_999_999_000)
libc = ctypes.CDLL(None)
at, both = ctypes.c_long(), (ctypes.c_long * 2)()
utc = datetime.timezone.utc
found = [time.time_ns(), time.clock_gettime_ns(time.CLOCK_TAI), time.clock_gettime_ns(5)]
found += [libc.time(ctypes.byref(at)), at.value, libc.time(None), libc.gettimeofday(both, None), *both]
found += [libc.gettimeofday(None, None), str(datetime.datetime.now(utc)), str(datetime.date.today())]
found += [time.monotonic_ns(), time.perf_counter_ns(), time.process_time_ns(), time.thread_time_ns()]
waited = threading.Event().wait(20)
time.sleep(20)
print(json.dumps([*found, waited]))
"""
DATED = """
import time, torch
def entry():
    torch.zeros(int(time.time()) % 10**9, dtype=torch.int8, device='cuda')  # within the limit on scratch
"""


@pytest.fixture(scope="module")
def asked() -> list[Any]:
    """What the clocks of a process said whose clocks were set."""
    ended = subprocess.run([sys.executable, "-c", CLOCKS], capture_output=True, text=True, timeout=600)
    if "the kernel refuses" in ended.stderr:
        pytest.skip("this kernel lets no process change its vDSO")
    assert ended.returncode == 0, ended.stderr
    found: list[Any] = json.loads(ended.stdout)
    return found


def test_all_clocks_of_the_c_library_go_on_from_given_times(asked: list[Any]) -> None:
    second = 1_000_000_001
    dates = [second * 10**9 - 1000, second * 10**9, second * 10**9 + 1000]
    calls = [second, second, second, 0, second, 4, 0, "2001-09-09 01:46:41.000006+00:00", "2001-09-09"]
    assert asked[:12] == [*dates, *calls]
    *others, waited = asked[12:]
    assert others == sorted(set(others))
    assert all(5_999_999_000 <= each < 6_001_000_000 for each in others)  # Python itself asks in between
    assert waited is False


def test_the_date_in_a_candidates_process_is_not_the_true_one(fork_server: ForkServer, asked: list[Any]) -> None:
    before = int(time.time())
    plans = Capturer(fork_server).capture(DATED, "entry", [Call("case", (), ())], get_target("h100"))
    true = {second % 10**9 for second in range(before, int(time.time()) + 1)}
    assert isinstance(plans, tuple), plans
    assert plans[0].buffers[0].size not in true
