"""Products of the tensor cores that a program does not wait for: wgmma (Hopper) and tcgen05 (Blackwell)."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from avo.evaluator.executor.chip.accesses import Access
from avo.evaluator.executor.chip.chip import Chip
from avo.evaluator.executor.chip.clocks import Queue
from avo.evaluator.executor.chip.cluster import bases, copies
from avo.evaluator.executor.dtypes import DTYPES
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import Op
from avo.evaluator.executor.operations.barriers import commit
from avo.evaluator.executor.operations.dot_scaled import scaled_product
from avo.evaluator.executor.operations.on_chip import block_of, give_tokens, load, on_chip, store, values, where
from avo.evaluator.executor.operations.products import check_product, product
from avo.evaluator.executor.operations.registry import Types, check_variant, step
from avo.evaluator.executor.values import full

Tensor = torch.Tensor


def is_asynchronous(op: Op) -> bool:
    """Return whether the program goes on while a Hopper product is computed."""
    return op.attributes.get("isAsync", "").startswith("true")


@step("ttng.warp_group_dot")
def _warp_group_dot(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["inputPrecision", "maxNumImpreciseAcc", "isAsync"])
    a, b, c, *use = op.operands
    kinds = types[a].block, types[b].block, types[c]
    check_product(op, *kinds)
    multiply = product(*kinds, "tf32")
    waits = not is_asynchronous(op)

    def run(frame: Frame, chip: Chip) -> None:
        rows, clocks = chip.rows(frame.positions), chip.clocks
        accesses = []
        for cta, agent in enumerate(chip.agents):
            time = clocks.issue(rows, agent, Queue.WARP_GROUP)
            accesses.append(Access("reads", agent, cta, clocks.actor(agent, Queue.WARP_GROUP), time, fences=True))

        def operand(slot: int) -> Tensor:
            held = types[slot].element == "memdesc"
            return load(frame, chip, op, slot, accesses, copy=False) if held else frame.tensor(slot)

        added = frame.tensor(c)
        if use:
            used = frame.tensor(use[0]).view(-1, 1, 1)
            added = added if bool(used.all()) else torch.where(used, added, torch.zeros((), dtype=added.dtype))
        frame.slots[op.results[0]] = multiply(operand(a), operand(b), added)
        for agent in chip.agents if waits else ():
            clocks.finish(rows, agent, Queue.WARP_GROUP, 0)

    return on_chip(run)


@step("ttng.warp_group_dot_wait")
def _warp_group_wait(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["pendings", "warpGroupLocal"])
    pending = int(op.attributes["pendings"].split(":")[0])

    def run(frame: Frame) -> None:
        if (chip := frame.run.chip) is not None:
            for agent in chip.agents:
                chip.clocks.finish(chip.rows(frame.positions), agent, Queue.WARP_GROUP, pending)
        for result, operand in zip(op.results, op.operands, strict=True):
            frame.slots[result] = frame.slots[operand]

    return run


def _give_work(frame: Frame, chip: Chip) -> list[Access]:
    """Count one more operation of the tensor core, in each CTA or each pair. Return what it is to
    the memory of each CTA as it reads operands.
    """
    accesses, rows, clocks = [], chip.rows(frame.positions), chip.clocks
    for agent in chip.issuers():
        actor, time = clocks.actor(agent, Queue.TENSOR_CORE), clocks.issue(rows, agent, Queue.TENSOR_CORE)
        clocks.cores[rows, agent] = torch.maximum(clocks.cores[rows, agent], clocks.known[rows, agent])
        clocks.cores[rows, agent, actor] = time
        clocks.release(rows, agent)
        cta = agent % chip.ctas
        for one in (cta, cta + 1) if chip.paired else (cta,):
            accesses.append(Access("reads", agent, one, actor, time, in_order=True, fences=True))
    return accesses


def _accumulator(reads: Sequence[Access], verb: str) -> list[Access]:
    """Return what an operation of the tensor core that ``reads`` operands is to tensor memory that it changes."""
    return [replace(each, verb=verb, fences=False) for each in reads]


@step("ttng.tc_gen5_mma")
def _tensor_core_product(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["is_async", "two_ctas"])
    a, b, d, use, predicate, *signals = values(op, types)
    kinds = block_of(op, types, a), block_of(op, types, b), block_of(op, types, d)
    check_product(op, *kinds)
    return _accumulates(op, types, (a, b), d, product(*kinds, "tf32"), use, predicate, signals)


@step("ttng.tc_gen5_mma_scaled")
def _scaled_product(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["is_async", "two_ctas", "lhs", "rhs"])
    a, b, d, a_scale, b_scale, use, predicate, *signals = values(op, types)
    multiply = scaled_product(op, *(block_of(op, types, slot) for slot in (a, b, d, a_scale, b_scale)))
    return _accumulates(op, types, (a, b, a_scale, b_scale), d, multiply, use, predicate, signals)


def _accumulates(
    op: Op,
    types: Types,
    factors: Sequence[int],
    d: int,
    multiply: Callable[..., Tensor],
    use: int,
    predicate: int,
    signals: Sequence[int],
) -> Step:
    """Return the step of a tcgen05 product that adds to the accumulator in slot ``d`` where ``use`` says so."""
    accumulator = block_of(op, types, d)
    pairs = list(zip(signals[::2], signals[1::2], strict=True))
    copied = [copies(bases(types[slot].layout)) for slot in factors] if "multicast" in op.attributes else []

    def run(frame: Frame, chip: Chip) -> None:
        active = where(frame, predicate)
        give_tokens(op, types, frame)
        reads = _give_work(frame, chip)
        if chip.holds_data and (active is None or bool(active.any())):
            used = frame.tensor(use)
            added = torch.zeros(1, 1, 1, dtype=DTYPES[accumulator.element])
            if bool(used.any()):
                adding = used.expand(frame.programs) if active is None else active & used
                held = load(frame, chip, op, d, _accumulator(reads, "reads"), adding, copy=False)
                added = held if bool(used.all()) else torch.where(used.view(-1, 1, 1), held, added)
            result = multiply(*(load(frame, chip, op, slot, reads, active, copy=False) for slot in factors), added)
            store(frame, chip, op, d, result, _accumulator(reads, "writes"), active)
        for signal, condition in pairs:
            signalled = where(frame, condition)
            both = active if signalled is None else signalled if active is None else active & signalled
            commit(frame, chip, op, signal, both, copied)

    return on_chip(run)


@step("ttng.tmem_copy")
def _tensor_core_copy(op: Op, types: Types) -> Step:
    check_variant(op)
    source, target = op.operands
    held, wanted = block_of(op, types, source), block_of(op, types, target)
    if held != wanted:
        raise UnsupportedOperation(f"{op.name} of {held} into {wanted}", op.location)

    def run(frame: Frame, chip: Chip) -> None:
        reads = _give_work(frame, chip)
        value = full(load(frame, chip, op, source, reads), held)
        store(frame, chip, op, target, value, _accumulator(reads, "writes"))

    return on_chip(run)
