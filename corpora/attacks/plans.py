"""Attacks on what the candidate's process hands back: launch plans that lie, and replies that are none."""

from avo.evaluator.evaluation import Status
from tests.kernels import Attack, before

FORGE = """
import dataclasses, json
from avo.evaluator.capture import recorder
from avo.evaluator.plan import Buffer, Fill, Launch, Pointer, Role
_plan = recorder.Recorder.plan
def _forged(self, case):
    plan = _plan(self, case)
    launch = plan.steps[-1]
    return {plan}
recorder.Recorder.plan = _forged
"""
REPLY = """
import json
json.dumps = lambda *args, **kwargs: {reply}
"""
INVALID = "invalid launch plan: "


def plan(code: str) -> str:
    """Return the seed whose process hands back ``code``, made of ``plan`` and its last step, ``launch``."""
    return before(FORGE.replace("{plan}", code))


def steps(code: str) -> str:
    """Return the seed whose plans have other steps."""
    return plan(f"dataclasses.replace(plan, steps={code})")


def kernel(code: str) -> str:
    """Return the seed whose plans have another kernel, made of ``kernel``."""
    return plan(f"dataclasses.replace(plan, kernels=tuple({code} for kernel in plan.kernels))")


def reply(code: str) -> str:
    """Return the seed whose process replies with the text that ``code`` makes."""
    return before(REPLY.replace("{reply}", code))


BUFFERS = {
    "an input called scratch": Attack(
        plan(
            "dataclasses.replace(plan, buffers=(dataclasses.replace(plan.buffers[0], role=Role.SCRATCH), *plan.buffers[1:]))"
        ),
        Status.FORBIDDEN,
        INVALID + "buffers must be",
    ),
    "an output called an input": Attack(
        plan(
            "dataclasses.replace(plan, buffers=(*plan.buffers[:3], dataclasses.replace(plan.buffers[3], role=Role.INPUT), plan.buffers[4]))"
        ),
        Status.FORBIDDEN,
        INVALID + "buffers must be",
    ),
    "a smaller output": Attack(
        plan(
            "dataclasses.replace(plan, buffers=(*plan.buffers[:3], dataclasses.replace(plan.buffers[3], size=1), plan.buffers[4]))"
        ),
        Status.FORBIDDEN,
        INVALID + "buffers must be",
    ),
    "a second output": Attack(
        plan("dataclasses.replace(plan, buffers=(*plan.buffers, plan.buffers[3]))"),
        Status.FORBIDDEN,
        INVALID + "buffers: an input or output is listed twice",
    ),
    "scratch of an exabyte": Attack(
        plan("dataclasses.replace(plan, buffers=(*plan.buffers, Buffer('s', 'float32', 2**38, Role.SCRATCH)))"),
        Status.FORBIDDEN,
        INVALID + "scratch buffers take",
    ),
    "a buffer of a type that is none": Attack(
        plan("dataclasses.replace(plan, buffers=(*plan.buffers, Buffer('s', 'complex64', 2, Role.SCRATCH)))"),
        Status.FORBIDDEN,
        "complex64|KeyError",
    ),
    "the plan of another case": Attack(
        plan("dataclasses.replace(plan, case='8k-full')"), Status.FORBIDDEN, INVALID + "case '8k-full'"
    ),
    "the first plan for every case": Attack(
        plan("dataclasses.replace(globals().setdefault(plan.buffers, plan), case=case)"),
        Status.INCORRECT,
        "-causal: rows|8k-full: rows|far-.*: rows",
    ),
}

STEPS = {
    "a kernel that is not there": Attack(
        steps("(dataclasses.replace(launch, kernel=7),)"), Status.FORBIDDEN, INVALID + "steps"
    ),
    "a grid of fractions": Attack(
        steps("(dataclasses.replace(launch, grid=(4.0, 4, 1)),)"), Status.FORBIDDEN, INVALID + "steps.*grid"
    ),
    "a grid of truths": Attack(
        steps("(dataclasses.replace(launch, grid=(True, True, True)),)"), Status.FORBIDDEN, INVALID + "steps.*grid"
    ),
    "too high a grid": Attack(
        steps("(dataclasses.replace(launch, grid=(1, 65536, 1)),)"),
        Status.DOES_NOT_FIT,
        "65535 in y or z.*CUDA_ERROR_INVALID_VALUE",
    ),
    "a pointer ahead of its buffer": Attack(
        steps("(dataclasses.replace(launch, args=(Pointer(0, -16), *launch.args[1:])),)"),
        Status.FORBIDDEN,
        INVALID + "steps.*byte_offset",
    ),
    "a pointer into no buffer": Attack(
        steps("(dataclasses.replace(launch, args=(Pointer(99, 0), *launch.args[1:])),)"),
        Status.FORBIDDEN,
        INVALID + "steps.*buffer",
    ),
    "an argument too few": Attack(
        steps("(dataclasses.replace(launch, args=launch.args[:-1]),)"), Status.FORBIDDEN, "argument"
    ),
    "a number for a pointer": Attack(
        steps("(dataclasses.replace(launch, args=(launch.args[5], *launch.args[1:])),)"),
        Status.FORBIDDEN,
        "argument|pointer|ptr",
    ),
    "an output passed for an input": Attack(
        steps("(dataclasses.replace(launch, args=(launch.args[3], *launch.args[1:])),)"),
        Status.INCORRECT,
        "read of uninitialised memory.*'out'",
    ),
    "an input filled": Attack(
        steps("(Fill(0, 0, (1,), (1,), 0.0), launch)"), Status.FORBIDDEN, INVALID + ".*writes to the input 'q'"
    ),
    "a fill past the end": Attack(
        steps("(Fill(3, 2**39, (1,), (1,), 0.0), launch)"), Status.FORBIDDEN, INVALID + ".*reaches element"
    ),
    "a fill of nothing, 2**40 times": Attack(
        steps("(Fill(3, 0, (2**40,), (0,), 0.0), launch)"), Status.FORBIDDEN, INVALID + ".*sets"
    ),
    "a thousand launches": Attack(steps("(launch,) * 1000"), Status.FORBIDDEN, INVALID + "steps has 1000 items"),
}

KERNELS = {
    "IR that is none": Attack(
        kernel("dataclasses.replace(kernel, ttir='module { tt.func')"), Status.COMPILE_ERROR, "is not valid Triton IR"
    ),
    "IR of 5 MB": Attack(
        kernel("dataclasses.replace(kernel, ttir='/' * 4_100_000 if case == 'square-full' else kernel.ttir)"),
        Status.FORBIDDEN,
        INVALID + "kernels have more than",
    ),
    "IR that declares its function only": Attack(
        kernel("dataclasses.replace(kernel, ttir='module { tt.func public @attention_kernel() }')"),
        Status.COMPILE_ERROR,
        "is not valid Triton IR",
    ),
    "an unknown option": Attack(
        kernel("dataclasses.replace(kernel, options=(*kernel.options, ('ptxas_options', '-O0')))"),
        Status.FORBIDDEN,
        "ptxas_options",
    ),
    "1000 warps": Attack(
        kernel(
            "dataclasses.replace(kernel, options=tuple((k, 1000 if k == 'num_warps' else v) for k, v in kernel.options))"
        ),
        Status.COMPILE_ERROR,
        "num_warps must be a power of 2",
    ),
    "an instruction set that the GPU lacks": Attack(
        kernel(
            "dataclasses.replace(kernel, options=tuple((k, 'sm_100a' if k == 'arch' else v) for k, v in (*kernel.options, ('arch', ''))))"
        ),
        Status.FORBIDDEN,
        "arch",
    ),
}

REPLIES = {
    "a verdict": Attack(
        reply("""'{"status": "correct", "message": "fast"}'"""), Status.FORBIDDEN, INVALID + ".*unknown fault"
    ),
    "a verdict that no child may give": Attack(
        reply("""'{"status": "timed_out", "message": "x"}'"""), Status.FORBIDDEN, INVALID + ".*unknown fault"
    ),
    "no plans": Attack(reply("'[]'"), Status.FORBIDDEN, INVALID + r"\d+ calls need \d+ plans"),
    "no JSON": Attack(reply("'{'"), Status.FORBIDDEN, INVALID),
    "bytes that are no text": Attack(
        reply("__import__('types').SimpleNamespace(encode=lambda: b'\\xff\\xfe')"), Status.FORBIDDEN, INVALID
    ),
    "brackets without end": Attack(reply("'[' * 1_000_000"), Status.FORBIDDEN, INVALID),
    "a number of 100000 digits": Attack(reply("'9' * 100_000"), Status.FORBIDDEN, INVALID),
    "nothing": Attack(reply("''"), Status.FORBIDDEN, INVALID),
    "200 MB": Attack(reply("' ' * 200_000_000"), Status.CRASHED, "too large"),
}

ATTACKS = BUFFERS | STEPS | KERNELS | REPLIES
