"""Traits: what kind of kernel a correct candidate is, in words that a search can sort kernels by."""

import re
from collections.abc import Mapping

from avo.evaluator.evaluation import Resources, Score
from avo.evaluator.judging.speed import CompiledPlan
from avo.evaluator.target import Target

_SHARED_STEP = 32 * 1024
_ATOMIC_SUM = re.compile(r"\btt\.(atomic_rmw fadd\b|descriptor_reduce add\b.*xb?f\d+)")
_PRODUCT = re.compile(r"\btt\.dot(?:_scaled)?\b.*-> tensor<((?:\d+x)+)\w+>")


def traits(compiled: CompiledPlan, resources: Mapping[str, Resources], score: Score, target: Target) -> dict[str, str]:
    """Return the traits of the launch of ``compiled`` that does most matrix products; where there are none, only how it
    sums.

    ``resources`` are by the name of the kernel.
    """
    atomic = any(_ATOMIC_SUM.search(each.ttir) for each in compiled.plan.kernels)
    sums = {"sums": "atomic" if atomic else "in order"}
    launches = list(zip(compiled.plan.launches, compiled.works, strict=True)) if compiled.works else []
    launch, work = max(launches, key=lambda pair: pair[1].total("dot_flops"), default=(None, None))
    if launch is None or work is None or not work.total("dot_flops"):
        return sums
    kernel = compiled.plan.kernels[launch.kernel]
    needs = resources[work.binary.name]
    products = sum(bool(loop.body.dot_flops) for loop in work.loops)
    case = score.cases[0]
    found = _PRODUCT.search(kernel.ttir)
    return {
        "tile": found[1].rstrip("x") if found else "",
        "warps": str(needs.warps),
        "stages": str(kernel.option.get("num_stages") or ""),
        "shared": f"{-(-needs.shared_bytes // _SHARED_STEP) * _SHARED_STEP // 1024} KiB",
        "occupancy": str(needs.ctas_per_sm),
        "limiter": case.critical or case.limiter,
        "masks": "one loop" if products <= 1 else "split",
        "grid": "persistent" if work.programs <= target.sms * max(needs.ctas_per_sm, 1) else "one a tile",
        **sums,
    }
