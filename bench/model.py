"""Compare the performance model with published figures and known orders, and show what its constants do.

python -m bench.model             prints the tables
python -m bench.model anchors     prints some of them, by name
python -m bench.model --write     also puts them into docs/performance-model.md, between their markers
"""

import math
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from avo.config import RunConfig
from avo.evaluator.compiling.compile_job import listing
from avo.evaluator.evaluation import Score
from avo.evaluator.performance.constants import Constants, constants, figures
from avo.evaluator.performance.kernel import costs_under, measure, read
from avo.evaluator.performance.model import time_case
from avo.evaluator.performance.reliefs import relieved
from avo.evaluator.performance.replay import plays
from avo.evaluator.resolution import difference
from avo.evaluator.target import TARGETS, ScoreKind, Target
from avo.evaluator.targets import get_target
from bench.anchors import ANCHORS, LENGTHS, PAIRS, Anchor
from bench.measured.families import FAMILIES
from bench.measured.statistics import Judged, Searched, agreement, judged, searched
from bench.tables import Table, head, main, row
from bench.variants import Variant, case_of, compile_variant, predict_variant

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance-model.md"
LENGTH = LENGTHS[-1]
_STEP = 0.2
"""Share by which each constant is moved, down and up."""
_TARGET_FIGURES = ("sustained_clock_ratio", "tensor_flop", "fp32_lanes", "sfu_lanes", "hbm_bytes_per_s")


def anchors() -> Table:
    """Predicted against published TFLOPS, each at the batch and the heads that were published."""
    yield from head(
        "target", "kernel", "predicted at 4k / 8k / 16k", "range at 16k", "published", "mean error", "limiter"
    )
    errors: dict[str, list[float]] = {}
    for anchor in ANCHORS:
        cases = zip(LENGTHS, anchor.rows, strict=True)
        scores = [predict_variant(anchor.variant, anchor.target, length, rows) for length, rows in cases]
        error = _error([score.tflops for score in scores], anchor)
        errors.setdefault(anchor.target, []).append(error)
        last = scores[-1]
        yield row(
            anchor.target,
            anchor.name,
            " / ".join(f"{score.tflops:.0f}" for score in scores),
            f"{last.low_tflops:.0f} to {last.high_tflops:.0f}",
            f"{_published(anchor)}, {anchor.source}",
            f"{error:.0%}",
            last.limiter,
        )
    means = ", ".join(f"{target} {sum(found) / len(found):.0%}" for target, found in errors.items())
    yield f"\nMean error: {means}."


def _published(anchor: Anchor) -> str:
    if anchor.low == anchor.high:
        return " / ".join(map(str, anchor.low))
    return f"{anchor.low[0]} to {anchor.high[0]}"


def _error(predicted: Sequence[float], anchor: Anchor) -> float:
    """Mean over the lengths of |predicted / middle of published - 1|."""
    middles = [(low + high) / 2 for low, high in zip(anchor.low, anchor.high, strict=True)]
    return statistics.fmean(abs(mine / theirs - 1) for mine, theirs in zip(predicted, middles, strict=True))


def pairs() -> Table:
    """Whether known orders are predicted, and whether in as many draws as acceptance asks for."""
    yield from head("target", "what is faster", "slower", "faster", "gain", "order", "resolved", "why it is known")
    for pair in PAIRS:
        slower, faster = (predict_variant(variant, pair.target, LENGTH) for variant in (pair.slower, pair.faster))
        gain = faster.tflops / slower.tflops - 1
        scores = [Score(ScoreKind.PREDICTED, pair.target, (case,)) for case in (faster, slower)]
        resolved = (difference(scores[0], scores[1]).share or 0.0) >= RunConfig.model_fields["min_share"].default
        yield row(
            pair.target,
            pair.name,
            f"{slower.tflops:.0f}",
            f"{faster.tflops:.0f}",
            f"{gain:+.0%}",
            "right" if gain > 0 else "WRONG",
            "yes" if resolved else "no",
            pair.source,
        )


def measured(names: tuple[str, ...] = tuple(FAMILIES), processes: int = 2) -> Table:
    """Predictions against published measurements, by family and card."""
    groups: dict[tuple[str, str], list[Judged]] = {}
    found = judged(names, processes)
    for each in found:
        groups.setdefault((each.family, each.card), []).append(each)
    yield from head(
        "kernels", "card", "n", "Spearman", "within a problem", "mean error", "fitted half", "held-out half",
        "predicted / measured", "inside the range", "held-out half", "high / low", "regret: median, most",
    )  # fmt: skip
    for (family, card), rows in groups.items():
        yield row(family, card, *_agreed(rows))
    yield row("all", "", *_agreed(found))


def _agreed(found: Sequence[Judged]) -> Iterator[str]:
    whole = agreement(found)
    fitted, held_out = ([each for each in found if each.held_out == out] for out in (False, True))
    yield from (str(whole.count), _figure(whole.spearman), _figure(whole.within), f"{whole.error:.1%}")
    yield from (f"{agreement(half).error:.1%}" if half else "" for half in (fitted, held_out))
    yield from (f"{whole.bias:.2f}", f"{whole.inside:.0%}")
    yield f"{agreement(held_out).inside:.0%}" if held_out else ""
    yield from (f"{whole.width:.2f}", _regrets(whole.regrets))


def _figure(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _regrets(regrets: Sequence[float]) -> str:
    return f"{statistics.median(regrets):.2f}, {max(regrets):.2f}" if regrets else ""


def searches(processes: int = 2) -> Table:
    """What the model would choose in searches whose winner was published."""
    groups: dict[tuple[object, ...], list[Searched]] = {}
    for each in searched(processes):
        groups.setdefault(each.problem[2:], []).append(each)
    yield from head(
        "N, K", "values of M", "configurations", "predicted time of the winner over the least: median, most"
    )
    for sizes, found in groups.items():
        counts = [each.candidates for each in found]
        shown = f"{min(counts)} to {max(counts)}"
        yield row(", ".join(map(str, sizes)), len(found), shown, _regrets([each.regret for each in found]))
    yield row("all", sum(map(len, groups.values())), "", _regrets([each.regret for each in searched(processes)]))


def sensitivity() -> Table:
    """How scores and orders move with each constant, a fifth down and up. What changes nothing is left out."""
    anchored = [(anchor.variant, anchor.target) for anchor in ANCHORS]
    paired = [(variant, pair.target) for pair in PAIRS for variant in (pair.slower, pair.faster)]
    kernels = list(dict.fromkeys(anchored + paired))
    base = {kernel: _tflops(*kernel) for kernel in kernels}
    yield from head("constant", "mean change at -20% / +20%", "largest", "orders reversed")
    rows = []
    for name in (*Constants.__dataclass_fields__, *_TARGET_FIGURES):
        moved = [{kernel: _tflops(*kernel, _moved(name, 1 + step)) for kernel in kernels} for step in (-_STEP, _STEP)]
        changes = [[scores[kernel] / base[kernel] - 1 for kernel in kernels] for scores in moved]
        largest = max((change for change in changes[0] + changes[1]), key=abs)
        turned = sum(
            (base[pair.slower, pair.target] < base[pair.faster, pair.target])
            != (scores[pair.slower, pair.target] < scores[pair.faster, pair.target])
            for scores in moved
            for pair in PAIRS
        )
        means = " / ".join(f"{sum(side) / len(side):+.1%}" for side in changes)
        if abs(largest) >= 0.0005:
            rows.append((abs(largest), row(f"`{name}`", means, f"{largest:+.1%}", turned)))
    yield from (row for _, row in sorted(rows, key=lambda row: -row[0]))


Move = Callable[[Target, Constants], tuple[Target, Constants]]


def _moved(name: str, factor: float) -> Move:
    def move(target: Target, table: Constants) -> tuple[Target, Constants]:
        if name in _TARGET_FIGURES:
            return replace(target, **{name: getattr(target, name) * factor}), table
        if name == "wgmma_in_turn":  # a choice, not an amount
            return target, replace(table, wgmma_in_turn=float(factor > 1))
        return target, replace(table, **{name: getattr(table, name) * factor})

    return move


def _tflops(variant: Variant, target: str, move: Move = lambda target, table: (target, table)) -> float:
    chosen, table = move(get_target(target), constants(get_target(target).arch))
    flops, least_bytes, launches = case_of(variant, target, LENGTH)

    return flops / time_case(launches, least_bytes, chosen, table=table).seconds / 1e12


def constant_table() -> Table:
    """Every constant of every architecture."""
    architectures = sorted({target.arch for target in TARGETS.values()})
    yield from head("constant", *(f"sm_{arch}" for arch in architectures), "range", "source")
    tables = [figures(arch) for arch in architectures]
    for name in Constants.__dataclass_fields__:
        found = [table[name] for table in tables]
        ranges = dict.fromkeys(f"{f.slow:g} to {f.fast:g}" for f in found if f.slow != f.fast)
        sources = dict.fromkeys(figure.source for figure in found)
        yield row(f"`{name}`", *(f"{f.value:g}" for f in found), "; ".join(ranges), "; ".join(sources))


def cost() -> Table:
    """Processor time of a kernel's first prediction, and of its next case; the least of three."""
    yield from head("kernel", "disassembly", "first case", "both", "next case")
    for anchor in ANCHORS:
        disassembly, first, following = map(min, zip(*(_costs(anchor) for _ in range(3)), strict=True))
        seconds = (disassembly, first, disassembly + first, following)
        yield row(f"{anchor.target} {anchor.name}", *(f"{spent:.2f} s" for spent in seconds))


def _costs(anchor: Anchor) -> tuple[float, float, float]:
    binary = compile_variant(anchor.variant, get_target(anchor.target).arch)
    for cached in (measure, costs_under, read, plays, relieved):
        cached.cache_clear()
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(binary.cubin)
        cubin.flush()
        disassembly = _spent(partial(listing, Path(cubin.name), binary.ptx))
    first, following = (_spent(partial(predict_variant, anchor.variant, anchor.target, at)) for at in LENGTHS[:2])
    return disassembly, first, following


def _spent(act: Callable[[], object]) -> float:
    """Return the processor time of this process and its children that ``act`` takes, in seconds."""
    started = sum(os.times()[:4])
    act()
    return sum(os.times()[:4]) - started


TABLES: dict[str, Callable[[], Table]] = {
    "anchors": anchors,
    "pairs": pairs,
    "measured": measured,
    "searches": searches,
    "sensitivity": sensitivity,
    "constants": constant_table,
    "cost": cost,
}

if __name__ == "__main__":
    main("bench.model", __doc__, TABLES, DOCUMENT)
