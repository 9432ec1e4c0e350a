"""Scripts: what programs of a launch read of each other's results, where that decides what they do next.

Which tile a program draws may depend on all programs, so that a few of them cannot run by themselves. But the deciding
reads are cheap to compute: all programs run a slice of the kernel that computes little else, and the script records
what they read. Any program can then run alone and take those reads from the script.
"""

from collections import defaultdict

import torch

Tensor = torch.Tensor


class Script:
    """The results of deciding reads, by slot and program, in each program's order."""

    def __init__(self, slots: frozenset[int]) -> None:
        self.slots = slots
        """Slots of the results that are recorded."""
        self._lines: dict[int, list[tuple[Tensor, Tensor]]] = defaultdict(list)

    def write(self, slot: int, programs: Tensor, values: Tensor) -> None:
        """Record that programs [n], given by linear ids, read ``values`` [n, ...]."""
        self._lines[slot].append((programs, values))

    def lines(self, slot: int) -> tuple[Tensor, Tensor]:
        """Return programs [n], ascending, and the value of each read [n, ...]; a program's reads are in order."""
        if slot not in self._lines:
            return torch.zeros(0, dtype=torch.int64), torch.zeros(0)
        programs, values = (torch.cat(column) for column in zip(*self._lines[slot], strict=True))
        order = torch.argsort(programs, stable=True)
        return programs[order], values[order]


class Prompter:
    """Gives programs the reads recorded in a script. Each run needs a new one."""

    def __init__(self, script: Script, *, acts: bool) -> None:
        self.slots = script.slots
        self.acts = acts
        """Whether atomic operations still change memory, although their results come from the script."""
        self._script = script
        self._parts: dict[int, tuple[Tensor, Tensor, dict[int, int]]] = {}

    def read(self, slot: int, programs: Tensor) -> Tensor | None:
        """Return what programs [n] read next [n, ...]; None if the script ends before."""
        if slot not in self._parts:
            self._parts[slot] = (*self._script.lines(slot), {})
        owners, values, done = self._parts[slot]
        wanted = programs.tolist()
        places = torch.searchsorted(owners, programs) + torch.tensor([done.get(each, 0) for each in wanted])
        if bool((places >= owners.numel()).any()) or not torch.equal(owners[places], programs):
            return None
        for each in wanted:
            done[each] = done.get(each, 0) + 1
        return values[places]
