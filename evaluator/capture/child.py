"""Capture, inside the candidate's process: run the module, call the entry for each case, hand back the plans."""

import inspect
import json
import linecache
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType

import msgspec
import torch
import triton.experimental.gluon  # needed by every first launch: here it is imported before the fork, once
import triton.language.extra.cuda.libdevice
import triton.tools.tensor_descriptor  # noqa: F401

from avo.evaluator.candidate import CANDIDATE_FILE
from avo.evaluator.capture import circumstances, device, launches
from avo.evaluator.capture.recorder import Recorder, RefusedError, traceback_line
from avo.evaluator.capture.tensors import Operators, make_argument, without_contents
from avo.evaluator.capture.tuning import Tuning
from avo.evaluator.evaluation import Status
from avo.evaluator.plan import LaunchPlan
from avo.evaluator.problem import Call
from avo.evaluator.target import Target

torch.set_num_threads(1)


def run(payload: bytes) -> bytes:
    """The job: from ``Capturer``'s request to JSON: a list of plans per call, or one object with status and message."""
    circumstances.draw()
    request = json.loads(payload)
    operators = Operators()
    vars(torch)["_disable_dynamo"] = _as_it_is
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.getcwd()  # importing inductor, as triton_op does, makes its folder
    device.install(msgspec.convert(request["target"], Target))
    launches.install(operators, request["source"])
    tuning = Tuning()
    try:
        module = _load(request["source"], operators, request["import_s"])
        calls = msgspec.convert(request["calls"], list[Call])
        entry = _entry(module, request["entry"], calls)
        plans = []
        for given, wanted in zip(calls, request["configurations"], strict=True):
            call = partial(_call, entry, given, operators)
            found = tuning.every(call) if wanted is None else [tuning.once(call, wanted)]
            plans.append([plan.to_json() for plan in found])
    except RefusedError as refusal:
        return json.dumps({"status": refusal.status, "message": refusal.message}).encode()
    return json.dumps(plans).encode()


def _as_it_is(function: Callable[..., object], recursive: bool = True) -> Callable[..., object]:
    """Stand for ``torch._disable_dynamo``: nothing is compiled here, and its guard would import dynamo, for seconds."""
    return function


def _load(source: str, operators: Operators, import_s: float) -> ModuleType:
    """Run the source as a module whose file exists only in the line cache: Triton reads kernels through inspect."""
    module = ModuleType("candidate")
    module.__file__ = CANDIDATE_FILE
    sys.modules[module.__name__] = module
    linecache.cache[CANDIDATE_FILE] = (len(source), None, source.splitlines(keepends=True), CANDIDATE_FILE)
    try:
        code = compile(source, CANDIDATE_FILE, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise RefusedError(Status.PARSE_ERROR, f"line {error.lineno}: {error.msg}") from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise RefusedError(Status.PARSE_ERROR, f"is not Python source: {error or type(error).__name__}") from None
    try:
        # The signal's own action ends the process: one that spins in C, or that catches all, is ended too.
        signal.setitimer(signal.ITIMER_PROF, import_s)
        try:
            with without_contents(operators):
                exec(code, module.__dict__)
        finally:  # or it would end the process before it has said what the import raised
            signal.setitimer(signal.ITIMER_PROF, 0)
    except RefusedError as refusal:
        raise refusal.said("at import, ") from None
    except MemoryError:
        raise  # how much there is, the server knows
    except BaseException as error:  # the candidate's own, whatever it is
        alone = ": a candidate is one file, which imports torch, triton and the standard library"
        hint = alone if isinstance(error, ImportError) else ""
        raise RefusedError(Status.PARSE_ERROR, f"raises at import: {_describe(error)}{hint}") from None
    return module


def _entry(module: ModuleType, name: str, calls: Sequence[Call]) -> Callable[..., object]:
    entry: Callable[..., object] | None = getattr(module, name, None)
    if not callable(entry):
        raise RefusedError(Status.NO_ENTRY, f"defines no function {name}{_arguments(calls[0]) if calls else ''}")
    return entry


def _arguments(call: Call) -> str:
    scalars = dict(call.scalars)
    return f"({', '.join([spec.name for spec in call.tensors] + (['*', *scalars] if scalars else []))})"


def _call(entry: Callable[..., object], call: Call, operators: Operators) -> LaunchPlan:
    operators.recorder = Recorder()
    tensors = [make_argument(spec, operators) for spec in call.tensors]
    scalars = dict(call.scalars)
    name = getattr(entry, "__name__", "the entry")
    try:
        inspect.signature(entry).bind(*tensors, **scalars)
    except (TypeError, ValueError) as error:
        raise RefusedError(Status.NO_ENTRY, f"{name} must take {_arguments(call)}: {error}") from None
    try:
        with without_contents(operators):
            entry(*tensors, **scalars)
    except RefusedError as refusal:
        raise refusal.said(f"case {call.case}: ") from None
    except MemoryError:
        raise
    except BaseException as error:  # the candidate's own, whatever it is
        raise RefusedError(Status.NO_ENTRY, f"case {call.case}: {name}() raised {_describe(error)}") from None
    return operators.recorder.plan(call.case)


def _describe(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}{f': {text[0][:500]}' if text else ''}{traceback_line(error.__traceback__)}"
