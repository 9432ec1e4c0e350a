"""Bank conflicts: addresses in shared memory, followed from the thread's number through a kernel's integer code.

Blocks are evaluated in the order of a first pass: what a loop carries has the value that it enters with. An address
that is known gives its bank conflicts exactly; a constant that is the same for all lanes, such as the stage of a
pipeline, does not change them.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from avo.evaluator.performance.integers import LANES, MASK, Known, State, execute, meet, read
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.performance.structure import Graph

SHARED_ACCESS = frozenset({"LDS", "STS", "LDSM", "STSM"})
"""Instructions whose addresses are followed."""
_BANKS = 32
_WORD = 4
"""Bytes of one bank (CUDA C++ Programming Guide 12, "Shared Memory" of compute capability 5.x and later)."""
WAVEFRONT = 128
"""Bytes of a warp's access that are served at a time: a half or a quarter of its lanes for 64 or 128 bits each, and the
eight rows of a matrix for LDSM and STSM."""
_SCALED = re.compile(r"^(.*)\.X(4|8|16)$")


def wavefronts(graph: Graph, threads: int) -> Mapping[int, float]:
    """Return the clocks that each access to shared memory takes a warp, by index, for accesses with known addresses.

    Warps may differ, and some may not get there: the figure is the median over all warps.
    """
    found: dict[int, float] = {}
    leaving: dict[int, State] = {}
    order = graph.order(graph.code.entry)
    before: dict[int, list[int]] = {block: [] for block in order}
    for block in order:
        entering = [leaving[other] for other in before[block]]
        state = meet(entering) if entering else {}
        for i in graph.code.instructions[block : graph.stop[block]]:
            if i.base in SHARED_ACCESS:
                clocks = _access(i, state, threads)
                if clocks is not None:
                    found[i.index] = clocks
            execute(i, state, threads)
        leaving[block] = state
        for successor in graph.successors[block]:
            before[successor].append(block)
    return found


def _access(i: Instruction, state: State, threads: int) -> float | None:
    """Return the median over the warps of the clocks that the access takes, or None when its address is not known."""
    place = i.operands[i.operands.index("[") + 1 : i.operands.index("]")] if "[" in i.operands else ""
    address: Known = 0
    for part in place.split("+"):
        scaled = _SCALED.match(part)
        value = read(scaled[1] if scaled else part, state)
        if value is None:
            return None
        address = address + value * (int(scaled[2]) if scaled else 1)
    guard = read(i.predicate, state) if i.predicate else 1
    active = np.broadcast_to(np.asarray(1 if guard is None else guard) != 0, (threads,)).reshape(-1, LANES)
    lanes = np.broadcast_to(np.asarray(address & MASK), (threads,)).reshape(-1, LANES)
    lanes = lanes - lanes[:, :1] // WAVEFRONT * WAVEFRONT
    width = i.lane_bytes
    matrices = i.base in {"LDSM", "STSM"}
    clocks = [
        _warp_clocks(tuple(warp[on].tolist()), tuple(np.flatnonzero(on).tolist()), width, matrices)
        for warp, on in zip(lanes, active, strict=True)
        if on.any()
    ]
    return float(np.median(clocks)) if clocks else 1.0


@lru_cache(maxsize=4096)
def _warp_clocks(addresses: Sequence[int], lanes: Sequence[int], width: int, matrices: bool) -> int:
    """Return the clocks of one warp's access, ``width`` bytes a lane, by those of its ``lanes`` that take part.

    Each phase takes as many clocks as the busiest bank has different words; the phases add up. A matrix of LDSM or
    STSM takes the addresses of its rows, which have four words each, from eight lanes.
    """
    together = 8 if matrices else min(LANES, WAVEFRONT // max(width, _WORD))
    words = 4 if matrices else max(1, width // _WORD)
    phases: dict[int, dict[int, set[int]]] = {}
    for address, lane in zip(addresses, lanes, strict=True):
        if matrices and lane >= 8 * width // _WORD:
            continue
        banks = phases.setdefault(lane // together, {})
        for word in range(address // _WORD, address // _WORD + words):
            banks.setdefault(word % _BANKS, set()).add(word)
    return sum(max(map(len, banks.values())) for banks in phases.values())
