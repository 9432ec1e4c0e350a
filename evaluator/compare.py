"""Compares what a plan wrote with the reference, and says where it went wrong.

Attention outputs shrink as sequences grow, so every tolerance is relative to the reference.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from evaluator.evaluation import CaseResult, Fault, Status
from evaluator.executor import Allocation
from evaluator.problem import Case, Problem, TensorSpec

RELATIVE_TOLERANCE = 5e-3
"""On ``||out - ref|| / ||ref||``: right bf16 kernels reach about 2e-3."""
ROW_FACTOR = 2.0
"""A row may be off by this many times what plain bf16-in, float32-accumulate arithmetic reaches, plus a unit in the
last place: half for the result, half for a probability that is rounded while it is not exactly 1, as it is under lazy
rescaling."""
LSE_TOLERANCE = 1e-3
"""On ``|lse - ref|``, natural log."""

_SAMPLED_HEADS, _SAMPLED_ROWS = 8, 64
_MOST_ROWS = 2048
"""Rows of a head that are compared at most: of 32768, one in 16, so that no tile of a matrix product goes unseen."""
_ROWS_AT_ONCE = 256
"""Bounds the memory of the reference: some matrices in float64 of as many rows, by all keys."""


@dataclass(frozen=True)
class Comparison:
    """The numbers of one case, and the fault they amount to, if any."""

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
    every: bool = True,
) -> Comparison:
    """Compare ``out`` and ``lse`` with the reference.

    ``whole`` demands that every element was written, and compares up to ``_MOST_ROWS`` rows of every head; otherwise
    some of the rows that were written are compared. ``every`` demands whole rows, and some of both outputs.
    """
    specs = {spec.name: spec for spec in problem.call(case).tensors}
    out, out_written = _views(outputs["out"], specs["out"])
    lse, lse_written = _views(outputs["lse"], specs["lse"])
    unwritten = _unwritten(case, outputs, specs, {"out": out_written, "lse": lse_written}, whole, every)
    if unwritten:
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
    return _verdict(case, checked, torch.finfo(out.dtype).eps)


def uncovered(problem: Problem, case: Case, outputs: Mapping[str, Allocation]) -> Fault | None:
    """Return a fault if some element of ``out`` or ``lse`` is not marked as written, or memory between the rows is."""
    specs = {spec.name: spec for spec in problem.call(case).tensors}
    written = {name: _views(outputs[name], specs[name])[1] for name in ("out", "lse")}
    return _unwritten(case, outputs, specs, written, whole=True, every=True)


def _views(allocation: Allocation, spec: TensorSpec) -> tuple[torch.Tensor, torch.Tensor]:
    assert allocation.written is not None
    return (
        allocation.data.as_strided(spec.shape, spec.strides),
        allocation.written.as_strided(spec.shape, spec.strides),
    )


def _unwritten(
    case: Case,
    outputs: Mapping[str, Allocation],
    specs: Mapping[str, TensorSpec],
    written: Mapping[str, torch.Tensor],
    whole: bool,
    every: bool,
) -> Fault | None:
    for name, mask in written.items():
        count = int(mask.count_nonzero())
        if whole and count < mask.numel():
            first = torch.unravel_index((~mask).flatten().view(torch.uint8).argmax(), mask.shape)
            message = (
                f"case {case.name}: {mask.numel() - count} of {mask.numel()} elements of {name} were never written, "
                f"the first at {name}{[int(i) for i in first]}"
            )
            return Fault(Status.UNWRITTEN, message)
        if not whole and every and count == 0:
            return Fault(Status.UNWRITTEN, f"case {case.name}: the programs that were sampled wrote nothing to {name}")
        if name == "out" and not whole and every and _in_parts(mask.view(torch.uint8)):
            message = f"case {case.name}: the programs that were sampled wrote parts of rows of {name}"
            return Fault(Status.UNWRITTEN, f"{message}: write whole rows")
        all_written = outputs[name].written
        assert all_written is not None
        if all_written.numel() > mask.numel() and int(all_written.count_nonzero()) > count:
            message = f"case {case.name}: writes to the memory between the rows of {name}, outside its shape"
            return Fault(Status.OUT_OF_BOUNDS, f"{message} {list(specs[name].shape)}")
    return None


def _in_parts(mask: torch.Tensor) -> bool:
    """Return whether some rows of a mask, as numbers, are set in parts."""
    return bool((mask.amax(-1) != mask.amin(-1)).any())


def _rows_to_check(written: torch.Tensor, whole: bool) -> Iterator[tuple[int, int, torch.Tensor]]:
    heads = [(int(b), int(h)) for b, h in written.any(-1).nonzero()]
    for batch, head in heads if whole else _spread(heads, _SAMPLED_HEADS):
        rows = written[batch, head].nonzero()[:, 0]
        most = _MOST_ROWS if whole else _SAMPLED_ROWS
        if len(rows) > most:
            rows = rows[torch.linspace(0, len(rows) - 1, most, dtype=torch.float64).long()]
        for part in rows.split(_ROWS_AT_ONCE):
            yield batch, head, part


def _spread(items: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    if len(items) <= most:
        return items
    return [items[i * (len(items) - 1) // (most - 1)] for i in range(most)]


def _verdict(case: Case, checked: list[_Rows], eps: float) -> Comparison:
    reference = _norm(part.reference for part in checked)
    relative = _norm(part.error for part in checked) / reference
    attainable = _norm(part.attainable for part in checked) / reference
    lse_error = max(float(part.lse_error.nan_to_num(nan=math.inf).max()) for part in checked)

    worst, worst_excess, wrong_rows = None, 1.0, 0
    for part in checked:
        tolerance = ROW_FACTOR * part.attainable + eps * part.reference
        excess = (part.error / tolerance).nan_to_num(nan=math.inf)
        wrong_rows += int((excess > 1).sum())
        if float(excess.max()) > worst_excess:
            worst, worst_excess = part, float(excess.max())
    if worst is not None:
        tolerance = ROW_FACTOR * worst.attainable + eps * worst.reference
        wrong = ~(worst.error <= tolerance)
        total = sum(len(part.rows) for part in checked)
        size = float((worst.error / worst.reference)[wrong].max())
        off = "not finite" if not math.isfinite(size) else f"off by up to {size:.2g} of their size"
        message = (
            f"case {case.name}: rows {ranges(worst.rows[wrong].tolist())} of {worst} are {off}; "
            f"{wrong_rows} of {total} rows are wrong"
        )
        return _failed(case, Fault(Status.INCORRECT, message), relative, lse_error)
    if relative > max(RELATIVE_TOLERANCE, ROW_FACTOR * attainable):
        message = f"case {case.name}: the relative error is {relative:.2g}, at most {RELATIVE_TOLERANCE} is allowed"
        return _failed(case, Fault(Status.INCORRECT, message), relative, lse_error)
    if lse_error > LSE_TOLERANCE:
        part = max(checked, key=lambda part: float(part.lse_error.nan_to_num(nan=math.inf).max()))
        wrong = ~(part.lse_error <= LSE_TOLERANCE)
        message = (
            f"case {case.name}: out is right but lse is off by up to {lse_error:.2g} in rows "
            f"{ranges(part.rows[wrong].tolist())} of {part}; it is the natural log of the sum of exponentials"
        )
        return _failed(case, Fault(Status.INCORRECT, message), relative, lse_error)
    return Comparison(CaseResult(case.name, True, relative, lse_error), None)


def _failed(case: Case, fault: Fault, relative: float | None, lse_error: float | None) -> Comparison:
    finite = [value if value is not None and math.isfinite(value) else None for value in (relative, lse_error)]
    return Comparison(CaseResult(case.name, False, finite[0], finite[1], fault.message), fault)


def _norm(parts: Iterable[torch.Tensor]) -> float:
    return math.sqrt(sum(float((part**2).sum()) for part in parts))


def ranges(numbers: list[int], most: int = 3) -> str:
    """Return sorted numbers as text, e.g. ``0 to 15, 96 to 127 and 4 more``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = ", ".join(f"{first} to {last}" if last > first else str(first) for first, last in runs[:most])
    left = sum(last - first + 1 for first, last in runs[most:])
    return shown + (f" and {left} more" if left else "")
