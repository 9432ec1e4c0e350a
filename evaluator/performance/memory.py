"""What a launch asks of L2 and HBM, from the addresses of a sample of its programs, and what that makes of a load.

Programs that run together often ask for the same lines at about the same time. L2 answers part of these requests at
once. What no program asked for lately comes from HBM, later than what L2 holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from avo.evaluator.binary import Binary
from avo.evaluator.performance.constants import Constants
from avo.evaluator.performance.kernel import Missed, read
from avo.evaluator.target import Target
from avo.evaluator.work import FEW_LINES, LINE_BYTES, SAMPLED_PROGRAMS, SECTOR_BYTES, Access, LaunchWork

_RELEVANT = 0.1
"""Share of a loop's bytes from which an access counts for the latency of the loop's loads."""
_NARROW = 8
"""Most bytes of a lane for a load to count as one of a table: tiles are loaded in wider pieces, and are no table."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How a time is taken: what the caches hold before, and what starts a launch."""

    cold: bool = False
    """Whether L2 is overwritten before each launch, as by ``triton.testing.do_bench``."""
    graph: bool = False
    """Whether launches are replayed from a CUDA graph."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a launch asks of the memory system."""

    asked: float
    """Bytes that all programs ask for."""
    l2: float
    """Bytes that L2 must deliver or take, after merging."""
    hbm: float
    """Bytes that must pass through HBM, short pieces counted as what they cost."""
    latency: float
    """Clocks from a load to its data, in the loop that loads most."""
    brought: float = 0.0
    """Bytes of lines that come to L2, as it did not hold them."""
    short: float = 0.0
    """Of ``hbm``, what is charged for pieces that are shorter than a sector."""


def traffic(work: LaunchWork, target: Target, timing: Timing, table: Constants, brought: float = 0.0) -> Traffic:
    """Return what a launch asks of the memory system.

    If L2 was overwritten before, earlier launches have ``brought`` bytes there since, in the place of others: no more
    than these can be what this one looks for, and the others still must go.

    Where its accesses were not looked at, no two programs share what they ask for, and of HBM nothing is known. Where a
    sample shows none, they come from HBM.
    """
    if not work.accesses:
        asked = work.total("load_bytes") + work.total("store_bytes")
        if work.buffer_bytes:
            brought = min(asked, sum(work.buffer_bytes))
            return Traffic(asked, asked, asked, table.hbm_latency + timing.cold * table.flushed_latency, brought)
        return Traffic(asked, asked, 0.0, table.global_latency)
    sample = min(work.programs, SAMPLED_PROGRAMS)
    groups = work.programs / sample
    each = [_asked(access) * _times(work, access) for access in work.accesses]
    once = [_distinct(work, access, sample) for access in work.accesses]
    together = sum(once)
    capacity = target.l2_bytes * table.l2_share
    lost = _ramp(together / capacity)
    hbm = short = fetched = written = 0.0
    missing = {}
    buffers = dict.fromkeys(access.buffer for access in work.accesses)
    footprints = {
        buffer: min(
            work.buffer_bytes[buffer],
            groups * sum(own for own, access in zip(once, work.accesses, strict=True) if access.buffer == buffer),
        )
        for buffer in buffers
    }
    needed = sum(footprints.values())
    kept = (1 - _ramp(needed / capacity)) * (min(1.0, brought / max(1.0, needed)) if timing.cold else 1.0)
    for buffer in buffers:
        here = [place for place, access in enumerate(work.accesses) if access.buffer == buffer]
        touched = sum(each[place] * _share(work.accesses[place]) for place in here)
        first = footprints[buffer]
        through = first * (1 - kept) + max(0.0, touched - first) * lost
        missing[buffer] = min(1.0, through / touched) if touched else 0.0
        asked = max(1.0, sum(each[i] for i in here))
        run = sum(each[i] * work.accesses[i].run_bytes for i in here) / asked
        spread = sum(each[i] * work.accesses[i].spread for i in here) / asked
        fetched += through
        charged = through * max(1.0, spread) * _piece(run, table)
        hbm += charged
        short += charged * (run < SECTOR_BYTES)
        if all(work.accesses[place].writes for place in here):
            written += through
    merged = sum(
        bytes_ * (1 - table.l2_merging * (1 - _share(access)))
        for bytes_, access in zip(each, work.accesses, strict=True)
    )
    old = max(0.0, target.l2_bytes - brought) if timing.cold else 0.0
    dirty = min(1.0, old / max(1.0, fetched))  # lines go, whatever their bytes cost
    hbm += dirty * (table.flushed_dirty * fetched - written)  # what was there must go first; what is written stays
    far = table.hbm_latency + dirty * table.flushed_latency
    latency = table.l2_hit_latency + _missing(work, each, missing) * (far - table.l2_hit_latency)
    return Traffic(sum(each), merged, hbm, latency, fetched, short)


def l1_missed(work: LaunchWork) -> Missed:
    """Return how often loads miss L1, for those that do not always.

    Those are the loads of an operation that asks for the same few lines in its next passes, as of a table of pages or
    for scales. After as many loads as there are lines to fetch, the others of the operation find them there.
    """
    return _l1_missed(work.binary, work.accesses)


@lru_cache(maxsize=64)
def _l1_missed(binary: Binary, accesses: tuple[Access, ...]) -> Missed:
    few: dict[int, tuple[float, float]] = {}
    for access in accesses:  # a function that is called twice has several on a line
        if not access.writes and access.loop is not None:
            share, lines = few.get(access.line, (0.0, 0.0))
            few[access.line] = max(share, access.fresh_sectors), max(lines, access.program_lines)
    for access in accesses:
        if access.program_lines > FEW_LINES or (access.loop is None and not access.writes):
            few.pop(access.line, None)
    if not few:
        return ()
    loads: dict[int, list[int]] = {}
    for i in read(binary).code.instructions:
        if i.base == "LDG" and i.lane_bytes <= _NARROW and i.line in few:
            loads.setdefault(i.line, []).append(i.index)
    return tuple(
        (index, few[line][0] if place < max(1, round(few[line][1])) else 0.0)
        for line, found in loads.items()
        for place, index in enumerate(found)
    )


def _asked(access: Access) -> float:
    """Return the bytes that one program asks of L2 each time: each line once, as L1 has it for the other threads."""
    return min(access.program_bytes, LINE_BYTES * access.program_lines)


def _share(access: Access) -> float:
    """Return the share of these bytes that is left when programs ask for the same at once."""
    return min(1.0, access.distinct * access.program_bytes / _asked(access))


def _times(work: LaunchWork, access: Access) -> float:
    """Return how often all programs together perform an access."""
    return float(work.loops[access.loop].trips.sum()) * access.often if access.loop is not None else work.programs


def _distinct(work: LaunchWork, access: Access, sample: int) -> float:
    """Return the distinct bytes that a group of ``sample`` programs asks for by one access, over all its passes."""
    passes = _times(work, access) / work.programs
    fresh = min(passes, 1.0) + max(0.0, passes - 1) * access.fresh
    return sample * access.program_bytes * access.distinct * fresh


def _ramp(filled: float) -> float:
    """Return the share that is lost of data which fills a cache to this part of its size."""
    return min(1.0, max(0.0, filled - 1))


def _piece(run_bytes: float, table: Constants) -> float:
    """Return the cost of a contiguous piece's bytes: HBM reads short ones at more than their length."""
    if run_bytes >= LINE_BYTES:
        return 1.0
    if run_bytes >= 2 * SECTOR_BYTES:
        return table.half_line_cost
    return table.half_line_cost * 2 * SECTOR_BYTES / max(run_bytes, 1.0) / (2 if run_bytes >= SECTOR_BYTES else 1)


def _missing(work: LaunchWork, asked: Sequence[float], missing: dict[int, float]) -> float:
    loads = [place for place, access in enumerate(work.accesses) if not access.writes]
    by_loop: dict[int | None, float] = {}
    for place in loads:
        loop = work.accesses[place].loop
        by_loop[loop] = by_loop.get(loop, 0.0) + asked[place]
    if not by_loop:
        return 0.0
    loop = max(by_loop, key=lambda loop: by_loop[loop])
    inside = [place for place in loads if work.accesses[place].loop == loop]
    relevant = [place for place in inside if asked[place] >= _RELEVANT * by_loop[loop]]  # none of very many
    return max(missing[work.accesses[place].buffer] for place in relevant or inside)
