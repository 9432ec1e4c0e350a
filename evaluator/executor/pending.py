"""Results of Hopper's asynchronous products (wgmma) that are used before a wait says that they are there.

The tensor cores write such a result into registers while the program goes on. The executor has it at once, so whether a
use comes too early is looked for once in a kernel's operations, on all paths through them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import torch

from avo.evaluator.executor.chip.accesses import TOO_EARLY
from avo.evaluator.executor.effects import CONTROL
from avo.evaluator.executor.errors import IRError
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import COMBINING, Block, Function, Op, Region
from avo.evaluator.executor.operations.chip_products import is_asynchronous
from avo.evaluator.executor.operations.memory import site
from avo.evaluator.executor.operations.registry import integer

_PRODUCT, _WAIT = "ttng.warp_group_dot", "ttng.warp_group_dot_wait"
_ACCUMULATOR = 2
"""Place of the operand that a product adds to, which the tensor cores may still be writing: they work in order."""
_VIEWS = ("tt.reshape", "tt.trans", "ttg.convert_layout")
"""Operations whose result is as pending as their operand: the compiler puts such as move nothing between a product and
the next that adds to it (``isNoop``, lib/Analysis/Utility.cpp of Triton)."""
_OLDEST = 64
"""Age of the result of a product that has ended. No kernel has so many products under way."""


@dataclass(frozen=True, slots=True, order=True)
class _Result:
    """The result of a product, as long as no wait has returned it."""

    age: int
    """The least number of asynchronous products that were issued since, on any path, as far as ``_OLDEST``."""
    product: str
    """Where the product is written."""


_State: TypeAlias = Mapping[int, _Result]
"""What is known at one place of a partition, by slot. Values that are no results of products are not in it."""


def early_uses(function: Function) -> dict[int, str]:
    """Return which operations, by ``id``, use what the tensor cores may still be writing: where its product is.

    Raises ``IRError`` for paths that lead nowhere: the IR is untrusted and not verified.
    """
    if not any(op.name == _PRODUCT and is_asynchronous(op) for op in function.body.ops):
        return {}
    paths = _Paths()
    try:
        while paths.grew:
            paths.grew = False
            paths.follow(function.body, {})
    except (KeyError, IndexError, ValueError) as error:
        raise IRError(f"no path can be followed through kernel {function.name}: {error}") from error
    return paths.early


def reported(op: Op, step: Step, early: Mapping[int, str]) -> Step:
    """Return the step of an operation, which reports where it is among the ``early`` ones."""
    if id(op) not in early:
        return step
    text = (
        f"{{}} uses the result of the product at {early[id(op)]}, which the tensor cores may still be writing: "
        "wait for it with warpgroup_mma_wait, and use what that returns"
    )

    def run(frame: Frame) -> None:
        if (chip := frame.run.chip) is not None:
            told, who = torch.ones(1, dtype=torch.bool), chip.clocks.partition(chip.agents[0])
            frame.run.memory.refute(TOO_EARLY, told, lambda _: text.format(who), site(frame, op))
        step(frame)

    return run


class _Paths:
    """What is known wherever paths meet. Following all paths again and again makes it true of all of them: results only
    get younger, and more of them pending.
    """

    def __init__(self) -> None:
        self._entries: dict[int, _State] = {}
        """What is known at the start of each block, by its index."""
        self.early: dict[int, str] = {}
        self.grew = True

    def follow(self, region: Region, state: _State) -> list[tuple[Op, _State]]:
        """Follow a region from a state at its start. Return its ends, with the state at each."""
        blocks, ends = {block.label: block for block in region.blocks}, []
        self._enter(region.blocks[0], state)
        for block in region.blocks:
            if block.index not in self._entries:
                continue
            state = self._entries[block.index]
            for op in block.ops:
                state = self._after(op, state)
            last = block.ops[-1]
            for label, values in last.successors:
                self._enter(blocks[label], _carried(state, blocks[label].args, values))
            if not last.successors:
                ends.append((last, state))
        return ends

    def _enter(self, block: Block, state: _State) -> None:
        """Add a path to the start of a block."""
        known = self._entries.get(block.index)
        joined = state if known is None else _joined((known, state))
        if joined != known:
            self._entries[block.index] = joined
            self.grew = True

    def _after(self, op: Op, state: _State) -> _State:
        """Return the state after an operation."""
        for slot in _used(op):
            if slot in state:
                self.early[id(op)] = state[slot].product
        if op.name == _PRODUCT:
            return _issued(op, state)
        if op.name == _WAIT:
            return _waited(op, state)
        if op.name in _VIEWS:
            return _carried(state, op.results, op.operands)
        if op.name == "scf.for":
            return self._repeated(op, state)
        if op.name == "scf.while":
            return self._repeated_while(op, state)
        if op.name in ("scf.if", "tt.call", "ttg.warp_specialize"):
            return _joined(self._chosen(op, state))
        if op.regions and op.name not in COMBINING:
            raise NotImplementedError(f"evaluator/executor/pending.py does not say what {op.name} leads to")
        return state

    def _chosen(self, op: Op, state: _State) -> Iterator[_State]:
        """Follow the regions of an operation that repeats none. Yield the states in which programs may leave it."""
        regions, outcome = op.regions, partial(_carried, targets=op.results)
        if op.name == "tt.call":
            state = _carried(state, regions[0].args, op.operands)
        if op.name == "ttg.warp_specialize":
            regions, partitions = op.regions[:1], op.regions[1:]
            for each in partitions:
                self.follow(each, {})  # these have warps of their own, and so registers of their own
        for region in regions:
            yield from (outcome(after, sources=last.operands) for last, after in self.follow(region, state))
        if op.name == "scf.if" and len(regions) == 1:
            yield state

    def _repeated(self, op: Op, state: _State) -> _State:
        (body,) = op.regions
        carried = body.args[1:]
        left = state = _carried(state, carried, op.operands[3:])
        for last, after in self.follow(body, state):
            again = _carried(after, carried, last.operands)
            self._enter(body.blocks[0], again)
            left = _joined((left, again))
        return _carried(left, op.results, carried)

    def _repeated_while(self, op: Op, state: _State) -> _State:
        before, after = op.regions
        left: _State = {}
        for condition, reached in self.follow(before, _carried(state, before.args, op.operands)):
            forwarded = condition.operands[1:]
            for last, repeated in self.follow(after, _carried(reached, after.args, forwarded)):
                self._enter(before.blocks[0], _carried(repeated, before.args, last.operands))
            left = _joined((left, _carried(reached, op.results, forwarded)))
        return left


def _used(op: Op) -> Sequence[int]:
    """Return the operands that an operation reads, and does not only pass on."""
    if op.name == _PRODUCT:
        return (*op.operands[:_ACCUMULATOR], *op.operands[_ACCUMULATOR + 1 :])
    passes_on = op.name in (_WAIT, *_VIEWS) or (op.name in CONTROL and op.name != "ttg.warp_specialize")
    return () if passes_on else op.operands


def _issued(op: Op, state: _State) -> _State:
    """Return the state after a product. One that is not asynchronous waits for all that were issued before, too."""
    grown = 1 if is_asynchronous(op) else _OLDEST
    after = {slot: replace(held, age=min(held.age + grown, _OLDEST)) for slot, held in state.items()}
    after.pop(op.results[0], None)
    return {**after, op.results[0]: _Result(0, op.location)} if is_asynchronous(op) else after


def _waited(op: Op, state: _State) -> _State:
    """Return the state after a wait. Only what it returns is certain to be read after it."""
    under_way = min(integer(op, "pendings"), _OLDEST)
    ended = {slot: replace(held, age=_OLDEST) for slot, held in state.items() if held.age >= under_way}
    after = _carried({**state, **ended}, op.results, op.operands)
    return {slot: held for slot, held in after.items() if slot not in op.results or held.age < under_way}


def _carried(state: _State, targets: Sequence[int], sources: Sequence[int]) -> _State:
    """Return the state after each target was set to the source at the same place. Their numbers are checked where steps
    are built.
    """
    after = dict(state)
    for target, source in zip(targets, sources, strict=False):
        after.pop(target, None)
        if source in state:
            after[target] = state[source]
    return after


def _joined(states: Iterable[_State]) -> _State:
    """Return what is known where paths meet: of each value the youngest result that it may be."""
    found: dict[int, _Result] = {}
    for state in states:
        for slot, held in state.items():
            found[slot] = min(held, found.get(slot, held))
    return found
