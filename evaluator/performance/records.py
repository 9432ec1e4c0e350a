"""The records of which the arrays of a play are made: what the compiled loop reads and changes, see ``clockwork``."""

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from avo.evaluator.performance.pipes import PARTITIONS

Integers: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Records: TypeAlias = npt.NDArray[np.void]
EVERY = -1
"""The sub-partition of warps that are on all of them."""


def _fields(whole: str, clocks: str = "", *several: tuple[str, type, tuple[int, ...]]) -> np.dtype[np.void]:
    """Return the type of a record of whole numbers, of times in clocks, and of arrays."""
    numbers = [*((name, np.int64) for name in whole.split()), *((name, np.float64) for name in clocks.split())]
    return np.dtype([*numbers, *several], align=True)


OP = _fields(
    "kind pipe waits write_barrier read_barrier count leader in_turn mbarrier",
    "busy latency shared l2 stall queue read_latency",
)
"""An instruction, see ``pipes.Op``; or a mark, whose ``count`` is its row among the marks."""
MARK = _fields("name turn first_copy copies")
"""A place in a stream whose time is recorded, see ``simulate.Mark``."""
COPIES = _fields("mbarrier phases")
"""Phases of bulk copies that a mark knows to be issued."""
WARP = _fields(
    "team cta begin end width partition leader place pc waits_for late passes since precedence",
    "time first asked copied",
    ("barriers", np.float64, (8,)),
)
"""A warp, or four that are played as one: its part of the stream and where it is there; whether its turn comes later
than at once; when it may go on, its place among those that take turns, when it asked, and when its copies end."""
TEAM = _fields("warps rank", "stretch")
"""Warps of a CTA that run the same stream: how many are played apart; their place among those who all wait, first of
all 0; and how much longer than theirs its stall counts are."""
CTA = _fields("warps", "begin tensor_done tensor_committed")
"""A CTA: when it began, and when its products on tensor memory are done."""
MBARRIER = _fields("wanted done arrived together freed", "last_arrived")
"""An mbarrier of a CTA: how many arrivals complete a phase, 0 where all who arrive there must; how many phases are
complete, what has arrived for the next, and how many phases all have arrived for."""
GROUPS = _fields("first end")
"""The groups of a warp's products or copies that are under way."""
PIPE = _fields("", "free taken", ("apart", np.float64, (PARTITIONS,)))
"""When a pipe is free: the last of the sub-partitions' four, when four warps together had all of them, and each by its
single warps. One of the SM's has only the first."""
CHIP = _fields("drawn issues moment", "now end l2 issue_clocks operands_end owed")
"""Numbers drawn, issues traced and waits for phases begun so far; the clock, the longest time of a CTA, when L2 has
delivered all that the SM asked for, and the clocks of an issue slot. ``operands_end`` is the time until which shared
memory is taken by operands and what was served beside them; ``owed`` the clocks of other accesses still to be served
then."""
ISSUE = _fields("warp place", "due ready queued issued start read done")
"""An instruction that is issued, see ``simulate.Issue``. ``place`` is the position in the stream of all."""


class Sm(NamedTuple):
    """What a play reads and changes; an array of records has the type of its name.

    numba does not notice when two fields of one type are exchanged: whoever does that must change ``clockwork`` too.
    """

    stream: Integers  # rows of ``ops`` of all streams, one after the other
    ops: Records
    marks: Records
    copies: Records
    warps: Records
    teams: Records
    ctas: Records
    mbarriers: Records  # [CTAs, mbarriers]
    phases: Floats  # [CTAs, mbarriers, phases]: when they were complete
    waited: Integers  # [warps, mbarriers]: how many phases a warp has waited for
    arrived: Integers  # the same: how often a warp has arrived where all must, else -1
    groups: Records  # [warps, scoreboard barriers and one for products]
    group_ends: Floats  # the same for each group: when it is done
    pipes: Records
    chip: Records  # one
    sums: Floats  # [teams, names of marks]: the sum of the times at which they were passed
    counts: Integers  # the same: how often
    chance: Floats  # as many numbers from 0 to 1 as may be drawn, or none
    following: Records  # for each warp, the issue that follows
    trace: Records  # a row for each issue, or none
