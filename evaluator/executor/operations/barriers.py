"""Barriers in shared memory, and fences."""

from collections.abc import Sequence

import torch

from evaluator.executor.chip import Queue
from evaluator.executor.chip.chip import Chip
from evaluator.executor.errors import UnsupportedOperation
from evaluator.executor.frame import Frame, Step
from evaluator.executor.ir import Op
from evaluator.executor.operations.memory import site
from evaluator.executor.operations.on_chip import on_chip, values, view_of, where
from evaluator.executor.operations.registry import Types, check_variant, step

Tensor = torch.Tensor


def barrier(frame: Frame, op: Op, slot: int) -> Tensor:
    """Return the number [P] of the barrier that a view is."""
    view = view_of(frame, slot)
    if view.buffer.first_barrier < 0 or any(extent != 1 for extent in view.shape):
        raise UnsupportedOperation(f"{op.name} on a buffer that is no barrier", op.location)
    return (view.buffer.first_barrier + view.offset).expand(frame.programs)


def usable(frame: Frame, chip: Chip, op: Op, number: Tensor, active: Tensor | None) -> Tensor:
    """Return the places [n] of the active programs whose barrier is initialised; report the others."""
    valid = chip.barriers.valid[chip.rows(frame), number]
    asked = torch.ones_like(valid) if active is None else active
    text = "uses barrier {}, which is not initialised, or no longer"
    chip.refute(frame, site(frame, op), "barrier misused", asked & ~valid, text, number)
    return (asked & valid).nonzero().flatten()


def arrive(frame: Frame, chip: Chip, op: Op, slot: int, count: int, active: Tensor | None, expected: int = 0) -> None:
    """Arrive at a barrier, which is then to wait for ``expected`` more bytes, and hand on what the partition knows."""
    number = barrier(frame, op, slot)
    places = usable(frame, chip, op, number, active)
    rows, numbers = chip.rows(frame)[places], number[places]
    clocks = chip.clocks
    clocks_known, clocks_fenced = clocks.known[rows, chip.partition], clocks.fenced[rows, chip.partition]
    chip.barriers.hand_on(rows, numbers, clocks_known, clocks_fenced)
    clocks.release(rows, chip.partition)
    if expected:
        chip.barriers.expect(rows, numbers, expected)
    _count(frame, chip, op, number, places, count)


def commit(frame: Frame, chip: Chip, op: Op, slot: int, active: Tensor | None) -> None:
    """Arrive at a barrier once the tensor core has done what it has been given."""
    number = barrier(frame, op, slot)
    places = usable(frame, chip, op, number, active)
    rows, numbers = chip.rows(frame)[places], number[places]
    clocks = chip.clocks
    actor, time = (
        clocks.actor(chip.partition, Queue.TENSOR_CORE),
        clocks.issued[rows, chip.partition, Queue.TENSOR_CORE],
    )
    chip.barriers.hand_on(rows, numbers, clocks.cores[rows, chip.partition], clocks.fenced[rows, chip.partition])
    chip.barriers.signalled(rows, numbers, torch.full_like(numbers, actor), time)
    _count(frame, chip, op, number, places, 1)


def _count(frame: Frame, chip: Chip, op: Op, number: Tensor, places: Tensor, count: int) -> None:
    wrong = torch.zeros(frame.programs, dtype=torch.bool)
    wrong[places] = chip.barriers.arrive(chip.rows(frame)[places], number[places], count)
    text = "arrives at barrier {} more often than its phase takes"
    chip.refute(frame, site(frame, op), "barrier misused", wrong, text, number)
    chip.give_way()


def _number_word(op: Op) -> int:
    check_variant(op, words=op.words)
    if len(op.words) != 1 or not op.words[0].isdecimal():
        raise UnsupportedOperation(f"{op.name} with {' '.join(op.words)[:60]}", op.location)
    return int(op.words[0])


def _predicate(slots: Sequence[int], types: Types) -> int | None:
    """Return which of some operands is a predicate."""
    return next((slot for slot in slots if types[slot].element == "i1"), None)


@step("ttng.init_barrier")
def _initialise(op: Op, types: Types) -> Step:
    count, (slot,) = _number_word(op), op.operands

    def run(frame: Frame, chip: Chip) -> None:
        number, rows = barrier(frame, op, slot), chip.rows(frame)
        text = "initialises barrier {} again, which was not invalidated"
        chip.refute(frame, site(frame, op), "barrier misused", chip.barriers.valid[rows, number], text, number)
        chip.barriers.initialise(rows, number, count)

    return on_chip(run)


@step("ttng.inval_barrier")
def _invalidate(op: Op, types: Types) -> Step:
    check_variant(op)
    (slot,) = op.operands

    def run(frame: Frame, chip: Chip) -> None:
        number = barrier(frame, op, slot)
        places = usable(frame, chip, op, number, None)
        rows, numbers = chip.rows(frame)[places], number[places]
        wrong = torch.zeros(frame.programs, dtype=torch.bool)
        wrong[places] = chip.barriers.outstanding(rows, numbers, chip.clocks.known[rows, chip.partition])
        text = "invalidates barrier {} while a copy or product may still signal it"
        chip.refute(frame, site(frame, op), "barrier misused", wrong, text, number)
        chip.barriers.valid[rows, numbers] = False

    return on_chip(run)


@step("ttng.barrier_expect", "ttng.arrive_barrier")
def _arrive(op: Op, types: Types) -> Step:
    amount = _number_word(op)
    slot, *predicate = op.operands
    count, expected = (1, amount) if op.name == "ttng.barrier_expect" else (amount, 0)

    def run(frame: Frame, chip: Chip) -> None:
        arrive(frame, chip, op, slot, count, where(frame, predicate[0] if predicate else None), expected)

    return on_chip(run)


@step("ttng.tc_gen5_commit")
def _commit(op: Op, types: Types) -> Step:
    check_variant(op, words=["descs"])  # which say to what CTAs of a cluster products have sent
    slot, *rest = op.operands
    predicate = _predicate(rest, types)

    def run(frame: Frame, chip: Chip) -> None:
        commit(frame, chip, op, slot, where(frame, predicate))

    return on_chip(run)


@step("ttng.wait_barrier")
def _wait(op: Op, types: Types) -> Step:
    check_variant(op, words=["deps"])
    slot, phase, *rest = values(op, types)
    predicate = _predicate(rest, types)

    def run(frame: Frame, chip: Chip) -> None:
        number = barrier(frame, op, slot)
        places = usable(frame, chip, op, number, where(frame, predicate))
        rows, numbers = chip.rows(frame)[places], number[places]
        parity = frame.tensor(phase).expand(frame.programs)[places]
        barriers, clocks, partition = chip.barriers, chip.clocks, chip.partition

        def missing() -> Tensor:
            wanting = torch.zeros(frame.programs, dtype=torch.bool)
            wanting[places] = barriers.waits(rows, numbers, parity)
            return wanting

        def describe(place: int) -> str:
            i = int((places == place).nonzero()[0])
            row, one = int(rows[i]), int(numbers[i])
            arrivals, amount = int(barriers.missing[row, one]), int(barriers.bytes[row, one])
            lacks = f"{arrivals} arrivals and {amount} bytes"
            return f"waits for phase {int(parity[i])} of barrier {barriers.names[one]}, which lacks {lacks}"

        chip.wait(missing, describe, site(frame, op))
        frame.run.memory.observe_barrier(frame.positions)
        for table, added in zip((clocks.known, clocks.fenced), barriers.handed_on(rows, numbers), strict=True):
            table[rows, partition] = torch.maximum(table[rows, partition], added)

    return on_chip(run)


@step("ttng.async_copy_mbarrier_arrive")
def _arrive_after_copies(op: Op, types: Types) -> Step:
    """Return the step that hands on the end of all copies so far; it adds the arrival that it makes."""
    check_variant(op)
    (slot,) = op.operands

    def run(frame: Frame, chip: Chip) -> None:
        number = barrier(frame, op, slot)
        places = usable(frame, chip, op, number, None)
        rows, numbers, clocks = chip.rows(frame)[places], number[places], chip.clocks
        known = torch.zeros(rows.numel(), clocks.actors, dtype=torch.int32)
        open_group = clocks.issued[rows, chip.partition, Queue.COPY] + 1
        known[:, clocks.actor(chip.partition, Queue.COPY)] = open_group
        chip.barriers.hand_on(rows, numbers, known, torch.zeros_like(known))

    return on_chip(run)


@step("ttng.fence_async_shared")
def _fence(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["bCluster"])
    return on_chip(lambda frame, chip: chip.clocks.fence(chip.rows(frame), chip.partition))
