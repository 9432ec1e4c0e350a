"""Control flow: blocks, branches and loops. Programs that diverge go on in frames of their own and are merged after."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from evaluator.executor.errors import IRError, UnsupportedOperation
from evaluator.executor.frame import Frame, Step
from evaluator.executor.ir import Block, Function, Op, Region, captured
from evaluator.executor.operations import ELEMENTWISE, STEPS
from evaluator.executor.operations.hints import checked
from evaluator.executor.operations.integers import signed, unsigned
from evaluator.executor.operations.memory import address_sum, only_accessed
from evaluator.executor.operations.registry import check_variant, elementwise_step
from evaluator.executor.values import DTYPES, Value, merge, select, suffix

CONTROL = frozenset(
    (
        "scf.for",
        "scf.while",
        "scf.if",
        "scf.yield",
        "scf.condition",
        "tt.call",
        "tt.return",
        "cf.br",
        "cf.cond_br",
        "tt.reduce.return",
        "tt.scan.return",
    )
)
"""Operations that this module does."""

KNOWN = CONTROL | STEPS.keys() | ELEMENTWISE.keys()
"""Every operation that the executor knows."""

Piece = tuple[torch.Tensor, list[Value]]
"""Positions [n] in a frame, and the values of those programs."""


_TORCH_REFUSALS = (RuntimeError, IndexError, TypeError, ValueError, KeyError)
"""What torch and Python raise for operands that do not fit: the IR comes from outside and is not verified."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of one block in order, without its terminator."""

    steps: tuple[Step, ...]
    ops: tuple[Op, ...]

    def run(self, frame: Frame) -> None:
        """Run every step; raise ``IRError`` naming the operation if operands do not fit it."""
        done = 0
        try:
            for step in self.steps:
                step(frame)
                done += 1
        except _TORCH_REFUSALS as error:
            raise _misfit(self.ops[done], error) from error


def _misfit(op: Op, error: Exception) -> IRError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return IRError(f"cannot execute {op.name} at {op.location}: {reason}")


def build(function: Function) -> Step:
    """Return the step that runs a whole kernel. Raises ``IRError`` or ``UnsupportedOperation``."""
    body = _Builder(function).function(function.body)

    def run(frame: Frame) -> None:
        body(frame)

    return run


def _sides(condition: torch.Tensor) -> list[tuple[bool, torch.Tensor | None]]:
    """Return the truth values that occur and the programs [n] that have each; None where all agree."""
    first = bool(condition[0])
    if condition.shape[0] == 1 or bool((condition == first).all()):
        return [(first, None)]
    return [(True, condition.nonzero().flatten()), (False, (~condition).nonzero().flatten())]


class _Builder:
    """Turns operations into steps."""

    def __init__(self, function: Function) -> None:
        self._types = function.types
        self._accessed = only_accessed(function)
        self._control: dict[str, Callable[[Op], Step]] = {
            "scf.if": self._if,
            "scf.for": self._for,
            "scf.while": self._while,
            "tt.call": self._call,
        }

    def _steps(self, block: Block) -> Steps:
        ops = block.ops[:-1]
        check_variant(block.ops[-1])
        return Steps(tuple(self._step(op) for op in ops), ops)

    def _body(self, region: Region) -> Steps:
        if len(region.blocks) != 1:
            raise UnsupportedOperation("branch inside a region", region.terminator.location)
        return self._steps(region.blocks[0])

    def _step(self, op: Op) -> Step:
        try:
            if op.name in self._control:
                return self._control[op.name](op)
            return checked(op, self._types, self._unchecked(op))
        except _TORCH_REFUSALS as error:
            raise _misfit(op, error) from error

    def _unchecked(self, op: Op) -> Step:
        if op.name in ELEMENTWISE:
            return elementwise_step(op, ELEMENTWISE[op.name](op, self._types))
        if op.name == "tt.addptr" and op.results[0] in self._accessed:
            return address_sum(op, self._types)
        if op.name not in STEPS:
            raise IRError(f"{op.name} at {op.location} is out of place")
        return STEPS[op.name](op, self._types)

    def function(self, region: Region) -> Callable[[Frame], list[Piece]]:
        """Return what runs a function's blocks: it gives back the returned values, by how programs left."""
        _check_forward(region)
        blocks = {block.label: (self._steps(block), block) for block in region.blocks}
        entry = region.blocks[0].label

        def run(frame: Frame) -> list[Piece]:
            pieces: list[Piece] = []
            pending = [(entry, frame, torch.arange(frame.programs))]
            while pending:
                label, frame, positions = pending.pop()
                steps, block = blocks[label]
                steps.run(frame)
                last = block.ops[-1]
                if last.name == "tt.return":
                    pieces.append((positions, [frame.value(slot) for slot in last.operands]))
                    continue
                sides: list[tuple[bool, torch.Tensor | None]] = [(True, None)]
                if last.name == "cf.cond_br":
                    sides = _sides(frame.tensor(last.operands[0]))
                for taken, where in sides:
                    target, values = last.successors[0 if taken else 1]
                    inner = frame if where is None else frame.select(where, range(len(frame.slots)))
                    _assign(inner, blocks[target][1].args, values)
                    pending.append((target, inner, positions if where is None else positions[where]))
            return pieces

        return run

    def _call(self, op: Op) -> Step:
        check_variant(op)
        (region,) = op.regions
        body = self.function(region)
        _check_counts(op, op.operands, region.args)
        for block in region.blocks:
            if block.ops[-1].name == "tt.return":
                _check_counts(op, block.ops[-1].operands, op.results)

        def run(frame: Frame) -> None:
            inner = Frame(frame.run, frame.positions, [None] * len(frame.slots))
            for slot, operand in zip(region.args, op.operands, strict=True):
                inner.slots[slot] = frame.slots[operand]
            _join(frame, op.results, body(inner))

        return run

    def _if(self, op: Op) -> Step:
        check_variant(op)
        (condition,) = op.operands
        bodies = [(self._body(region), captured(region), region.terminator.operands) for region in op.regions]
        nothing = Steps((), ()), (), ()
        then, otherwise = bodies[0], bodies[1] if len(bodies) > 1 else nothing
        _check_counts(op, then[2], otherwise[2], op.results)

        def run(frame: Frame) -> None:
            pieces: list[Piece] = []
            for taken, where in _sides(frame.tensor(condition)):
                body, outer, yields = then if taken else otherwise
                if where is None:
                    body.run(frame)
                    _assign(frame, op.results, yields)
                    return
                inner = frame.select(where, outer)
                body.run(inner)
                pieces.append((where, [inner.value(slot) for slot in yields]))
            _join(frame, op.results, pieces)

        return run

    def _for(self, op: Op) -> Step:
        check_variant(op, ["to", "step", "iter_args", "unsigned"])
        (region,) = op.regions
        low_slot, high_slot, step_slot, *initial = op.operands
        variable, *carried = region.args
        loop, yields = op.loop, region.terminator.operands
        body, outer = self._body(region), captured(region)
        dtype = DTYPES[self._types[variable].element]
        read = unsigned if "unsigned" in op.words else signed
        idle = not body.steps and not op.results
        assert loop is not None
        _check_counts(op, initial, carried, yields, op.results)

        def run(frame: Frame) -> None:
            low, high, step = (read(frame.tensor(slot)) for slot in (low_slot, high_slot, step_slot))
            if bool((step <= 0).any()):
                raise IRError(f"{op.name} at {op.location} has a step that is not positive")
            counts = torch.div(high - low + step - 1, step, rounding_mode="floor").clamp(min=0)
            frame.run.trips[loop].index_add_(0, frame.positions, counts.expand(frame.programs))
            if idle:
                return
            longest = int(counts.max())
            if int(counts.min()) == longest:
                _assign(frame, carried, initial)
                for trip in range(longest):
                    frame.run.check_time()
                    frame.slots[variable] = (low + trip * step).to(dtype)
                    body.run(frame)
                    _assign(frame, carried, yields)
                _assign(frame, op.results, carried)
                return
            # Longest first: the programs still in the loop are then always a prefix, and narrowing needs no copies.
            counts, order = counts.sort(descending=True, stable=True)
            left_after = counts.tolist()
            inner = frame.select(order, (*outer, *initial))
            _assign(inner, carried, initial)
            low, step = low.expand(frame.programs)[order], step.expand(frame.programs)[order]
            pieces: list[Piece] = []
            active, trip = frame.programs, 0
            while active:
                frame.run.check_time()
                still = active
                while still and left_after[still - 1] <= trip:
                    still -= 1
                if still < active:
                    pieces.append((order[still:active], [suffix(inner.value(slot), still) for slot in carried]))
                    inner.keep_first(still, (*outer, *carried))
                    active = still
                if active:
                    inner.slots[variable] = (low[:active] + trip * step[:active]).to(dtype)
                    body.run(inner)
                    _assign(inner, carried, yields)
                    trip += 1
            _join(frame, op.results, pieces)

        return run

    def _while(self, op: Op) -> Step:
        check_variant(op)
        before_region, after_region = op.regions
        before, after = self._body(before_region), self._body(after_region)
        condition, *forwarded = before_region.terminator.operands
        yields, loop = after_region.terminator.operands, op.loop
        outer = (*captured(before_region), *captured(after_region))
        assert loop is not None
        if before_region.terminator.name != "scf.condition":
            raise IRError(f"{op.name} at {op.location} has no condition")
        _check_counts(op, op.operands, before_region.args, yields)
        _check_counts(op, forwarded, after_region.args, op.results)

        def run(frame: Frame) -> None:
            pieces: list[Piece] = []
            inner, positions = frame, torch.arange(frame.programs)
            _assign(inner, before_region.args, op.operands)
            while True:
                frame.run.check_time()
                before.run(inner)
                values = [inner.value(slot) for slot in forwarded]
                sides = dict(_sides(inner.tensor(condition)))
                if False in sides:
                    stop = sides[False]
                    if stop is None:
                        pieces.append((positions, values))
                        break
                    pieces.append((positions[stop], [select(value, stop) for value in values]))
                go = sides[True]
                if go is not None:
                    inner, positions = inner.select(go, outer), positions[go]
                    values = [select(value, go) for value in values]
                for slot, value in zip(after_region.args, values, strict=True):
                    inner.slots[slot] = value
                frame.run.trips[loop].index_add_(0, inner.positions, torch.ones_like(inner.positions))
                after.run(inner)
                _assign(inner, before_region.args, yields)
            _join(frame, op.results, pieces)

        return run


def _assign(frame: Frame, targets: Sequence[int], sources: Sequence[int]) -> None:
    """Copy slots, all at once."""
    values = [frame.slots[slot] for slot in sources]
    for target, value in zip(targets, values, strict=True):
        frame.slots[target] = value


def _join(frame: Frame, targets: Sequence[int], pieces: Sequence[Piece]) -> None:
    """Set slots to the values of programs that went different ways."""
    for i, target in enumerate(targets):
        if len(pieces) == 1:
            frame.slots[target] = pieces[0][1][i]
        else:
            frame.slots[target] = merge([(where, values[i]) for where, values in pieces], frame.programs)


def _check_counts(op: Op, *values: Sequence[int]) -> None:
    """Raise ``IRError`` if lists of values that stand for each other differ in length."""
    if len({len(each) for each in values}) > 1:
        raise IRError(f"{op.name} at {op.location} passes on different numbers of values")


def _check_forward(region: Region) -> None:
    """Raise ``UnsupportedOperation`` for a loop made of branches, ``IRError`` for a branch to nowhere."""
    targets = {block.label: [label for label, _ in block.ops[-1].successors] for block in region.blocks}
    args = {block.label: block.args for block in region.blocks}
    ends = {"tt.return": 0, "cf.br": 1, "cf.cond_br": 2}
    for block in region.blocks:
        last = block.ops[-1]
        if len(last.successors) != ends.get(last.name):
            raise IRError(f"a block ends with {last.name} at {last.location}")
        if any(label not in targets for label, _ in last.successors):
            raise IRError(f"{last.name} at {last.location} goes to a block that does not exist")
        for label, values in last.successors:
            _check_counts(last, values, args[label])
    done: set[str] = set()
    while len(done) < len(targets):
        ready = {label for label in targets if label not in done and done.issuperset(targets[label])}
        if not ready:
            raise UnsupportedOperation("loop of branches", region.terminator.location)
        done |= ready
