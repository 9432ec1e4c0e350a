"""Compares what a plan wrote with the reference, and says which rows are wrong.

Attention outputs shrink as sequences grow, so every tolerance is relative to the reference.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from evaluator.evaluation import CaseResult, Fault, Status
from evaluator.executor import Allocation
from evaluator.judging.diagnosis import Wrong, diagnose
from evaluator.problem import Case, Problem, TensorSpec

RELATIVE_TOLERANCE = 5e-3
"""Limit on ``||out - ref|| / ||ref||``. Correct bf16 kernels reach about 2e-3."""
ROW_FACTOR = 2.0
"""A row may be off by this many times the error of plain arithmetic (bf16 inputs, float32 accumulation), plus a unit in
the last place: half for the result, half for a probability that is rounded while it is not exactly 1, as under lazy
rescaling."""
LSE_TOLERANCE = 1e-3
"""Limit on ``|lse - ref|``, natural log."""

_TILES = (16, 32, 64, 128, 256)
_MOST_ROWS = 2048
"""Largest number of rows of a head that are compared. One in 16 of 32768, so some of each tile of a matrix product are
among them.
"""
_ROWS_AT_ONCE = 256
"""Rows that the reference computes at once, to bound its memory: it has a few float64 matrices of these rows by all
keys.
"""


@dataclass(frozen=True)
class Checked:
    """What was found of one case's outputs: their errors, and the fault these amount to, if any."""

    result: CaseResult
    fault: Fault | None


@dataclass(frozen=True)
class _Rows:
    """Errors of some query rows of one head."""

    batch: int
    head: int
    rows: torch.Tensor
    error: torch.Tensor
    reference: torch.Tensor
    attainable: torch.Tensor
    lse_error: torch.Tensor

    def __str__(self) -> str:
        return f"batch {self.batch}, head {self.head}"


def compare(
    problem: Problem,
    case: Case,
    inputs: Mapping[str, torch.Tensor],
    outputs: Mapping[str, Allocation],
    *,
    whole: bool,
) -> Checked:
    """Compare ``out`` and ``lse`` with the reference.

    ``whole`` demands that every element was written, and compares up to ``_MOST_ROWS`` rows of every head; otherwise
    all rows that were written are compared.
    """
    specs = {spec.name: spec for spec in problem.call(case).tensors}
    out, out_written = _views(outputs["out"], specs["out"])
    lse, lse_written = _views(outputs["lse"], specs["lse"])
    if whole:
        unwritten = uncovered(problem, case, outputs)
        if unwritten:
            unwritten = replace(unwritten, message=f"case {case.name}: {unwritten.message}")
            return _failed(case, unwritten, None, None)

    checked = []
    rows_written = out_written.view(torch.uint8).amax(-1).bool()  # several times as fast as any()
    for batch, head, rows in _rows_to_check(rows_written | lse_written, whole):
        reference, lse_reference, attainable = problem.reference(case, inputs, batch, head, rows)
        element_error = (out[batch, head, rows].double() - reference).where(out_written[batch, head, rows], 0.0)
        lse_error = (lse[batch, head, rows].double() - lse_reference).abs().where(lse_written[batch, head, rows], 0.0)
        checked.append(
            _Rows(batch, head, rows, element_error.norm(dim=1), reference.norm(dim=1), attainable, lse_error)
        )

    def wrong_rows(part: _Rows, wrong: torch.Tensor) -> Wrong:
        rows = part.rows[wrong]
        return Wrong(
            part.batch,
            part.head,
            rows,
            out[part.batch, part.head, rows].double(),
            lse[part.batch, part.head, rows].double(),
        )

    comparison, place = _verdict(case, checked, torch.finfo(out.dtype).eps)
    if comparison.fault is None or place is None:
        return comparison
    found = diagnose(problem, case, inputs, wrong_rows(*place))
    if not found:
        return comparison
    fault = replace(comparison.fault, message=f"{comparison.fault.message}; this is what comes out if {found}")
    return Checked(replace(comparison.result, message=fault.message), fault)


def uncovered(problem: Problem, case: Case, outputs: Mapping[str, Allocation]) -> Fault | None:
    """Return a fault if some element of ``out`` or ``lse`` is not marked as written, or memory between the rows is."""
    specs = {spec.name: spec for spec in problem.call(case).tensors}
    for name in ("out", "lse"):
        allocation = outputs[name]
        _, mask = _views(allocation, specs[name])
        count = int(mask.count_nonzero())
        if count < mask.numel():
            first = torch.unravel_index((~mask).flatten().view(torch.uint8).argmax(), mask.shape)
            message = (
                f"{mask.numel() - count} of {mask.numel()} elements of {name} were never written, "
                f"the first at {name}{[int(i) for i in first]}"
            )
            return Fault(Status.UNWRITTEN, message)
        assert allocation.written is not None
        if allocation.written.numel() > mask.numel() and int(allocation.written.count_nonzero()) > count:
            message = f"writes to the memory between the rows of {name}, outside its shape {list(specs[name].shape)}"
            return Fault(Status.OUT_OF_BOUNDS, message)
    return None


def settled(
    problem: Problem, case: Case, chosen: Mapping[str, Allocation], others: Mapping[str, Allocation]
) -> torch.Tensor:
    """Return the rows, bool [batch, heads, q_len], that ``chosen`` marks throughout and ``others`` nowhere."""
    specs = {spec.name: spec for spec in problem.call(case).tensors}
    (out, not_out), (lse, not_lse) = (
        [_views(each[name], specs[name])[1].view(torch.uint8) for each in (chosen, others)] for name in ("out", "lse")
    )
    return (out.amin(-1) > not_out.amax(-1)) & (lse > not_lse)


def only(problem: Problem, case: Case, outputs: Mapping[str, Allocation], rows: torch.Tensor) -> dict[str, Allocation]:
    """Return outputs marked in ``rows``, bool [batch, heads, q_len], and nowhere else."""
    specs = {spec.name: spec for spec in problem.call(case).tensors}
    found = {}
    for name, mask in (("out", rows[..., None]), ("lse", rows)):
        found[name] = replace(outputs[name], written=torch.zeros(outputs[name].data.numel(), dtype=torch.bool))
        _views(found[name], specs[name])[1].copy_(mask.expand(specs[name].shape))
    return found


def _views(allocation: Allocation, spec: TensorSpec) -> tuple[torch.Tensor, torch.Tensor]:
    assert allocation.written is not None
    return (
        allocation.data.as_strided(spec.shape, spec.strides),
        allocation.written.as_strided(spec.shape, spec.strides),
    )


def _rows_to_check(written: torch.Tensor, whole: bool) -> Iterator[tuple[int, int, torch.Tensor]]:
    for batch, head in written.any(-1).nonzero().tolist():
        rows = written[batch, head].nonzero()[:, 0]
        if whole and len(rows) > _MOST_ROWS:
            rows = rows[torch.linspace(0, len(rows) - 1, _MOST_ROWS, dtype=torch.float64).long()]
        for part in rows.split(_ROWS_AT_ONCE):
            yield batch, head, part


def _verdict(case: Case, checked: list[_Rows], eps: float) -> tuple[Checked, tuple[_Rows, torch.Tensor] | None]:
    """Return the comparison, and where it is worst: rows of one head, and which of them are wrong, bool [n]."""
    reference = _norm(part.reference for part in checked)
    relative = _norm(part.error for part in checked) / reference
    attainable = _norm(part.attainable for part in checked) / reference
    lse_error = max(float(part.lse_error.nan_to_num(nan=math.inf).max()) for part in checked)

    excesses = [part.error / (ROW_FACTOR * part.attainable + eps * part.reference) for part in checked]
    excesses = [excess.nan_to_num(nan=math.inf) for excess in excesses]
    worst, excess = max(zip(checked, excesses, strict=True), key=lambda pair: float(pair[1].max()))
    if float(excess.max()) > 1.0:
        wrong = excess > 1.0
        size = float((worst.error / worst.reference)[wrong].max())
        off = "not finite" if not math.isfinite(size) else f"off by up to {size:.2g} of their size"
        where = f"rows {ranges(worst.rows[wrong].tolist(), worst.rows.tolist())} of {worst}"
        count, total = sum(int((each > 1).sum()) for each in excesses), sum(len(part.rows) for part in checked)
        message = (
            f"case {case.name}: {where}{_shape(case, worst.rows, wrong)} are {off}; "
            f"{count} of {total} rows are wrong{_heads(checked, excesses)}"
        )
        return _failed(case, Fault(Status.INCORRECT, message), relative, lse_error), (worst, wrong)
    if relative > max(RELATIVE_TOLERANCE, ROW_FACTOR * attainable):
        message = f"case {case.name}: the relative error is {relative:.2g}, at most {RELATIVE_TOLERANCE} is allowed"
        return _failed(case, Fault(Status.INCORRECT, message), relative, lse_error), None
    if lse_error > LSE_TOLERANCE:
        part = max(checked, key=lambda part: float(part.lse_error.nan_to_num(nan=math.inf).max()))
        wrong = ~(part.lse_error <= LSE_TOLERANCE)
        message = (
            f"case {case.name}: out is right but lse is off by up to {lse_error:.2g} in rows "
            f"{ranges(part.rows[wrong].tolist(), part.rows.tolist())} of {part}; it is the natural log of the sum of "
            "exponentials"
        )
        return _failed(case, Fault(Status.INCORRECT, message), relative, lse_error), (part, wrong)
    return Checked(CaseResult(case.name, True, relative, lse_error), None), None


def _shape(case: Case, rows: torch.Tensor, wrong: torch.Tensor) -> str:
    """Return what the ``wrong`` ones of ``rows`` have in common, in brackets; ``""`` if nothing is seen."""
    if bool(wrong.all()):
        return ""
    first = int(rows[wrong][0])
    for tile in _TILES:
        if case.q_len % tile and torch.equal(wrong, rows >= case.q_len // tile * tile):
            return f" (the last partial tile of {tile})"
    if torch.equal(wrong, rows >= first):
        return " (all from there on)"
    for tile in _TILES:
        if len(rows) > tile and torch.equal(wrong, rows % tile == first % tile):
            return f" (one in each tile of {tile})"
    return ""


def _heads(checked: list[_Rows], excesses: list[torch.Tensor]) -> str:
    """Return the batch or head that has all wrong rows, if it is not the only one that was compared."""
    looked = {(part.batch, part.head) for part in checked}
    wrong = {
        (part.batch, part.head) for part, excess in zip(checked, excesses, strict=True) if bool((excess > 1).any())
    }
    for name, i in (("head", 1), ("batch", 0)):
        those = sorted({place[i] for place in wrong})
        if len(those) == 1 and len({place[i] for place in looked}) > 1:
            return f", all of them in {name} {those[0]}"
    return ""


def _failed(case: Case, fault: Fault, relative: float | None, lse_error: float | None) -> Checked:
    finite = [value if value is not None and math.isfinite(value) else None for value in (relative, lse_error)]
    return Checked(CaseResult(case.name, False, finite[0], finite[1], fault.message), fault)


def _norm(parts: Iterable[torch.Tensor]) -> float:
    return math.sqrt(sum(float((part**2).sum()) for part in parts))


def ranges(numbers: list[int], among: list[int], most: int = 3) -> str:
    """Return sorted numbers as text, e.g. ``0 to 15, 96 to 127 and 4 more``. A range skips none of ``among``."""
    places = {number: place for place, number in enumerate(among)}
    runs: list[list[int]] = []
    for number in numbers:
        if runs and places[number] == places[runs[-1][-1]] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    shown = ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs[:most])
    left = sum(len(run) for run in runs[most:])
    return shown + (f" and {left} more" if left else "")
