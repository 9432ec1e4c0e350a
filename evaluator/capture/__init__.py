"""Capture, seen from the trusted side: asks a sandboxed child what a candidate would launch, and trusts nothing.

The child runs the candidate with tensors that have shapes but no contents and writes down launch plans; see
``capture.child``. What comes back is checked here before anyone uses it.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from avo.evaluator.capture.plan_reading import plan_from_json
from avo.evaluator.compiling.reasons import advice
from avo.evaluator.errors import InvalidPlan
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.plan import DEFAULT_LIMITS as PLAN_LIMITS
from avo.evaluator.plan import Buffer, Configuration, LaunchPlan, Role
from avo.evaluator.problem import Call
from avo.evaluator.sandbox.jobs import Crashed, ForkServer, Limits, TimedOut
from avo.evaluator.sandbox.memory import MOST_BYTES
from avo.evaluator.target import Target

CHILD_MODULE = "avo.evaluator.capture.child"
DEFAULT_LIMITS = Limits(
    wall_s=60,
    cpu_s=60,
    memory_bytes=MOST_BYTES,
    file_bytes=0,
    open_files=64,
    processes=1024,
    result_bytes=32 * 2**20,
    confined=True,
)
"""For the capture of up to ``_CALLS`` calls; more may take more processor time and room in proportion."""
_CALLS = 20
_IMPORT_S = 10.0
"""Seconds of processor time that a candidate's module may take to be imported."""
_IMPORT_ENDED = "was ended by signal SIGPROF"
"""How a module ends whose import takes more."""
_CHILD_STATUSES = {
    Status.PARSE_ERROR,
    Status.NO_ENTRY,
    Status.READS_CONTENTS,
    Status.FORBIDDEN,
    Status.LOWERING_ERROR,
    Status.UNSUPPORTED,
}
"""Faults that the child may report. Its process is under the candidate's control, so it can report nothing else."""
_MESSAGE_CHARS = 2000
_MLIR_FAILED = re.compile(r"[^`]*\bkernel \w+: RuntimeError: ")
"""An error of MLIR's, which has told stderr why; a line of the candidate's source would stand after a backtick."""


class Capturer:
    """Turns candidate source into launch plans."""

    def __init__(self, server: ForkServer | None = None, limits: Limits = DEFAULT_LIMITS) -> None:
        """Use ``server``, which must serve ``CHILD_MODULE``, or one of its own."""
        self._server = server or ForkServer((CHILD_MODULE,))
        self._limits = limits

    def capture(
        self,
        source: str,
        entry: str,
        calls: Sequence[Call],
        target: Target,
        configurations: Sequence[Configuration] = (),
    ) -> tuple[LaunchPlan, ...] | Fault:
        """Return one plan per call, in order, of running ``source`` and calling ``entry`` for each.

        Autotuned kernels take the given configurations, others their first one. Raises ``EvaluatorUnavailable`` when
        the sandbox cannot be started.
        """
        wanted = {configuration.kernel: configuration.choice for configuration in configurations}
        plans = self._run(source, entry, calls, target, wanted)
        return plans if isinstance(plans, Fault) else tuple(plan for (plan,) in plans)

    def alternatives(
        self, source: str, entry: str, calls: Sequence[Call], target: Target
    ) -> tuple[tuple[LaunchPlan, ...], ...] | Fault:
        """Return, per call, a plan for each configuration of each autotuned kernel, the other kernels at their first.

        Otherwise like ``capture``, which gives the first of each.
        """
        return self._run(source, entry, calls, target, None)

    def _run(
        self, source: str, entry: str, calls: Sequence[Call], target: Target, wanted: dict[str, str] | None
    ) -> tuple[tuple[LaunchPlan, ...], ...] | Fault:
        request = {
            "source": source,
            "import_s": _IMPORT_S,
            "entry": entry,
            "target": asdict(target),
            "calls": [asdict(call) for call in calls],
            "configurations": [wanted] * len(calls),
        }
        share = max(1, math.ceil(len(calls) / _CALLS))
        limits = replace(self._limits, cpu_s=share * self._limits.cpu_s, result_bytes=share * self._limits.result_bytes)
        outcome = self._server.run(f"{CHILD_MODULE}:run", json.dumps(request).encode(), limits)
        if isinstance(outcome, TimedOut):
            return Fault(Status.TIMED_OUT, f"the candidate's host code {outcome.reason}")
        if isinstance(outcome, Crashed) and outcome.reason == _IMPORT_ENDED:
            used = f"the candidate's module used up {_IMPORT_S:g} s of processor time at import"
            return Fault(Status.TIMED_OUT, f"{used}: does it loop without end? Compute in {entry}() or in a kernel")
        if isinstance(outcome, Crashed):
            return Fault(Status.CRASHED, f"the candidate's process {outcome.reason}{_last_line(outcome.stderr)}")
        try:
            reply = json.loads(outcome.result)
            if isinstance(reply, dict) and set(reply) == {"status", "message"}:
                return _fault(reply, outcome.stderr, target)
            if not isinstance(reply, list) or len(reply) != len(calls):
                raise InvalidPlan(f"{len(calls)} calls need {len(calls)} plans")
            most = PLAN_LIMITS.configurations if wanted is None else 1
            return tuple(_alternatives(data, call, most) for data, call in zip(reply, calls, strict=True))
        except (ValueError, RecursionError) as error:  # not JSON
            return Fault(Status.FORBIDDEN, f"invalid launch plan: {error}"[:_MESSAGE_CHARS])
        except InvalidPlan as error:
            return Fault(Status.FORBIDDEN, f"invalid launch plan: {error}"[:_MESSAGE_CHARS])

    def close(self) -> None:
        """Stop the fork server."""
        self._server.close()


def _fault(reply: dict[str, Any], stderr: str, target: Target) -> Fault:
    status, message = reply["status"], reply["message"]
    if status not in _CHILD_STATUSES or not isinstance(message, str) or not message:
        raise InvalidPlan("the candidate's process reports an unknown fault")
    if status == Status.LOWERING_ERROR and _MLIR_FAILED.match(message):
        why = _last_line(stderr)
        message += why + advice(why, target)
    return Fault(Status(status), message[:_MESSAGE_CHARS])


def _last_line(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line.lower()]
    return f": {(errors or lines)[-1][:500]}" if lines else ""


def _alternatives(data: object, call: Call, most: int) -> tuple[LaunchPlan, ...]:
    if not isinstance(data, list) or not 1 <= len(data) <= most:
        raise InvalidPlan(f"a call needs a list of 1 to {most} plans")
    return tuple(_checked(plan_from_json(item), call) for item in data)


def _checked(plan: LaunchPlan, call: Call) -> LaunchPlan:
    given = tuple(Buffer(spec.name, spec.dtype, spec.size, spec.role) for spec in call.tensors)
    if plan.case != call.case:
        raise InvalidPlan(f"case {plan.case!r} must be {call.case!r}")
    if plan.buffers[: len(given)] != given or any(b.role is not Role.SCRATCH for b in plan.buffers[len(given) :]):
        raise InvalidPlan("buffers must be the call's tensors, then scratch")
    return plan
