"""What only the machine code accesses wrongly, found by compute-sanitizer's memcheck (NVIDIA, Compute Sanitizer 2026.4,
https://docs.nvidia.com/compute-sanitizer); ``tests/evaluator/cuda/recorded`` has its reports.

Not by racecheck: hazards in shared memory are looked for in the IR, and it reports some that are none where copies are
asynchronous (https://github.com/NVIDIA/cutlass/issues/2626).
"""

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from avo.evaluator.cuda.contender import REPORT_S, Contender, start_worker
from avo.evaluator.cuda.tools import below, run_each
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.judging.speed import CompiledPlan
from avo.evaluator.problem import Problem

ABSENT = "no compute-sanitizer on this machine: what the machine code accesses is not checked"
BUDGET_S = 120.0
"""How long all cases may take."""
_FINDING = re.compile(
    r"^========= (?P<what>Invalid __(?:global|local|shared)__ (?P<access>read|write|atomic)\b.*)\n"
    r"=========  +(?P<where>at (?:0x\w+ in (?:\S+:\d+:)?)?(?P<function>\w+).*)\n"
    r"(?P<more>(?:=========  +(?!\s|Saved|Device|Host).*\n)*)",
    re.MULTILINE,
)
"""A wrong access. Its kind is ``?`` where an old release takes a wgmma for one that is too large, which is no finding
(https://github.com/NVIDIA/compute-sanitizer-samples/issues/19).
"""
_SAID = re.compile(r"^========= (?!COMPUTE-SANITIZER)(\S.*)$", re.MULTILINE)


class Memcheck:
    """Runs plans below compute-sanitizer. Its absence is said once."""

    def __init__(self, start: Callable[..., Contender] = start_worker) -> None:
        self._start, self._told = start, False

    def check(self, problem: Problem, plans: Sequence[CompiledPlan]) -> Fault | str:
        """See ``Instruments.check``."""
        if (tool := shutil.which("compute-sanitizer")) is None:
            told, self._told = self._told, True
            return "" if told else ABSENT
        kernels = {kernel.name for each in plans for kernel in each.plan.kernels}
        with tempfile.TemporaryDirectory(prefix="avo-memcheck-") as folder:
            log = Path(folder, "log")
            # Any kernel may access torch's cache and our guards, so there are none.
            prefix = below(
                tool, "--tool", "memcheck", "--log-file", str(log), "--report-api-errors", "no",
                "--launch-timeout", f"{REPORT_S:.0f}", *(f"--kernel-name=kne={name}" for name in sorted(kernels)),
                PYTORCH_NO_CUDA_MEMORY_CACHING="1", AVO_GUARD_BYTES="0",
            )  # fmt: skip
            contender = self._start(prefix=prefix, watched=True)
            until = time.monotonic() + BUDGET_S
            trouble = run_each(
                contender, problem, plans, lambda case: contender.check(case, 1, max(until - time.monotonic(), 0.0))
            )
            report = log.read_text(errors="replace") if log.exists() else ""
        if fault := finding(report):
            return fault
        why = "; ".join(filter(None, (trouble, tool_trouble(report))))
        return why and f"compute-sanitizer did not check all small cases: {why}"


def finding(report: str) -> Fault | None:
    """Return the first wrong access in memcheck's text report, as a fault in its words."""
    if (found := _FINDING.search(report)) is None:
        return None
    more = [line.removeprefix("=========").strip() for line in found["more"].splitlines()]
    words = ", ".join([found["what"], found["where"].strip(), *filter(None, more)])
    status = Status.CRASHED if "misaligned" in words else Status.OUT_OF_BOUNDS
    return Fault(status, f"compute-sanitizer: {words}", f"{found['access']} by {found['function']}, in machine code")


def tool_trouble(report: str) -> str:
    """Return why a report has no verdict; nothing where it has one."""
    said = _SAID.findall(report)
    return "" if any("ERROR SUMMARY: " in line for line in said) else [*said, "it left no report"][0]
