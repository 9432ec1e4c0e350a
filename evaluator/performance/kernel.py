"""One kernel on one SM: clocks per pass through each of its loops, and clocks outside them."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from statistics import median_low

from avo.evaluator.binary import Binary
from avo.evaluator.performance.banks import wavefronts
from avo.evaluator.performance.constants import Constants
from avo.evaluator.performance.lines import ir_lines
from avo.evaluator.performance.parts import MOST_PACE, Player, play_parts, tied, turns
from avo.evaluator.performance.passes import LightPass, Pass, PlayedKernel
from avo.evaluator.performance.pipes import PARTITIONS, PIPE_NAMES, Costs, Kind, Pipe
from avo.evaluator.performance.residency import spills_missed
from avo.evaluator.performance.roles import Role, find_roles, leading
from avo.evaluator.performance.sass import Code, Instruction, ModelError, parse
from avo.evaluator.performance.simulate import play
from avo.evaluator.performance.structure import LITTLE, MATRIX, SINGLE_ISSUE, SPILLS, Graph, Loop, Structure
from avo.evaluator.target import Target
from avo.evaluator.work import Paces, Shares

_PLAYS = 8
"""Most jittered plays that are averaged for one time."""
_WORD = 4
"""Bytes of a register."""
_PLACE = re.compile(r"(\w+)(?:\+(-?0x[0-9a-f]+))?")
Missed = tuple[tuple[int, float], ...]
"""Indices of loads in the binary, each with the share of times that L1 does not have what it asks for."""
_UNROLLED = (MATRIX | {"LDG", "LDGSTS", "STG", "LDS", "STS", "LDSM", "STSM", "UTMALDG", "ATOMG", "REDG"}) - SINGLE_ISSUE
"""Instructions of which ptxas makes one from one of PTX."""


@dataclass(frozen=True)
class Reading:
    """The contents of a binary's listing."""

    code: Code
    wavefronts: Mapping[int, float]
    """Clocks of accesses to shared memory; see ``banks``."""


@lru_cache(maxsize=64)
def read(binary: Binary) -> Reading:
    """Read the listing of a binary; raise ``ModelError`` if it cannot be read."""
    graph = Graph(parse(binary.listing, ir_lines(binary.ptx)))
    with _sense():
        return Reading(graph.code, wavefronts(graph, binary.threads))


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a kernel is played with."""

    table: Constants
    l1_missed: Missed = ()
    """How often loads miss L1; those that are not there always do."""
    shares: Shares = ()
    """Which lines of the IR are passed by."""
    paces: Paces = ()
    """Which loops roles pass at another pace than the leading one."""


@lru_cache(maxsize=64)
def structure_of(binary: Binary, shares: Shares, paces: Paces) -> Structure:
    """Return what is played of a binary; raise ``ModelError`` if it cannot be read."""
    code = read(binary).code
    with _sense():
        return replace(Graph(code, shares).structure(code.entry), paces=paces)


def costs_of(binary: Binary, target: Target, resident: int, conditions: Conditions) -> Costs:
    """Return the instruction costs of ``read`` with ``resident`` CTAs on an SM. Raises ``ModelError`` like ``read``."""
    spilled = _spilled(binary, conditions.shares, conditions.paces) if binary.spill_bytes else 0
    return costs_under(binary, target, spills_missed(spilled, binary, target, resident), conditions)


@lru_cache(maxsize=16)
def costs_under(binary: Binary, target: Target, missed: float, conditions: Conditions) -> Costs:
    """Return the same where so many of the accesses to spilled registers go on to L2."""
    at_any_clock = replace(target, sustained_clock_ratio=1.0)  # each joint draw has a clock of its own
    return _costs(binary, at_any_clock).under(conditions.table, dict(conditions.l1_missed), missed)


@lru_cache(maxsize=64)
def _spilled(binary: Binary, shares: Shares, paces: Paces) -> int:
    structure = structure_of(binary, shares, paces)
    with _sense():
        return spilled_bytes(structure, -(-binary.threads // 32))


def spilled_bytes(structure: Structure, warps: int) -> int:
    """Return the bytes of spilled registers that the ``warps`` warps of a CTA touch in a pass of their loops."""
    roles = find_roles(structure, warps) if structure.dispatches else [Role(structure.top, warps)]
    return sum(role.warps * max(map(_slots, role.paths().values()), default=0) for role in roles)


def _slots(loop: Loop) -> int:
    """Return the bytes of spilled registers that a warp touches in a pass of a loop, without the loops in it."""
    words = set()
    for i in loop.own:
        if i.base in SPILLS:
            address = i.operands.partition("[")[2].partition("]")[0]
            register, offset = found.groups() if (found := _PLACE.fullmatch(address)) else (address, None)
            first = int(offset or "0", 16)
            words |= {(register, first + place) for place in range(0, i.lane_bytes, _WORD)}
    return 32 * _WORD * len(words)


@lru_cache(maxsize=16)
def _costs(binary: Binary, target: Target) -> Costs:
    reading = read(binary)
    return Costs(reading.code.instructions, target, wavefronts=reading.wavefronts)


@contextmanager
def _sense() -> Iterator[None]:
    """Raise ``ModelError`` for contents that no disassembler writes.

    A compiler that hostile IR has taken over may write anything.
    """
    try:
        yield
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ModelError(f"the disassembly makes no sense: {error!r:.200}") from error


@lru_cache(maxsize=512)
def measure(
    binary: Binary,
    target: Target,
    resident: int,
    conditions: Conditions,
    seed: int | None = None,
) -> PlayedKernel:
    """Play ``resident`` CTAs of ``binary`` on one SM. With a ``seed``, plays are jittered; see ``play``.

    Raises ``ModelError`` when the binary cannot be read.
    """
    structure = structure_of(binary, conditions.shares, conditions.paces)
    costs = costs_of(binary, target, resident, conditions)
    players: list[Player] = [play]
    if seed is not None:
        players = [partial(play, seed=seed * _PLAYS + place) for place in range(_PLAYS)]
    return play_kernel(structure, costs, -(-binary.threads // 32), resident, *players)


def play_kernel(structure: Structure, costs: Costs, warps: int, resident: int, *players: Player) -> PlayedKernel:
    """Play ``resident`` CTAs of ``warps`` warps with as many of the players as it takes, for the mean of their plays.

    Raises ``ModelError`` where instructions lack operands.
    """
    with _sense():
        return _play_kernel(structure, costs, warps, resident, players or (play,))


def _play_kernel(
    structure: Structure, costs: Costs, warps: int, resident: int, players: Sequence[Player]
) -> PlayedKernel:
    if structure.dispatches:
        return _specialised(structure, costs, warps, resident, players)
    clocks, end, counts = play_parts([(structure.items, warps)], costs, resident, players)
    aside = [play_parts([((loop,), warps)], costs, resident, players)[0] for loop in structure.aside]
    for more in aside:
        clocks.update(more)
    outside = max(1.0, end - sum(counts[loop] * clocks[loop] for loop in counts))
    depths = {loop: depth for top in structure.top for loop, depth in _depths(top, 0)}
    loops = list(depths)
    return PlayedKernel(
        resident,
        _pass(outside, [(structure.outside, warps)], costs, resident, copies=False),
        tuple(_loop_pass(loop, clocks[loop], structure, warps, costs, resident, players) for loop in loops),
        frozenset(costs.unknown),
        bool(costs.serialised),
        depths=tuple(depths.values()),
        unfollowed=frozenset(costs.unfollowed),
    )


def _depths(loop: Loop, depth: int) -> Iterator[tuple[Loop, int]]:
    yield loop, depth
    for inner in loop.inner:
        yield from _depths(inner, depth + 1)


def _loop_pass(
    loop: Loop, clocks: float, structure: Structure, warps: int, costs: Costs, resident: int, players: Sequence[Player]
) -> Pass:
    """Return a pass through a loop; where its body branches, also the lightest one."""
    heavy = replace(_pass(clocks, [(loop.own, warps)], costs, resident), lines=loop.lines)
    if loop.light is None:
        return heavy
    skipped = 0.0
    if sum(costs.op(i).flops for i in loop.light) == sum(costs.op(i).flops for i in loop.own):
        skipped = 1 - len(loop.light) / len(loop.own)
        if skipped < LITTLE:
            return replace(heavy, skipped=skipped)
    lighter = Loop(loop.address, loop.light, loop.dispatch)
    items = _with(lighter, loop, structure.items)

    def play_light() -> float:
        with _sense():
            found, _, _ = play_parts([(items if lighter in items else (lighter,), warps)], costs, resident, players)
            return _pass(found[lighter], [(lighter.own, warps)], costs, resident).clocks

    flops = _pass(1.0, [(lighter.own, warps)], costs, resident).flops
    return replace(heavy, light=LightPass(flops, play_light, loop.entered), skipped=skipped)


def _with(lighter: Loop, loop: Loop, items: Sequence[Instruction | Loop]) -> tuple[Instruction | Loop, ...]:
    """Return the items with ``lighter`` in place of ``loop``, so that copies made ahead of the loop are played."""
    return tuple(lighter if item is loop else item for item in items)


def _pass(
    clocks: float,
    parts: Sequence[tuple[Sequence[Instruction], int]],
    costs: Costs,
    resident: int,
    *,
    copies: bool = True,
    often: Sequence[float] = (),
) -> Pass:
    """Count what (instructions, warps) parts ask of the pipes; no pass is shorter than its busiest pipe.

    ``often`` has how often each part is passed, where that is not once. Without ``copies``, bytes of asynchronous
    copies are left out: those ahead of a loop are counted with its passes.
    """
    busy = dict.fromkeys([*PIPE_NAMES.values(), "issue", "l2"], 0.0)
    flops = 0.0
    for (instructions, warps), pace in zip(parts, often or [1] * len(parts), strict=True):
        for op in map(costs.op, instructions):
            times = pace * (1 if op.leader else warps)
            busy["issue"] += times * costs.issue_clocks / PARTITIONS
            if op.flops:
                flops += op.flops * times
            if (op.shared or op.l2) and (copies or op.kind not in (Kind.COPY, Kind.BULK_COPY)):
                busy["shared"] += op.shared * times
                busy["l2"] += op.l2 * times
            if op.pipe:
                busy[PIPE_NAMES[op.pipe]] += op.busy * times / (1 if op.pipe >= Pipe.SHARED else PARTITIONS)
    clocks = max(clocks, resident * max(busy.values()))
    usage = {name: round(resident * used / clocks, 4) for name, used in busy.items()}
    made = tuple((tuple(instructions), warps) for instructions, warps in parts)
    return Pass(clocks, flops, usage, made, copies=_copies(made[0][0]) if made else 1.0)


def _copies(instructions: Sequence[Instruction]) -> float:
    """Return how often a loop's code holds what PTX states once: how far ptxas unrolled the loop.

    If no instruction is known to come from exactly one PTX instruction, the loop counts as not unrolled, which
    overestimates its cost. ptxas expands some PTX instructions, such as divisions, into several.
    """
    counts = Counter((i.base, i.ptx_line) for i in instructions if i.base in _UNROLLED and i.ptx_line is not None)
    return float(median_low(counts.values())) if counts else 1.0


def _specialised(
    structure: Structure, costs: Costs, warps: int, resident: int, players: Sequence[Player]
) -> PlayedKernel:
    """Play the loops of a warp-specialised kernel's roles side by side.

    The loops of the leading role stand for those that other roles pass at the same time. Outside the loops, roles are
    played one after the other.
    """
    roles = find_roles(structure, warps)
    parts: list[tuple[Sequence[Instruction | Loop], int]] = [(role.loops, role.warps) for role in roles]
    lead = leading(roles, costs)
    leaves = [(role, loop, structure.pace(loop)) for role in roles for loop in role.leaves]
    paces = {loop: pace.mean for _, loop, pace in leaves}
    every = turns(lead)
    # A role with fewer loops than the leading one passes them beside all of that one's, which are a level deeper if it
    # is started in a loop.
    beside = every / 2 if lead.started else every
    asked = {loop: pace.whole * (beside if turns(role) < every else 1) for role, loop, pace in leaves}
    played = {loop: asked[loop] for role, loop, _ in leaves if role.started or asked[loop] != 1}
    peeled = {loop: pace.peeled for _, loop, pace in leaves}
    clocks, _, _ = play_parts(parts, costs, resident, players, roles, played, peeled)
    nested = any(loop.inner for loop in lead.loops)
    cut = max(1.0, max(played.values(), default=1.0) / (MOST_PACE * every))  # how much more than is played
    passes = []
    for path in lead.paths():
        members = [(loop, role.warps) for role in roles if (loop := role.beside(path)) is not None]
        # Roles that peel passes off share the time differently between an outer loop and the loops in it.
        alike = [lead] if nested else [role for role in roles if role.paths().keys() == lead.paths().keys()]
        slowest = cut * max(clocks[loop] * paces.get(loop, 1) for loop in (role.paths()[path] for role in alike))
        often = [paces.get(loop, 1) for loop, _ in members]
        together = _pass(slowest, [(loop.own, size) for loop, size in members], costs, resident, often=often)
        passes.append(replace(together, lines=lead.paths()[path].lines))
    most = max(role.warps for role in roles)
    straight = [structure.outside, *(top.own for top in structure.top if top.dispatch)]
    end = sum(play_parts([(part, most)], costs, resident, players)[1] for part in straight)
    return PlayedKernel(
        resident,
        _pass(end, [(part, most) for part in straight], costs, resident),
        tuple(passes),
        frozenset(costs.unknown),
        bool(costs.serialised),
        not tied(parts, costs),
        tuple(len(path) - 1 for path in lead.paths()),
        frozenset(costs.unfollowed),
    )
