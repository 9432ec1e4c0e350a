"""What went wrong in Triton's compiler, in words for the kernel's author: which pass, which rule, which hardware."""

import re
from collections.abc import Callable

from evaluator.target import Target

_CHARS = 300
_TELLING = re.compile(r"\berror\b|\bfatal\b|assertion", re.IGNORECASE)
_EMPTY = ("Failures have been detected while processing", "A signal was caught while processing")
"""How MLIR says that there were errors, without a word about them."""
_ASSERTION = re.compile(r"Assertion `.*' failed")
_PASS = re.compile(r"Pipeline failed while executing \[`(\w+)`")

_HARDWARE: tuple[tuple[str, Callable[[Target], bool], str], ...] = (
    (
        r"\bttng\.(tc_gen5|tmem)|\btcgen05\.",
        lambda target: target.tensor_memory,
        "a Blackwell kernel: tensor memory and tcgen05 need compute capability 10.0 or 10.3 (sm_100, sm_103)",
    ),
    (
        r"\bttng\.warp_group_dot|\bwgmma\.",
        lambda target: target.arch == 90,
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
_ABORTED = re.compile(r"Assertion|ended by signal|NVGPUWarpSpecialization")
_SPECIALISED = re.compile(r"tt\.warp_specialize")
_LOOP = re.compile(r"\bscf\.(for|while)\b")


def reason(stderr: str) -> str:
    """Return what a compiler wrote about its failure, each part after a semicolon; "" if it wrote nothing telling."""
    lines = [line.strip() for line in stderr.splitlines()]
    telling = [line for line in lines if _TELLING.search(line) and not any(word in line for word in _EMPTY)]
    said = [found[0] if (found := _ASSERTION.search(line)) else line for line in telling]
    passes = [f"in Triton's pass {found[1]}" for line in lines if (found := _PASS.search(line))]
    return "".join(f"; {part[:_CHARS]}" for part in (*said[:3], *passes[:1]))


def advice(text: str, target: Target, ir: str = "") -> str:
    """Return what the author can do about an error of a kernel with Triton IR ``ir``; "" if we do not know.

    ``text`` is what the compiler wrote, without names of kernels and files, which may be anything.
    """
    for pattern, has, what in _HARDWARE:
        if re.search(pattern, text) and not has(target):
            return f"; this is {what}, {target.name} has {target.arch / 10}"
    loops = len(_LOOP.findall(ir))
    if target.arch == 90 and loops > 1 and _SPECIALISED.search(ir) and _ABORTED.search(text):
        # Seen with Triton 3.9 and four warps a CTA. The pass is named where it fails without aborting.
        return (
            "; for Hopper, Triton's pass NVGPUWarpSpecialization is known to fail on a warp-specialised loop beside "
            f"others, here {loops} in all: make it the only loop of the kernel, or leave warp_specialize out"
        )
    return ""
