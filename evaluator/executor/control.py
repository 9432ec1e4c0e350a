"""Control flow: blocks, branches and loops. Programs that diverge continue in separate frames that merge later."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

import torch

from avo.evaluator.executor.counted import CountedLoop
from avo.evaluator.executor.digests import digested
from avo.evaluator.executor.diverging import Piece, assign, join, narrowed, parted, twins_of, unchanged
from avo.evaluator.executor.dtypes import DTYPES
from avo.evaluator.executor.effects import CONTROL, READS, WRITES, effects
from avo.evaluator.executor.errors import IRError, UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.handing import LOAD
from avo.evaluator.executor.ir import Block, Function, Op, Region, Type, captured
from avo.evaluator.executor.machine import answer
from avo.evaluator.executor.operations import ELEMENTWISE, REGION_STEPS, STEPS
from avo.evaluator.executor.operations.hints import checked
from avo.evaluator.executor.operations.integers import signed, unsigned
from avo.evaluator.executor.operations.memory import address_sum, kept_as_sums, offset_sum, site
from avo.evaluator.executor.operations.on_chip import using_scratch
from avo.evaluator.executor.operations.registry import check_variant, elementwise_step
from avo.evaluator.executor.overflow import addressing, watched
from avo.evaluator.executor.pending import early_uses, reported
from avo.evaluator.executor.ranks import Ranks, asks_for_rank, set_rank
from avo.evaluator.executor.reorder import check_orders
from avo.evaluator.executor.script import Script
from avo.evaluator.executor.values import Unlike, Value, full, select
from avo.evaluator.executor.waiting import polls

KNOWN = CONTROL | STEPS.keys() | REGION_STEPS.keys() | ELEMENTWISE.keys()
"""Every operation that the executor knows."""

_ONCE = torch.ones(1, dtype=torch.int64)

_TORCH_REFUSALS = (RuntimeError, IndexError, TypeError, ValueError, KeyError)
"""What torch and Python raise for operands that do not fit: the IR is untrusted and not verified."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of one block in order, without its terminator."""

    steps: tuple[Step, ...]
    ops: tuple[Op, ...]
    block: int | None
    """Index of the block; None for a branch without an ``else``."""

    def run(self, frame: Frame) -> None:
        """Run every step; raise ``IRError`` naming the operation if operands do not fit it."""
        if self.block is not None:
            frame.count(self.block, _ONCE)
        done = 0
        try:
            for step in self.steps:
                step(frame)
                done += 1
        except Unlike as error:
            op = self.ops[done]
            raise UnsupportedOperation(f"{op.name} after which {error}", op.location) from None
        except _TORCH_REFUSALS as error:
            raise _misfit(self.ops[done], error) from error


def _misfit(op: Op, error: Exception) -> IRError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return IRError(f"cannot execute {op.name} at {op.location}: {reason}")


def build(function: Function, *, sanitize: bool = False, whole: bool = True, data: bool = True) -> Step:
    """Return the step that runs a kernel, or a slice of one, which leaves products out, if it is not ``whole``. With
    ``sanitize``, it also checks address arithmetic for overflow; without ``data``, it may be digested.

    Raises ``IRError`` or ``UnsupportedOperation``.
    """
    body = _Builder(function, sanitize=sanitize, whole=whole, data=data).function(function.body)
    check_orders(function)

    def run(frame: Frame) -> None:
        body(frame)

    return run


class _Builder:
    """Turns operations into steps."""

    def __init__(self, function: Function, *, sanitize: bool, whole: bool, data: bool) -> None:
        self._data = data
        self._early = early_uses(function) if whole else {}
        self._watched = addressing(function) if sanitize else frozenset()
        self._sanitize = sanitize
        self._types = function.types
        self._sms = function.sms
        self._sums = kept_as_sums(function)
        self._polls = polls(function)
        self._ranks = Ranks(function)
        self._control: dict[str, Callable[[Op], Step]] = {
            "scf.if": self._if,
            "scf.for": self._for,
            "scf.while": self._while,
            "tt.call": self._call,
            "ttg.warp_specialize": self._specialise,
        }

    def _steps(self, block: Block) -> Steps:
        ops = block.ops[:-1]
        check_variant(block.ops[-1])
        return Steps(tuple(reported(op, self._step(op), self._early) for op in ops), ops, block.index)

    def _body(self, region: Region) -> Steps:
        if len(region.blocks) != 1:
            raise UnsupportedOperation("branch inside a region", region.terminator.location)
        return self._steps(region.blocks[0])

    def _step(self, op: Op) -> Step:
        return self._ranks.step(op, self._of_one(op))

    def _of_one(self, op: Op) -> Step:
        try:
            if op.name in self._control:
                return using_scratch(op, self._control[op.name](op))
            step = self._unchecked(op)
            if not self._data and effects(op.name).on_chip and op.name != LOAD:
                return digested(op, self._types, step)
            if op.results and (op.name in READS or op.name == LOAD):
                step = _scripted(op, self._types, step)
            if self._sanitize:
                step = watched(op, self._types, step, self._watched)
            return using_scratch(op, checked(op, self._types, step))
        except _TORCH_REFUSALS as error:
            raise _misfit(op, error) from error

    def _unchecked(self, op: Op) -> Step:
        if asks_for_rank(op, self._types):
            return partial(set_rank, op=op)
        if answered := answer(op, self._types, self._sms):
            return answered
        if op.name in ELEMENTWISE:
            step = elementwise_step(op, ELEMENTWISE[op.name](op, self._types))
            return offset_sum(op, self._types, step) if self._sums.issuperset(op.results) else step
        if op.name == "tt.addptr" and op.results[0] in self._sums:
            return address_sum(op, self._types)
        if op.name in REGION_STEPS:
            return REGION_STEPS[op.name](op, self._types, self._combining)
        if op.name not in STEPS:
            raise IRError(f"{op.name} at {op.location} is out of place")
        return STEPS[op.name](op, self._types)

    def _combining(self, region: Region) -> Step:
        """Return the step of a region that combines elements; some may return early, by way of its last block."""
        if len(region.blocks) == 1:
            return self._body(region).run
        body, end = self.function(region, region.terminator.name), region.terminator.operands
        return lambda frame: join(frame, end, body(frame))

    def function(self, region: Region, end: str = "tt.return") -> Callable[[Frame], list[Piece]]:
        """Return a callable that runs a function's blocks and gives a piece for each ``end`` that programs reached."""
        _check_forward(region, end)
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
                if last.name == end:
                    returned = [frame.value(slot) for slot in last.operands]
                    pieces.append((positions, returned, twins_of(frame, last.operands)))
                    continue
                sides: list[tuple[bool, torch.Tensor | None]] = [(True, None)]
                if last.name == "cf.cond_br":
                    sides = parted(frame.tensor(last.operands[0]))
                for taken, where in sides:
                    target, values = last.successors[0 if taken else 1]
                    inner = frame if where is None else frame.select(where, range(len(frame.slots)))
                    assign(inner, blocks[target][1].args, values)
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
            inner.set_twins(region.args, [frame.twins.get(operand) for operand in op.operands])
            join(frame, op.results, body(inner))

        return run

    def _specialise(self, op: Op) -> Step:
        check_variant(op, ["attributes"], ["requestedRegisters", "warpGroupStartIds", "actualRegisters", "warps"])
        if any(inner.name == op.name for inner in op.nested):
            raise UnsupportedOperation(f"{op.name} in a partition", op.location)
        bodies = [self._body(region) for region in op.regions]
        default, *partitions = op.regions
        yields = default.terminator.operands
        _check_counts(op, op.operands, [slot for region in partitions for slot in region.args])
        _check_counts(op, yields, op.results)

        def run(frame: Frame) -> None:
            frames, captures = [frame], iter(op.operands)
            for region in partitions:
                inner = Frame(frame.run, frame.positions, [None] * len(frame.slots))
                for slot, operand in zip(region.args, captures, strict=False):
                    inner.slots[slot] = frame.slots[operand]
                    inner.set_twins([slot], [frame.twins.get(operand)])
                frames.append(inner)
            runs = [partial(body.run, each) for body, each in zip(bodies, frames, strict=True)]
            if frame.run.chip is None:
                for each in runs:
                    each()
            else:
                frame.run.memory.observe_barrier(frame.positions)  # all warps meet where partitions start and end
                frame.run.chip.side_by_side(frame.positions, runs)
                frame.run.memory.observe_barrier(frame.positions)
            assign(frame, op.results, yields)

        return run

    def _if(self, op: Op) -> Step:
        check_variant(op)
        (condition,) = op.operands
        bodies = [(self._body(region), captured(region), region.terminator.operands) for region in op.regions]
        nothing = Steps((), (), None), (), ()
        then, otherwise = bodies[0], bodies[1] if len(bodies) > 1 else nothing
        _check_counts(op, then[2], otherwise[2], op.results)

        def run(frame: Frame) -> None:
            pieces: list[Piece] = []
            for taken, where in parted(frame.tensor(condition)):
                body, outer, yields = then if taken else otherwise
                if where is None:
                    body.run(frame)
                    assign(frame, op.results, yields)
                    return
                inner = frame.select(where, outer)
                body.run(inner)
                pieces.append((where, [inner.value(slot) for slot in yields], twins_of(inner, yields)))
            join(frame, op.results, pieces)

        return run

    def _for(self, op: Op) -> Step:
        check_variant(op, ["to", "step", "iter_args", "unsigned"])
        (region,) = op.regions
        low_slot, high_slot, step_slot, *initial = op.operands
        variable, *carried = region.args
        yields = region.terminator.operands
        body = self._body(region)
        dtype = DTYPES[self._types[variable].element]
        read = unsigned if "unsigned" in op.words else signed
        idle = not body.steps and not op.results
        loop = CountedLoop(body.run, variable, dtype, initial, carried, yields, op.results, captured(region))
        _check_counts(op, initial, carried, yields, op.results)

        def run(frame: Frame) -> None:
            low, high, step = (read(frame.tensor(slot)) for slot in (low_slot, high_slot, step_slot))
            if bool((step <= 0).any()):
                raise IRError(f"{op.name} at {op.location} has a step that is not positive")
            counts = torch.div(high - low + step - 1, step, rounding_mode="floor")
            counts = counts.clamp(min=0, max=frame.run.most_passes)
            if idle:
                frame.count(region.blocks[0].index, counts)
                return
            loop.run(frame, low, step, counts)

        return run

    def _while(self, op: Op) -> Step:
        check_variant(op)
        before_region, after_region = op.regions
        before, after = self._body(before_region), self._body(after_region)
        condition, *forwarded = before_region.terminator.operands
        yields = after_region.terminator.operands
        waits = any(not self._polls.isdisjoint(one.results) for one in op.nested)
        outer = (*captured(before_region), *captured(after_region))
        if before_region.terminator.name != "scf.condition":
            raise IRError(f"{op.name} at {op.location} has no condition")
        _check_counts(op, op.operands, before_region.args, yields)
        _check_counts(op, forwarded, after_region.args, op.results)

        def run(frame: Frame) -> None:
            pieces: list[Piece] = []
            inner, positions = frame, torch.arange(frame.programs)
            earlier: tuple[int, list[Value | None]] = (-1, [])
            assign(inner, before_region.args, op.operands)
            for trip in count():
                frame.run.check_time()
                before.run(inner)
                values, twins = [inner.value(slot) for slot in forwarded], twins_of(inner, forwarded)
                sides = {False: None} if trip == frame.run.most_passes else dict(parted(inner.tensor(condition)))
                if False in sides:
                    stop = sides[False]
                    if stop is None:
                        pieces.append((positions, values, twins))
                        break
                    ended = [select(value, stop) for value in values]
                    pieces.append((positions[stop], ended, narrowed(twins, partial(select, programs=stop))))
                go = sides[True]
                if go is not None:
                    inner, positions = inner.select(go, outer), positions[go]
                    values = [select(value, go) for value in values]
                    twins = narrowed(twins, partial(select, programs=go))
                for slot, value in zip(after_region.args, values, strict=True):
                    inner.slots[slot] = value
                inner.set_twins(after_region.args, twins)
                after.run(inner)
                assign(inner, before_region.args, yields)
                if waits and frame.run.turns is not None:
                    state = frame.run.memory.version, [inner.slots[slot] for slot in before_region.args]
                    frame.run.turns.wait(site(inner, op), idle=unchanged(earlier, state))
                    earlier = state
            join(frame, op.results, pieces)

        return run


def _scripted(op: Op, types: Sequence[Type], step: Step) -> Step:
    """Return a step that takes its result from the run's script, or records it there, if the script has it."""
    result = op.results[0]
    kind = types[result]

    def run(frame: Frame) -> None:
        script = frame.run.script
        if script is None or result not in script.slots:
            step(frame)
            return
        programs = frame.ids()
        if isinstance(script, Script):
            step(frame)
            script.write(result, programs, full(frame.tensor(result), kind, frame.programs))
            return
        told = script.read(result, programs)
        if told is None:
            raise IRError(f"{op.name} at {op.location} is reached by programs that did not reach it before")
        if op.name == LOAD and frame.run.chip is not None and frame.run.chip.holds_data:
            step(frame)
            if not torch.equal(frame.tensor(result).expand_as(told), told):
                raise UnsupportedOperation("a load from shared memory of what it was not seen to hold", op.location)
            return
        if script.acts and op.name in READS & WRITES:
            step(frame)
        frame.slots[result] = told

    return run


def _check_counts(op: Op, *values: Sequence[int]) -> None:
    """Raise ``IRError`` if lists of values that correspond to each other differ in length."""
    if len({len(each) for each in values}) > 1:
        raise IRError(f"{op.name} at {op.location} passes on different numbers of values")


def _check_forward(region: Region, end: str) -> None:
    """Raise ``UnsupportedOperation`` for a loop made of branches, ``IRError`` for a branch to nowhere."""
    targets = {block.label: [label for label, _ in block.ops[-1].successors] for block in region.blocks}
    args = {block.label: block.args for block in region.blocks}
    ends = {end: 0, "cf.br": 1, "cf.cond_br": 2}
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
