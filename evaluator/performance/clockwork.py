"""The loop of a play, compiled by numba: instruction streams go through an SM's schedulers, scoreboards and pipes.

All that is compiled, and every constant in it, is in this file: numba keeps the machine code until the file changes, or
a type in ``records``. Nothing checks indices there: what comes from a listing is bounded before. And nothing is
allocated there, so that numba need not count references, which takes several times as long as the play.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

from avo.evaluator.performance.records import Records, Sm

_Function = TypeVar("_Function", bound=Callable[..., Any])
OPTIONS: dict[str, Any] = {"nogil": True, "_nrt": False}
compiled: Callable[[_Function], _Function] = njit(**OPTIONS)

_AHEAD = 2
"""Passes by which a role may lead another through unknown mbarriers: two buffers, as Triton makes (estimate)."""
_SPREAD = 0.25
"""Share by which latencies vary, up and down, where they are jittered."""
_UNEVEN = 0.45
"""Share by which stall counts of one of several teams vary from pass to pass, where starts are jittered (why so much:
docs/performance-model.md). As none can be shorter than a clock, those of one clock take 1.1125 in the mean."""
_FIXED_LATENCY = 16.0
"""Latencies up to this many clocks are those of arithmetic, which do not vary."""
_LATEST = 1e12
"""More clocks than any play takes."""

# The numbers of ``pipes.py``.
_MARK, _CTA_BARRIER, _WGMMA, _WGMMA_WAIT, _COPY, _COPY_COMMIT, _COUNT_WAIT, _BULK_COPY = -1, *range(1, 8)
_TENSOR_MMA, _TENSOR_COMMIT, _WAIT_COPY, _WAIT_TENSOR, _WAIT_ROLE, _ARRIVE, _INIT = range(8, 15)
_SHARED, _SCOREBOARDS = 6, 6
_SLOTS, _PRODUCTS = 0, _SCOREBOARDS  # places of issue slots among pipes, and of products among groups of copies
# What a warp waits for: nothing more, its turn, a phase, a role behind it, all roles, its team (plus the team's row).
_NOTHING, _TURN, _PHASE, _BEHIND, _ROLES, _TEAM = range(6)


@compiled
def multiply(chip: Any, start: float, end: float, clocks: float) -> float:
    """Read the operands of a product that is done from ``start`` to ``end``; return when it is. Where other accesses to
    shared memory wait too, they get a clock for each clock of operands."""
    first = max(chip.operands_end, start)
    chip.owed = max(0.0, chip.owed - (first - chip.operands_end))
    last = first + clocks
    end = max(end, last + min(chip.owed, clocks))
    beside = min(chip.owed, end - last)
    chip.owed -= beside
    chip.operands_end = last + beside
    return float(end)


@compiled
def _jitter(share: float, sm: Sm) -> float:
    """Draw a factor that is up to ``share`` above or below 1."""
    chip = sm.chip[0]
    chip.drawn += 1
    return (1 - share) + ((1 + share) - (1 - share)) * sm.chance[chip.drawn - 1]  # type: ignore[no-any-return]


@compiled
def _queue(w: int, earliest: float, issued: float, sm: Sm) -> None:
    """Queue the warp, unless it is done: its next instruction waits for scoreboard barriers to be clear."""
    warp, chip = sm.warps[w], sm.chip[0]
    if warp.pc == warp.end:
        warp.waits_for, chip.end = _NOTHING, max(chip.end, earliest - sm.ctas[warp.cta].begin)
        return
    op = sm.ops[sm.stream[warp.pc]]
    due = earliest
    for barrier in range(_SCOREBOARDS):
        if op.waits >> barrier & 1:
            earliest = max(earliest, warp.barriers[barrier])
    if op.kind != _MARK:
        issue = sm.following[w]
        if issue.place != warp.pc:
            issue.place, issue.due, issue.queued = warp.pc, due, 0.0
        issue.ready = earliest
    warp.waits_for = _TURN
    warp.late = earliest > issued + 1
    warp.time, warp.first = earliest, 0.0


@compiled
def _wake(what: int, cta: int, earliest: float, sm: Sm) -> None:
    """Queue the warps of a CTA that wait for that."""
    for w in range(len(sm.warps)):
        if sm.warps[w].waits_for == what and sm.warps[w].cta == cta:
            _queue(w, earliest, -1.0, sm)


@compiled
def _first(warps: Records) -> int:
    """Return the warp whose turn is next, or -1: the earliest. Of equally early ones it is one that has just issued,
    then the first that asked for its turn, then the youngest."""
    first = -1
    for w in range(len(warps)):
        warp, best = warps[w], warps[first]
        if warp.waits_for != _TURN or (first >= 0 and warp.time > best.time):
            continue
        sooner = first < 0 or warp.time < best.time or warp.late < best.late
        if sooner or (warp.late == best.late and warp.first <= best.first):
            first = w
    return first


@compiled
def _complete(cta: int, mbarrier: int, at: float, sm: Sm) -> None:
    """Complete a phase."""
    phases, state = sm.phases[cta, mbarrier], sm.mbarriers[cta, mbarrier]
    if state.done == len(phases):
        raise ValueError("too many phases of mbarriers")
    phases[state.done] = at
    state.done += 1


@compiled
def _blocked(cta: int, after: int, sm: Sm) -> int:
    """Return the warp of a CTA that waits for a phase for longest, of those that began later than ``after``, or -1."""
    found = -1
    for w in range(len(sm.warps)):
        warp, longest = sm.warps[w], sm.warps[found]
        later = warp.waits_for == _PHASE and warp.cta == cta and warp.since > after
        if later and (found < 0 or warp.since < longest.since):
            found = w
    return found


@compiled
def _free_slots(cta: int, sm: Sm) -> bool:
    """Complete the phases that the first of a CTA's blocked roles waits for: as many as the ring has slots, free before
    anyone used them, or of copies that are not played. Return whether there is one."""
    first = w = _blocked(cta, -1, sm)
    least = 2**63 - 1
    while w >= 0:
        warp = sm.warps[w]
        mbarrier = sm.mbarriers[cta, sm.ops[sm.stream[warp.pc]].mbarrier]
        warp.precedence = 4 * mbarrier.freed + sm.teams[warp.team].rank
        least = min(least, warp.precedence)
        w = _blocked(cta, warp.since, sm)
    w = first
    while w >= 0:
        warp = sm.warps[w]
        op = sm.ops[sm.stream[warp.pc]]
        if warp.precedence == least and sm.waited[w, op.mbarrier] >= sm.mbarriers[cta, op.mbarrier].done:
            sm.mbarriers[cta, op.mbarrier].freed = 1
            for _ in range(max(1, op.count)):
                _complete(cta, op.mbarrier, sm.chip[0].now, sm)
        w = _blocked(cta, warp.since, sm)
    _wake(_PHASE, cta, sm.chip[0].now, sm)
    return first >= 0


@compiled
def _release(sm: Sm) -> bool:
    """Let those go on who wait for each other; return whether there are any."""
    released = False
    for cta in range(len(sm.ctas)):
        released |= _free_slots(cta, sm)
    if released:
        return True
    for w in range(len(sm.warps)):
        if sm.warps[w].waits_for > _TURN:  # a warp that still waits for others waits for no one
            released = True
            _queue(w, sm.chip[0].now, -1.0, sm)
    return released


@compiled
def _pass_mark(w: int, mark: Any, sm: Sm) -> bool:
    """Pass a mark; return whether the warp waits there for roles that are behind it."""
    warp, now = sm.warps[w], sm.chip[0].now
    sm.sums[warp.team, mark.name] += now
    sm.counts[warp.team, mark.name] += 1
    if len(sm.chance) and len(sm.teams) > 1 and warp.leader:
        sm.teams[warp.team].stretch = _jitter(_UNEVEN, sm)
    for pair in range(mark.first_copy, mark.first_copy + mark.copies):
        sm.waited[w, sm.copies[pair].mbarrier] = sm.copies[pair].phases
    if not mark.turn:
        return False
    warp.pc += 1
    warp.waits_for = _BEHIND
    slowest = warp.passes = mark.turn
    for other in sm.warps:
        if other.cta == warp.cta:
            slowest = min(slowest, other.passes)
    for w in range(len(sm.warps)):
        other = sm.warps[w]
        if other.waits_for == _BEHIND and other.cta == warp.cta and other.passes - slowest <= _AHEAD:
            _queue(w, now, -1.0, sm)
    return True


@compiled
def _free(pipe: int, partition: int, pipes: Records) -> float:
    """Return when a pipe is free, for warps on a sub-partition or all of them."""
    asked = pipes[pipe]
    return asked.free if partition < 0 or pipe >= _SHARED else max(asked.apart[partition], asked.taken)  # type: ignore[no-any-return]


@compiled
def _take(pipe: int, partition: int, until: float, pipes: Records) -> None:
    """Occupy a pipe, for warps on a sub-partition or all of them."""
    taken = pipes[pipe]
    if pipe >= _SHARED:
        taken.free = until
    elif partition < 0:
        taken.taken = taken.free = until
    else:
        taken.apart[partition] = until
        taken.free = max(taken.free, until)


@compiled
def _must_wait(w: int, op: Any, sm: Sm) -> bool:
    """Return whether the warp must wait: for a phase that a copy or a role completes, or for its scheduler or pipe."""
    warp, chip = sm.warps[w], sm.chip[0]
    if op.kind in (_WAIT_COPY, _WAIT_ROLE) and sm.waited[w, op.mbarrier] >= sm.mbarriers[warp.cta, op.mbarrier].done:
        warp.waits_for, warp.since = _PHASE, chip.moment
        chip.moment += 1
        return True
    slot = _free(_SLOTS, warp.partition, sm.pipes)
    accepts = _free(op.pipe, warp.partition, sm.pipes) - op.queue
    free = max(slot, accepts) if op.pipe else slot
    if free <= chip.now:
        warp.asked = 0.0
        return False
    if op.pipe and accepts >= slot:
        sm.following[w].queued += free - chip.now
    if op.in_turn and warp.asked == 0.0:
        warp.asked = chip.now
    warp.time, warp.late, warp.first = free, 1, warp.asked - _LATEST if op.in_turn else 0.0
    return True


@compiled
def _occupy(op: Any, partition: int, width: int, sm: Sm) -> tuple[float, float]:
    """Occupy a scheduler and a pipe for an instruction of ``width`` warps; return when the pipe begins and is done."""
    chip = sm.chip[0]
    start = taken = chip.now
    if op.pipe:
        start = max(start, _free(op.pipe, partition, sm.pipes))
        taken = start + op.busy * (width if op.pipe >= _SHARED else 1)
        if op.kind in (_WGMMA, _TENSOR_MMA):
            taken = multiply(chip, start, taken, op.shared * width)
        elif op.pipe == _SHARED:
            chip.owed += taken - start
        _take(op.pipe, partition, taken, sm.pipes)
    if op.shared and op.kind in (_COPY, _BULK_COPY):
        chip.owed += op.shared * width
        memory = sm.pipes[_SHARED]
        memory.free = max(memory.free, start) + op.shared * width
    _take(_SLOTS, partition, chip.now + chip.issue_clocks, sm.pipes)
    return start, taken


@compiled
def _of_groups(w: int, op: Any, multiplied: float, sm: Sm) -> float:
    """Play what products and copies in groups do; return until when the warp is held, or -1."""
    warp, products = sm.warps[w], op.kind in (_WGMMA, _WGMMA_WAIT)
    place = _PRODUCTS if products else op.write_barrier % _SCOREBOARDS
    groups, ends = sm.groups[w, place], sm.group_ends[w, place]
    if op.kind == _COPY:
        warp.copied = max(warp.copied, sm.following[w].done)
    elif op.kind == _COPY_COMMIT or (op.kind == _WGMMA and op.count):
        ends[groups.end] = multiplied if products else warp.copied
        groups.end += 1
    elif op.kind in (_WGMMA_WAIT, _COUNT_WAIT):
        if groups.end - groups.first > op.count:
            groups.first = groups.end - op.count
            return ends[groups.first - 1]  # type: ignore[no-any-return]
        if not products and not op.count:
            return warp.barriers[place]  # type: ignore[no-any-return]
    return -1.0


@compiled
def _arrive(w: int, op: Any, sm: Sm) -> None:
    """Arrive at an mbarrier. Where that completes a phase, those who wait for one look again."""
    warp, when = sm.warps[w], sm.chip[0].now
    mbarrier, bytes_of = sm.mbarriers[warp.cta, op.mbarrier], op.kind == _BULK_COPY
    wanted = mbarrier.wanted
    if bytes_of:
        when, wanted = sm.following[w].done, max(1, op.count)
    elif op.kind == _TENSOR_COMMIT:
        cta = sm.ctas[warp.cta]
        cta.tensor_committed = cta.tensor_done
        when = max(when, cta.tensor_done)
    elif not wanted and not op.leader:
        wanted = sm.teams[warp.team].warps
    mbarrier.arrived += 1
    if mbarrier.arrived == 1 or when > mbarrier.last_arrived:
        mbarrier.last_arrived = when
    complete = mbarrier.arrived >= wanted
    if not bytes_of and sm.arrived[w, op.mbarrier] >= 0:
        sm.arrived[w, op.mbarrier] += 1
        complete = True
        for other in range(len(sm.warps)):
            behind = 0 <= sm.arrived[other, op.mbarrier] <= mbarrier.together
            complete &= sm.warps[other].cta != warp.cta or not behind
        mbarrier.together += complete
    if complete:
        _complete(warp.cta, op.mbarrier, mbarrier.last_arrived, sm)
        mbarrier.arrived = 0
        _wake(_PHASE, warp.cta, sm.chip[0].now + 1, sm)


@compiled
def _of_mbarriers(w: int, op: Any, multiplied: float, sm: Sm) -> None:
    """Play what arrives or waits at an mbarrier, and products on tensor memory, which are waited for at one."""
    issue, cta = sm.following[w], sm.warps[w].cta
    mbarrier = sm.mbarriers[cta, op.mbarrier]
    if op.kind == _TENSOR_MMA:
        sm.ctas[cta].tensor_done = multiplied
    elif op.kind == _WAIT_TENSOR:
        issue.done = max(issue.done, sm.ctas[cta].tensor_committed)
    elif op.kind in (_WAIT_COPY, _WAIT_ROLE):
        phase = sm.phases[cta, op.mbarrier, sm.waited[w, op.mbarrier]]
        issue.done = max(issue.done, phase + op.latency)
        sm.waited[w, op.mbarrier] += 1
    elif op.kind != _INIT:
        _arrive(w, op, sm)
    elif len(sm.teams) > len(sm.ctas):  # roles; a stream alone counts what it copied over all phases
        mbarrier.done = mbarrier.arrived = mbarrier.together = mbarrier.freed = 0
        for other in range(len(sm.warps)):
            if sm.warps[other].cta == cta:
                sm.waited[other, op.mbarrier] = 0
                sm.arrived[other, op.mbarrier] = min(0, sm.arrived[other, op.mbarrier])


@compiled
def _meet(w: int, op: Any, sm: Sm) -> None:
    """Wait at a barrier of the CTA, or of the team; where the warp is the last, all go on."""
    warp, joined = sm.warps[w], 0
    warp.waits_for = _ROLES if op.count else _TEAM + warp.team
    for other in sm.warps:
        joined += other.waits_for == warp.waits_for and other.cta == warp.cta
    if joined == (sm.ctas[warp.cta].warps if op.count else sm.teams[warp.team].warps):
        _wake(warp.waits_for, warp.cta, sm.chip[0].now + op.latency, sm)


@compiled
def _issue(w: int, op: Any, sm: Sm) -> None:
    """Issue an instruction, and queue the warp for the next one."""
    warp, issue, chip = sm.warps[w], sm.following[w], sm.chip[0]
    now, latency, width = chip.now, op.latency, 1 if op.leader else warp.width
    start, taken = _occupy(op, warp.partition, width, sm)
    if len(sm.chance) and latency > _FIXED_LATENCY:
        latency *= _jitter(_SPREAD, sm)
    issue.issued, issue.start, issue.read = now, start, start + op.busy + op.read_latency
    issue.done = start + op.busy + latency
    if op.l2:
        chip.l2 = max(chip.l2, start) + op.l2 * width
        issue.done = max(issue.done, chip.l2 + latency)
    until = now + op.stall * sm.teams[warp.team].stretch
    if op.kind >= _BULK_COPY:
        _of_mbarriers(w, op, taken + latency, sm)
    elif op.kind:
        until = max(until, _of_groups(w, op, taken + latency, sm))
    if len(sm.trace):
        sm.trace[chip.issues] = issue
        chip.issues += 1
    warp.pc += 1
    if op.kind == _CTA_BARRIER:
        _meet(w, op, sm)
        return
    if op.write_barrier < _SCOREBOARDS and op.kind != _COPY_COMMIT and op.kind != _COUNT_WAIT:
        warp.barriers[op.write_barrier] = max(warp.barriers[op.write_barrier], issue.done)
    if op.read_barrier < _SCOREBOARDS:
        warp.barriers[op.read_barrier] = max(warp.barriers[op.read_barrier], issue.read)
    _queue(w, until, now, sm)
    chip.now = until


def play(sm: Sm) -> None:
    """Play all warps' streams to their end."""
    for w in range(len(sm.warps)):
        warp = sm.warps[w]
        sm.ctas[warp.cta].warps += 1
        sm.following[w].warp, sm.following[w].place, warp.pc, warp.late = w, warp.begin, warp.begin, 1
        warp.waits_for = _TURN if warp.begin < warp.end else _NOTHING
    while True:
        w = _first(sm.warps)
        if w < 0:
            if not _release(sm):
                return
            continue
        warp = sm.warps[w]
        op = sm.ops[sm.stream[warp.pc]]
        issued = -1.0 if warp.late else warp.time - 1
        sm.chip[0].now = warp.time
        if op.kind == _MARK:
            if _pass_mark(w, sm.marks[op.count], sm):
                continue
        elif warp.leader or not op.leader:
            if not _must_wait(w, op, sm):
                _issue(w, op, sm)
            continue
        warp.pc += 1
        _queue(w, warp.time, issued, sm)
