"""Products of the tensor cores that a program does not wait for: wgmma (Hopper) and tcgen05 (Blackwell)."""

import torch

from evaluator.executor.chip import Queue
from evaluator.executor.chip.chip import Access, Chip
from evaluator.executor.errors import UnsupportedOperation
from evaluator.executor.frame import Frame, Step
from evaluator.executor.ir import Op
from evaluator.executor.operations.barriers import commit
from evaluator.executor.operations.on_chip import block_of, give_tokens, load, on_chip, store, values, where
from evaluator.executor.operations.products import check_product, product
from evaluator.executor.operations.registry import Types, check_variant, step
from evaluator.executor.values import DTYPES, full

Tensor = torch.Tensor


@step("ttng.warp_group_dot")
def _warp_group_dot(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["inputPrecision", "maxNumImpreciseAcc", "isAsync"])
    a, b, c, *use = op.operands
    kinds = types[a].block, types[b].block, types[c]
    check_product(op, *kinds)
    multiply = product(*kinds, "tf32")
    waits = not op.attributes.get("isAsync", "").startswith("true")

    def run(frame: Frame, chip: Chip) -> None:
        rows = chip.rows(frame)
        time = chip.clocks.issue(rows, chip.partition, Queue.WARP_GROUP)
        access = Access("reads", chip.clocks.actor(chip.partition, Queue.WARP_GROUP), time, fences=True)

        def operand(slot: int) -> Tensor:
            return load(frame, chip, op, slot, access) if types[slot].element == "memdesc" else frame.tensor(slot)

        added = frame.tensor(c)
        if use:
            used = frame.tensor(use[0]).view(-1, 1, 1)
            added = added if bool(used.all()) else torch.where(used, added, torch.zeros((), dtype=added.dtype))
        frame.slots[op.results[0]] = multiply(operand(a), operand(b), added)
        if waits:
            chip.clocks.finish(rows, chip.partition, Queue.WARP_GROUP, 0)

    return on_chip(run)


@step("ttng.warp_group_dot_wait")
def _warp_group_wait(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["pendings", "warpGroupLocal"])
    pending = int(op.attributes["pendings"].split(":")[0])

    def run(frame: Frame) -> None:
        if (chip := frame.run.chip) is not None:
            chip.clocks.finish(chip.rows(frame), chip.partition, Queue.WARP_GROUP, pending)
        for result, operand in zip(op.results, op.operands, strict=True):
            frame.slots[result] = frame.slots[operand]

    return run


def _give_work(frame: Frame, chip: Chip) -> Access:
    """Count one more operation of the tensor core, and return what it is to memory, but for the verb."""
    rows, clocks, partition = chip.rows(frame), chip.clocks, chip.partition
    actor, time = clocks.actor(partition, Queue.TENSOR_CORE), clocks.issue(rows, partition, Queue.TENSOR_CORE)
    clocks.cores[rows, partition] = torch.maximum(clocks.cores[rows, partition], clocks.known[rows, partition])
    clocks.cores[rows, partition, actor] = time
    clocks.release(rows, partition)
    return Access("reads", actor, time, in_order=True, fences=True)


@step("ttng.tc_gen5_mma")
def _tensor_core_product(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["is_async"])
    a, b, d, use, predicate, *signals = values(op, types)
    kinds = block_of(op, types, a), block_of(op, types, b), block_of(op, types, d)
    check_product(op, *kinds)
    multiply = product(*kinds, "tf32")
    pairs = list(zip(signals[::2], signals[1::2], strict=True))

    def run(frame: Frame, chip: Chip) -> None:
        active = where(frame, predicate)
        give_tokens(op, types, frame)
        reads = _give_work(frame, chip)
        writes = Access("writes", reads.actor, reads.time, in_order=True)
        if active is None or bool(active.any()):
            used = frame.tensor(use)
            added = torch.zeros(1, 1, 1, dtype=DTYPES[kinds[2].element])
            if bool(used.any()):
                adding = used.expand(frame.programs) if active is None else active & used
                held = load(frame, chip, op, d, Access("reads", reads.actor, reads.time, in_order=True), adding)
                added = held if bool(used.all()) else torch.where(used.view(-1, 1, 1), held, added)
            left, right = (load(frame, chip, op, slot, reads, active) for slot in (a, b))
            result = multiply(left, right, added)
            store(frame, chip, op, d, result, writes, active)
        for signal, condition in pairs:
            signalled = where(frame, condition)
            both = active if signalled is None else signalled if active is None else active & signalled
            commit(frame, chip, op, signal, both)

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
        store(frame, chip, op, target, value, Access("writes", reads.actor, reads.time, in_order=True))

    return on_chip(run)
