"""Barriers in shared memory, and fences."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from avo.evaluator.executor.chip.chip import Chip
from avo.evaluator.executor.chip.clocks import Queue
from avo.evaluator.executor.chip.cluster import alike, bases, copies, parts, place
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.frame import Frame, Step
from avo.evaluator.executor.ir import Op
from avo.evaluator.executor.operations.memory import site
from avo.evaluator.executor.operations.on_chip import on_chip, values, view_of, where
from avo.evaluator.executor.operations.registry import Types, check_variant, integer, step

Tensor = torch.Tensor


def barrier(frame: Frame, op: Op, slot: int, active: Tensor | None) -> list[Tensor]:
    """Return the number [P] of the barrier that each CTA uses, if it is ``active`` [P]: its own, or that of the first
    CTA of several.
    """
    view, chip = view_of(frame, slot), frame.run.chip
    assert chip is not None
    if view.stray is not None:
        chip.refute_stray(site(frame, op), view, active)
    *leading, here = view.shape
    if view.buffer.first_barrier < 0 or any(extent != 1 for extent in leading):
        raise UnsupportedOperation(f"{op.name} on a buffer that is no barrier", op.location)
    divided = view.buffer.divided
    if here != parts(divided):
        raise UnsupportedOperation(f"{op.name} on {here} barriers of {chip.ctas} CTAs", op.location)
    first = (view.buffer.first_barrier + view.offset).expand(frame.programs)
    if not divided:
        return [first] * chip.ctas
    places = view.places.flatten()
    return [first + places[place(divided, cta)[-1]] for cta in range(chip.ctas)]


def holders(frame: Frame, slot: int, ctas: int) -> list[int]:
    """Return the CTAs that hold a barrier which they, and perhaps others, use: only they wait for it."""
    shared = copies(view_of(frame, slot).buffer.divided)
    return [cta for cta in range(ctas) if not cta & shared]


@dataclass(frozen=True, slots=True)
class Use:
    """Which programs use a barrier."""

    number: Tensor
    """The barrier of every program, [P]."""
    places: Tensor
    """The programs that use theirs, [n]."""
    rows: Tensor
    """Their rows, [n]."""
    barriers: Tensor
    """Their barriers, [n]."""


def usable(frame: Frame, chip: Chip, op: Op, number: Tensor, active: Tensor | None, agent: int) -> Use:
    """Return the active programs whose barrier is initialised; report the others, and those in which the agent cannot
    know that it is.
    """
    rows, barriers, known = chip.rows(frame.positions), chip.barriers, chip.clocks.known
    valid = barriers.valid[rows, number]
    used = valid if active is None else active & valid
    all_valid = bool(valid.all())
    if not chip.holds_data:
        return _use(frame, rows, number, None if all_valid and active is None else used)
    if not all_valid:
        unusable = ~valid if active is None else active & ~valid
        text = "uses barrier {}, which is not initialised, or no longer"
        chip.refute_use(site(frame, op), unusable, text, number, agent)
    by = barriers.begun_by[rows, number]
    unknown = used & (known[rows, agent, by] < barriers.begun_at[rows, number])
    if bool(unknown.any()):
        unknown &= by % chip.ctas == agent % chip.ctas  # the compiler lets CTAs meet after barriers are initialised
        text = "uses barrier {}, which may not be initialised yet"
        chip.refute_use(site(frame, op), unknown, text, number, agent)
    use = _use(frame, rows, number, None if all_valid and active is None else used)
    barriers.use(use.rows, use.barriers, agent, known[use.rows, agent, agent])
    return use


def _use(frame: Frame, rows: Tensor, number: Tensor, used: Tensor | None) -> Use:
    if used is None:  # most often: looking for the places would take as long as all else here
        return Use(number, torch.arange(frame.programs), rows, number)
    places = used.nonzero().flatten()
    return Use(number, places, rows[places], number[places])


def _in_phase(frame: Frame, chip: Chip, op: Op, use: Use, agent: int, phases: int) -> None:
    """Where that must be ``certain``, report programs whose agent does not know that all phases but the last ``phases``
    complete ones are: in another execution it might arrive, or go on, in an earlier one.
    """
    if not frame.run.memory.certain:
        return
    known = chip.clocks.known[use.rows, agent, chip.clocks.barrier(0) + use.barriers]
    unknown = known < chip.barriers.phase[use.rows, use.barriers] - phases
    _refute(frame, chip, op, use, agent, unknown, "is at barrier {} without having waited for the phase before")


def _refute(frame: Frame, chip: Chip, op: Op, use: Use, agent: int, wrong: Tensor, text: str) -> None:
    """Report a misuse where it is ``wrong`` [n]."""
    if not bool(wrong.any()):
        return
    whole = torch.zeros(frame.programs, dtype=torch.bool)
    whole[use.places] = wrong
    chip.refute_use(site(frame, op), whole, text, use.number, agent)


def arrive(
    frame: Frame, chip: Chip, op: Op, number: Tensor, agent: int, count: int, active: Tensor | None, expected: int
) -> None:
    """Arrive at a barrier, which is then to wait for ``expected`` more bytes, and hand on what the agent knows."""
    use, clocks = usable(frame, chip, op, number, active, agent), chip.clocks
    rows, numbers = use.rows, use.barriers
    if chip.holds_data:
        _in_phase(frame, chip, op, use, agent, 0)
        chip.barriers.hand_on(rows, numbers, clocks.known[rows, agent], clocks.fenced[rows, agent])
        chip.barriers.see(rows, numbers, clocks.heard(rows, agent))
        clocks.release(rows, agent)
    if expected:
        chip.barriers.expect(rows, numbers, expected)
    _count(frame, chip, op, use, agent, count)


def commit(frame: Frame, chip: Chip, op: Op, slot: int, active: Tensor | None, copied: Sequence[int] = ()) -> None:
    """Arrive at a barrier once the tensor core has done what it has been given: in each CTA that holds a copy of an
    operand, where ``copied`` says so by the bits of a CTA's number that make no difference.
    """
    numbers, clocks = barrier(frame, op, slot, active), chip.clocks
    pair = 1 if chip.paired else 0
    for agent in chip.issuers():
        cta = agent % chip.ctas
        told = {other for bits in (*copied, pair) for other in alike(cta, bits | pair, chip.ctas)}
        for number in _distinct(numbers, sorted(told)):
            use = usable(frame, chip, op, number, active, agent)
            rows, here = use.rows, use.barriers
            if chip.holds_data:
                actor, time = clocks.actor(agent, Queue.TENSOR_CORE), clocks.issued[rows, agent, Queue.TENSOR_CORE]
                chip.barriers.hand_on(rows, here, clocks.cores[rows, agent], clocks.fenced[rows, agent])
                chip.barriers.see(rows, here, clocks.heard(rows, agent))
                chip.barriers.signalled(rows, here, torch.full_like(here, actor), time)
            _count(frame, chip, op, use, agent, 1)
    chip.give_way()


def _distinct(numbers: Sequence[Tensor], ctas: Sequence[int]) -> list[Tensor]:
    """Return the barriers of some CTAs, each once."""
    return list({int(numbers[cta][0]): numbers[cta] for cta in ctas}.values())


def completes(
    frame: Frame, chip: Chip, op: Op, number: Tensor, active: Tensor | None, agent: int, amount: int
) -> tuple[list[tuple[int, Tensor]], Tensor]:
    """Let a copy of ``amount`` bytes to memory complete on a barrier.

    Return what to give to ``Access`` for each barrier that programs use, if the chip holds data: the actor, and which
    programs [P] use it, and the time [P] on its clock.
    """
    rows = chip.rows(frame.positions)
    use = usable(frame, chip, op, number, active, agent)
    time = chip.barriers.phase[rows, number] + 1
    if not chip.holds_data:
        chip.barriers.expect(use.rows, use.barriers, -amount)
        return [], time
    each = [
        (chip.clocks.barrier(one), (number == one) if active is None else (number == one) & active)
        for one in use.barriers.unique().tolist()
    ]
    done, here = use.rows, use.barriers
    chip.barriers.signalled(done, here, chip.clocks.barrier(0) + here, time[use.places])
    chip.barriers.see(done, here, chip.clocks.heard(done, agent))
    _check_overtaken(frame, chip, op, use, agent, chip.barriers.expect(done, here, -amount))
    return each, time


def _count(frame: Frame, chip: Chip, op: Op, use: Use, agent: int, count: int) -> None:
    wrong, ended = chip.barriers.arrive(use.rows, use.barriers, count)
    if chip.holds_data:
        _refute(frame, chip, op, use, agent, wrong, "arrives at barrier {} more often than its phase takes")
        _check_overtaken(frame, chip, op, use, agent, ended)


def _check_overtaken(frame: Frame, chip: Chip, op: Op, use: Use, agent: int, ended: Tensor) -> None:
    """Report where a phase has ``ended`` [n] too early, just now."""
    if not bool(ended.any()):
        return
    wrong = ended & chip.barriers.overtaken(use.rows, use.barriers)
    text = "ends a phase of barrier {} while others may still be waiting for the phase before"
    _refute(frame, chip, op, use, agent, wrong, text)


def _number_word(op: Op, *attributes: str) -> int:
    check_variant(op, words=op.words, attributes=attributes)
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
        numbers, rows, owners = (
            barrier(frame, op, slot, None),
            chip.rows(frame.positions),
            holders(frame, slot, chip.ctas),
        )
        text = "initialises barrier {} again, which was not invalidated"
        chip.begin(site(frame, op), view_of(frame, slot), owners)
        for cta in owners:
            number, agent = numbers[cta], chip.agents[cta]
            valid = chip.barriers.valid[rows, number]
            chip.refute_use(site(frame, op), valid, text, number, agent)
            time = chip.clocks.known[rows, agent, agent]
            chip.barriers.initialise(rows, number, count * (chip.ctas // len(owners)), agent, time)

    return on_chip(run)


@step("ttng.inval_barrier")
def _invalidate(op: Op, types: Types) -> Step:
    check_variant(op)
    (slot,) = op.operands

    def run(frame: Frame, chip: Chip) -> None:
        numbers = barrier(frame, op, slot, None)
        signalled = "invalidates barrier {} while a copy or product may still signal it"
        used = "invalidates barrier {} while another partition may still be using it"
        for cta in holders(frame, slot, chip.ctas):
            number, agent = numbers[cta], chip.agents[cta]
            use = usable(frame, chip, op, number, None, agent)
            rows, here = use.rows, use.barriers
            wrong = chip.barriers.outstanding(rows, here, chip.clocks.known[rows, agent])
            _refute(frame, chip, op, use, agent, wrong, signalled)
            neighbours = range(agent % chip.ctas, chip.clocks.partitions, chip.ctas)
            wrong = chip.barriers.in_use(rows, here, chip.clocks.heard(rows, agent), neighbours)
            _refute(frame, chip, op, use, agent, wrong, used)
            chip.barriers.valid[rows, here] = False

    return on_chip(run)


@step("ttng.barrier_expect", "ttng.arrive_barrier")
def _arrive(op: Op, types: Types) -> Step:
    amount = _number_word(op, "fromCTA", "multicastCTA")
    slot, *predicate = op.operands
    count, expected = (1, amount) if op.name == "ttng.barrier_expect" else (amount, 0)
    kept = integer(op, "fromCTA") if "fromCTA" in op.attributes else -1
    bits = integer(op, "multicastCTA") if "multicastCTA" in op.attributes else 0

    def run(frame: Frame, chip: Chip) -> None:
        active = where(frame, predicate[0] if predicate else None)
        numbers = barrier(frame, op, slot, active)
        for cta, number in enumerate(numbers):
            for source in alike(cta & kept, bits, chip.ctas):
                arrive(frame, chip, op, number, chip.agents[source], count, active, expected)
        chip.give_way()

    return on_chip(run)


@step("ttng.tc_gen5_commit")
def _commit(op: Op, types: Types) -> Step:
    check_variant(op, words=["descs"])
    slot, *rest = op.operands
    predicate = _predicate(rest, types)
    copied = [copies(bases(types[each].layout)) for each in rest if types[each].element == "memdesc"]

    def run(frame: Frame, chip: Chip) -> None:
        commit(frame, chip, op, slot, where(frame, predicate), copied)

    return on_chip(run)


@step("ttng.wait_barrier")
def _wait(op: Op, types: Types) -> Step:
    check_variant(op, words=["deps"])
    slot, phase, *rest = values(op, types)
    predicate = _predicate(rest, types)

    def run(frame: Frame, chip: Chip) -> None:
        active = where(frame, predicate)
        numbers = barrier(frame, op, slot, active)
        parity = frame.tensor(phase).expand(frame.programs)
        barriers, clocks = chip.barriers, chip.clocks
        uses = {
            agent: usable(frame, chip, op, number, active, agent)
            for agent, number in ((chip.agents[cta], numbers[cta]) for cta in holders(frame, slot, chip.ctas))
        }
        waiting = [(use, parity[use.places]) for use in uses.values()]

        def missing() -> Tensor:
            (first, asked), *others = waiting
            if not others and first.places.numel() == frame.programs:
                return barriers.waits(first.rows, first.barriers, asked)
            wanting = torch.zeros(frame.programs, dtype=torch.bool)
            for use, asked in waiting:
                wanting[use.places] |= barriers.waits(use.rows, use.barriers, asked)
            return wanting

        def describe(at: int) -> str:
            row, parity_at = chip.rows(frame.positions)[at], parity[at]
            numbers_at = (use.number[at] for use in uses.values())
            one = next(int(number) for number in numbers_at if bool(barriers.waits(row, number, parity_at)))
            arrivals, amount = int(barriers.missing[row, one]), int(barriers.bytes[row, one])
            size = f"{amount} bytes" if amount >= 0 else f"got {-amount} bytes too many"
            complete = int(barriers.phase[row, one] - barriers.begun[row, one])
            after = f" after {complete} complete phase{'s' * (complete != 1)}" if complete else ""
            lacks = f"lacks {arrivals} arrival{'s' * (arrivals != 1)} and {size}{after}"
            asked = f"phase {int(parity_at)} of barrier {barriers.names[one]}"
            return f"waits for {asked}, which {lacks} ({chip.arrivals(one)})"

        chip.wait(missing, describe, site(frame, op))
        frame.run.memory.observe_barrier(frame.positions)
        for agent, use in uses.items() if chip.holds_data else ():
            rows, here = use.rows, use.barriers
            _in_phase(frame, chip, op, use, agent, 1)
            told = barriers.handed_on(rows, here)
            for table, added in zip((clocks.known, clocks.fenced), told, strict=True):
                table[rows, agent] = torch.maximum(table[rows, agent], added)
            clocks.met[rows, agent] = torch.maximum(clocks.met[rows, agent], barriers.told(rows, here))
            barriers.waited(rows, here, agent, clocks.known[rows, agent, agent])

    return on_chip(run)


@step("ttng.async_copy_mbarrier_arrive")
def _arrive_after_copies(op: Op, types: Types) -> Step:
    """Return the step that hands on the end of all copies so far (PTX ISA, cp.async.mbarrier.arrive).

    Every thread arrives; without ``noIncrement`` each first adds the arrival that it makes to those that a phase takes.
    """
    check_variant(op, attributes=["noIncrement", "warps"])
    (slot,) = op.operands
    arrivals = 32 * integer(op, "warps") if "noIncrement" in op.attributes else 0

    def run(frame: Frame, chip: Chip) -> None:
        for agent, number in zip(chip.agents, barrier(frame, op, slot, None), strict=True):
            use, clocks = usable(frame, chip, op, number, None, agent), chip.clocks
            rows, here = use.rows, use.barriers
            known = torch.zeros(rows.numel(), clocks.actors, dtype=torch.int32)
            known[:, clocks.actor(agent, Queue.COPY)] = clocks.issued[rows, agent, Queue.COPY] + 1  # the open group
            chip.barriers.hand_on(rows, here, known, torch.zeros_like(known))
            chip.barriers.see(rows, here, clocks.heard(rows, agent))
            if arrivals:
                _count(frame, chip, op, use, agent, arrivals)
        chip.give_way()

    return on_chip(run)


@step("ttng.fence_async_shared")
def _fence(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["bCluster"])

    def run(frame: Frame, chip: Chip) -> None:
        for agent in chip.agents:
            chip.clocks.fence(chip.rows(frame.positions), agent)

    return on_chip(run)


@step("ttng.cluster_barrier")
def _meet(op: Op, types: Types) -> Step:
    check_variant(op, attributes=["relaxed"])
    relaxed = op.attributes.get("relaxed", "false") == "true"

    def run(frame: Frame, chip: Chip) -> None:
        frame.run.memory.observe_barrier(frame.positions)
        if not relaxed:
            chip.clocks.meet(chip.rows(frame.positions), chip.agents)

    return on_chip(run)


@step("ttng.fence_mbarrier_init_release_cluster")
def _fence_of_barriers(op: Op, types: Types) -> Step:
    check_variant(op)
    return lambda frame: None
