"""Compares what a plan wrote with the reference, and says which rows are wrong.

What the outputs are and how exact they must be is for the problem to say.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from avo.evaluator.allocation import Allocation
from avo.evaluator.evaluation import CaseResult, Fault, Status
from avo.evaluator.problem import (
    Absolute,
    Case,
    Diagnosing,
    Expected,
    Output,
    Problem,
    Rounded,
    TensorSpec,
    Wrong,
    rows_of,
)

_TILES = (16, 32, 64, 128, 256)
_MOST_ROWS = 2048
"""Largest number of rows of a head that are compared. One in 16 of 32768, so some of each tile of a matrix product are
among them.
"""
_ROWS_AT_ONCE = 256
"""Rows that the reference computes at once, to bound its memory: it has a few float64 matrices of these rows by all
keys.
"""

Rows = Mapping[str, torch.Tensor]
"""Some rows, bool [batch, heads, rows], for each kind of rows: see ``Output.rows``."""


@dataclass(frozen=True)
class Checked:
    """What was found of one case's outputs: their errors, and the fault these amount to, if any."""

    result: CaseResult
    fault: Fault | None


@dataclass(frozen=True)
class _Part:
    """Errors of one output in some rows of one head."""

    output: Output
    batch: int
    head: int
    length: int
    """Number of all rows of a head."""
    rows: torch.Tensor
    error: torch.Tensor
    """The norm of each row's error, or the largest error of its elements where the tolerance is ``Absolute``."""
    reference: torch.Tensor
    """Norms of the reference."""
    attainable: torch.Tensor
    excess: torch.Tensor
    """Errors as a share of what is allowed; infinite where they are not finite."""

    @property
    def worst(self) -> float:
        return float(self.excess.max())

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
    """Compare the outputs with the reference.

    ``whole`` demands that every element was written, and compares up to ``_MOST_ROWS`` rows of every head; otherwise
    all rows that were written are compared.
    """
    if whole and (unwritten := uncovered(problem, case, outputs)):
        unwritten = replace(unwritten, message=f"case {case.name}: {unwritten.message}")
        return _failed(case, unwritten, None, None)
    specs = {spec.name: spec for spec in problem.call(case).tensors}
    view = {output.name: _views(outputs[output.name], specs[output.name]) for output in problem.outputs}
    checked: dict[str, list[_Part]] = {output.name: [] for output in problem.outputs}
    for of, those in rows_of(problem.outputs).items():
        written = torch.stack([_any_of_row(view[output.name][1]) for output in those]).any(0)
        for batch, head, rows in _rows_to_check(written, whole):
            expected = problem.reference(case, inputs, of, batch, head, rows)
            for output in those:
                checked[output.name].append(_part(output, batch, head, rows, *view[output.name], expected[output.name]))

    comparison, place = _verdict(case, problem.outputs, checked)
    if comparison.fault is None or place is None or not isinstance(problem, Diagnosing):
        return comparison
    at = place.rows[place.excess > 1.0]
    beside = rows_of(problem.outputs)[place.output.rows]
    values = {each.name: view[each.name][0][place.batch, place.head, at].double() for each in beside}
    found = problem.diagnose(case, inputs, Wrong(place.output.rows, place.batch, place.head, at, values))
    if not found:
        return comparison
    fault = replace(comparison.fault, message=f"{comparison.fault.message}; this is what comes out if {found}")
    return Checked(replace(comparison.result, message=fault.message), fault)


def uncovered(problem: Problem, case: Case, outputs: Mapping[str, Allocation]) -> Fault | None:
    """Return a fault if some element of an output is not marked as written, or memory between the rows is."""
    specs = {spec.name: spec for spec in problem.call(case).tensors}
    for name in (output.name for output in problem.outputs):
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
) -> dict[str, torch.Tensor]:
    """Return the rows, of each kind, that ``chosen`` marks throughout and ``others`` nowhere."""
    specs = {spec.name: spec for spec in problem.call(case).tensors}
    found = {}
    for of, those in rows_of(problem.outputs).items():
        marked = [_views(chosen[output.name], specs[output.name])[1] for output in those]
        elsewhere = [_views(others[output.name], specs[output.name])[1] for output in those]
        throughout = torch.stack([_all_of_row(mask) for mask in marked]).all(0)
        found[of] = throughout & ~torch.stack([_any_of_row(mask) for mask in elsewhere]).any(0)
    return found


def only(problem: Problem, case: Case, outputs: Mapping[str, Allocation], rows: Rows) -> dict[str, Allocation]:
    """Return outputs marked in ``rows`` and nowhere else."""
    specs = {spec.name: spec for spec in problem.call(case).tensors}
    found = {}
    for output in problem.outputs:
        name, chosen = output.name, rows[output.rows]
        found[name] = replace(outputs[name], written=torch.zeros(outputs[name].data.numel(), dtype=torch.bool))
        marks = _views(found[name], specs[name])[1]
        marks.copy_(chosen.view(*chosen.shape, *[1] * (marks.dim() - 3)).expand_as(marks))
    return found


def _views(allocation: Allocation, spec: TensorSpec) -> tuple[torch.Tensor, torch.Tensor]:
    assert allocation.written is not None
    strides = spec.held.strides
    return allocation.data.as_strided(spec.shape, strides), allocation.written.as_strided(spec.shape, strides)


def _any_of_row(mask: torch.Tensor) -> torch.Tensor:
    """Return which rows, bool [batch, heads, rows], have a mark. amax is several times as fast as any."""
    return mask.view(torch.uint8).amax(-1).bool() if mask.dim() > 3 else mask


def _all_of_row(mask: torch.Tensor) -> torch.Tensor:
    return mask.view(torch.uint8).amin(-1).bool() if mask.dim() > 3 else mask


def _rows_to_check(written: torch.Tensor, whole: bool) -> Iterator[tuple[int, int, torch.Tensor]]:
    for batch, head in written.any(-1).nonzero().tolist():
        rows = written[batch, head].nonzero()[:, 0]
        if whole and len(rows) > _MOST_ROWS:
            rows = rows[torch.linspace(0, len(rows) - 1, _MOST_ROWS, dtype=torch.float64).long()]
        for part in rows.split(_ROWS_AT_ONCE):
            yield batch, head, part


def _part(
    output: Output,
    batch: int,
    head: int,
    rows: torch.Tensor,
    values: torch.Tensor,
    written: torch.Tensor,
    right: Expected,
) -> _Part:
    """Compare some rows of an output, ``values``; what is not ``written`` counts as right."""
    found, marked = values[batch, head, rows].double(), written[batch, head, rows]
    error = (found - right.value).where(marked, 0.0).view(len(rows), -1)
    reference = right.value.view(len(rows), -1).norm(dim=1)
    attainable = torch.zeros_like(reference) if right.attainable is None else right.attainable
    match output.tolerance:
        case Absolute(most):
            error = error.abs().amax(1)
            excess = error / most
        case Rounded(factor):
            error = error.norm(dim=1)
            excess = error / (factor * attainable + torch.finfo(values.dtype).eps * reference)
    excess = excess.where(error != 0, 0.0).nan_to_num(nan=math.inf)  # a row of zeros may have no room for an error
    return _Part(output, batch, head, values.shape[2], rows, error, reference, attainable, excess)


def _verdict(case: Case, outputs: Sequence[Output], checked: Mapping[str, list[_Part]]) -> tuple[Checked, _Part | None]:
    """Return the comparison, and where the first output that is wrong is worst."""
    sums = {
        name: tuple(_norm(getattr(part, of) for part in parts) for of in ("error", "reference", "attainable"))
        for name, parts in checked.items()
        if isinstance(parts[0].output.tolerance, Rounded)
    }
    relative = {name: error / reference if reference else 0.0 for name, (error, reference, _) in sums.items()}
    absolute = [
        float(part.error.nan_to_num(nan=math.inf).max())
        for parts in checked.values()
        for part in parts
        if isinstance(part.output.tolerance, Absolute)
    ]
    errors = max(relative.values(), default=None), max(absolute, default=None)
    several = len(relative) > 1
    right: list[str] = []
    for output in outputs:
        parts = checked[output.name]
        worst = max(parts, key=lambda part: part.worst)
        if isinstance(output.tolerance, Absolute):
            if worst.worst > 1.0:
                before = f"{' and '.join(right)} {'are' if len(right) > 1 else 'is'} right but " if right else ""
                message = f"case {case.name}: {before}{_off(worst, float(worst.error.nan_to_num(nan=math.inf).max()))}"
                return _failed(case, Fault(Status.INCORRECT, message), *errors), worst
        elif worst.worst > 1.0:
            message = f"case {case.name}: {_rows_off(parts, worst, several)}"
            return _failed(case, Fault(Status.INCORRECT, message), *errors), worst
        else:
            error, reference, attainable = sums[output.name]
            limit = output.tolerance.epsilons * torch.finfo(getattr(torch, case.dtype)).eps
            if error > max(limit * reference, output.tolerance.factor * attainable):
                what = f"the relative error {f'of {output.name} ' if several else ''}is {relative[output.name]:.2g}"
                message = f"case {case.name}: {what}, at most {limit:.3g} is allowed"
                return _failed(case, Fault(Status.INCORRECT, message), *errors), None
        right.append(output.name)
    return Checked(CaseResult(case.name, True, *errors), None), None


def _off(part: _Part, error: float) -> str:
    """Return which rows of an output are off by how much."""
    rows = ranges(part.rows[part.excess > 1.0].tolist(), part.rows.tolist())
    hint = f"; {part.output.hint}" if part.output.hint else ""
    return f"{part.output.name} is off by up to {error:.2g} in rows {rows} of {part}{hint}"


def _rows_off(parts: Sequence[_Part], worst: _Part, several: bool) -> str:
    """Return which rows of an output are off, by how many percent, and of which of ``several`` outputs."""
    wrong = worst.excess > 1.0
    sized = wrong & (worst.reference > 0)
    if not bool(worst.error[wrong].isfinite().all()):
        off = "not finite"
    elif not bool(sized.any()):
        off = "not zero, as they should be"
    else:
        share = float((worst.error / worst.reference)[sized].max())
        off = f"off by up to {float(f'{100 * share:.2g}'):,.10g}%"
    name = f"{worst.output.name}, " if several else ""
    where = f"rows {ranges(worst.rows[wrong].tolist(), worst.rows.tolist())} of {name}{worst}"
    count, total = sum(int((part.excess > 1).sum()) for part in parts), sum(len(part.rows) for part in parts)
    return f"{where}{_shape(worst)} are {off}; {count} of {total} rows are wrong{_heads(parts)}"


def _shape(part: _Part) -> str:
    """Return what the wrong rows have in common, in brackets; ``""`` if nothing is seen."""
    rows, wrong = part.rows, part.excess > 1.0
    if bool(wrong.all()):
        return ""
    first = int(rows[wrong][0])
    for tile in _TILES:
        if part.length % tile and torch.equal(wrong, rows >= part.length // tile * tile):
            return f" (the last partial tile of {tile})"
    if torch.equal(wrong, rows >= first):
        return " (all from there on)"
    for tile in _TILES:
        if len(rows) > tile and torch.equal(wrong, rows % tile == first % tile):
            return f" (one in each tile of {tile})"
    return ""


def _heads(checked: Sequence[_Part]) -> str:
    """Return the batch or head that has all wrong rows, if it is not the only one that was compared."""
    looked = {(part.batch, part.head) for part in checked}
    wrong = {(part.batch, part.head) for part in checked if part.worst > 1}
    for name, i in (("head", 1), ("batch", 0)):
        those = sorted({place[i] for place in wrong})
        if len(those) == 1 and len({place[i] for place in looked}) > 1:
            return f", all of them in {name} {those[0]}"
    return ""


def _failed(case: Case, fault: Fault, relative: float | None, absolute: float | None) -> Checked:
    finite = [value if value is not None and math.isfinite(value) else None for value in (relative, absolute)]
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
