"""What went wrong in Triton's compiler, in words for the kernel's author: which pass, which rule, which hardware."""

import re
from collections.abc import Callable

from avo.evaluator.compiling.passes import Trace
from avo.evaluator.target import Target

_CHARS = 300
_TELLING = re.compile(r"\berror\b|\bfatal\b|assertion", re.IGNORECASE)
_EMPTY = ("Failures have been detected while processing", "A signal was caught while processing")
"""How MLIR says that there were errors, without a word about them."""
_ASSERTION = re.compile(r"Assertion `.*' failed")
_PASS = re.compile(r"Pipeline failed while executing \[`(\w+)`")
_UNREACHABLE = re.compile(r"^UNREACHABLE executed at \S*?([\w.]+:\d+)!")
_PLACED = re.compile(r"^kernel\.ttg?ir:\d+:\d+: error: ")
_IN_A_PASS = re.compile(r"ended by signal|PassManager::run failed")

_HARDWARE: tuple[tuple[str, Callable[[Target], bool], str], ...] = (
    (
        r"\bttng\.(tc_gen5|tmem)|\btcgen05\.",
        lambda target: target.tensor_memory,
        "a Blackwell kernel: tensor memory and tcgen05 need compute capability 10.0 or 10.3 (sm_100, sm_103)",
    ),
    (
        r"\bttng\.warp_group_dot|\bwgmma\.",
        lambda target: target.warpgroup_products,
        "a Hopper kernel: wgmma needs compute capability 9.0 (sm_90)",
    ),
    (
        r"\bsetmaxnreg\.",
        lambda target: target.arch >= 90,
        "a kernel for Hopper or later: setmaxnreg needs compute capability 9.0 (sm_90)",
    ),
)
"""What an error's text may be about, which targets have it, and which do, in words: operations and instructions by
their whole names, with a prefix or suffix after a dot, as no name of the author's has."""
_SPECIALISING = re.compile(r"NVGPUWarpSpecialization|nvgpu-warp-specialization")
_NAMED = "Triton's pass `"
_ABORTED = re.compile(r"Assertion|ended by signal")
_SPECIALISED = re.compile(r"tt\.warp_specialize")
_LOOP = re.compile(r"\bscf\.(for|while)\b")


def reason(stderr: str) -> str:
    """Return what a compiler wrote about its failure, each part after a semicolon; "" if it wrote nothing telling."""
    passes = (f"in Triton's pass {found}" for found in _PASS.findall(stderr)[:1])
    return "".join(f"; {part}" for part in (*_parts(stderr), *passes))


def in_a_pass(why: str) -> bool:
    """Return whether a compiler that failed for this reason may have been in one of Triton's passes."""
    return bool(_IN_A_PASS.search(why))


def failure(trace: Trace, why: str) -> str:
    """Return in one line which pass failed, on which operation, and what Triton says of it; ``why`` if it says nothing.

    An operation that Triton does not blame is the one that it wrote of last. The compiler may reach into memory that is
    not its own, and then fails by chance.
    """
    if trace.finished:
        return f"{why}; compiled once more it does not fail: Triton's compiler is at fault"
    if not trace.failed:
        return why
    on = ""
    if trace.operation:
        where = f" ({' or '.join(trace.places)})" if trace.places else ""
        on = f"{' on' if trace.blamed else ', last at'} `{trace.operation}`{where}"
    said = "; ".join(_PLACED.sub("", part) if trace.blamed else part for part in _parts(trace.said))
    said = said or why.partition("; ")[2] or why
    return f"{_NAMED}{trace.passes[-1]}` failed{on}: {said}"


def _parts(stderr: str) -> list[str]:
    lines = [line.strip() for line in stderr.splitlines()]
    said = []
    for before, line in zip(["", *lines], lines, strict=False):
        if found := _UNREACHABLE.search(line):
            said.append(f"{before} ({found[1]})")
        elif _TELLING.search(line) and not any(word in line for word in _EMPTY):
            said.append(found[0] if (found := _ASSERTION.search(line)) else line)
    return [part[:_CHARS] for part in said[:3]]


def advice(text: str, target: Target, ir: str = "") -> str:
    """Return what the author can do about an error of a kernel with Triton IR ``ir``; "" if we do not know.

    ``text`` is what the compiler wrote, without names of kernels and files, which may be anything.
    """
    for pattern, has, what in _HARDWARE:
        if re.search(pattern, text) and not has(target):
            return f"; this is {what}, {target.name} has {target.arch / 10}"
    loops = len(_LOOP.findall(ir))
    named = bool(_SPECIALISING.search(text))
    aborted = named or (_NAMED not in text and bool(_ABORTED.search(text)))
    if target.warpgroup_products and _SPECIALISED.search(ir) and aborted and (loops > 1 or named):
        # Seen with Triton 3.9 and four warps a CTA.
        rule = f"a warp-specialised loop among others, here {loops} in all: make it the only loop of the kernel"
        if loops <= 1:
            rule = (
                "scores that are carried to the next iteration, and with 128 rows a CTA on two blocks of keys in one "
                "iteration: do neither"
            )
        return (
            f"; for Hopper, Triton's pass NVGPUWarpSpecialization is known to fail on {rule}, "
            "or leave warp_specialize out"
        )
    return ""
