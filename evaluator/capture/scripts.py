"""Scratch scripts: an author's own Python code, run in the sandbox without files, network or other processes."""

import json

from avo.evaluator.capture import DEFAULT_LIMITS
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.inspection import Findings
from avo.evaluator.sandbox.jobs import Crashed, ForkServer, TimedOut

JOB_MODULE = "avo.evaluator.capture.script_job"


def run_script(server: ForkServer, source: str) -> Findings:
    """Return what ``source`` prints; ``server`` must serve ``JOB_MODULE``. Raises ``EvaluatorUnavailable``."""
    outcome = server.run(f"{JOB_MODULE}:run", source.encode("utf-8", "replace"), DEFAULT_LIMITS)
    if isinstance(outcome, TimedOut):
        return Findings(Fault(Status.TIMED_OUT, f"the script {outcome.reason}"))
    if isinstance(outcome, Crashed):
        return Findings(Fault(Status.CRASHED, f"the script's process {outcome.reason}"), outcome.stderr)
    try:
        reply = json.loads(outcome.result)
        output, error = str(reply["output"]), str(reply["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return Findings(Fault(Status.CRASHED, "the answer of the script's process cannot be read"))
    fault = Fault(Status.CRASHED, error.strip()) if error.strip() else None
    return Findings(fault, output)
