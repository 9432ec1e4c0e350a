"""Scripts: what the programs of a launch read of each other's doing, as far as it decides what they do next.

Which tile a program draws depends on all programs, so that a few of them cannot be run by themselves. But what decides
is cheap to compute: all programs run a slice of the kernel that computes little else, and what they read is written
down. Any of them can then be run alone and be told what it would have read.
"""

from collections import defaultdict

import torch

Tensor = torch.Tensor


class Script:
    """What the reads of some operations gave, by slot and program, in the order of each program."""

    def __init__(self, slots: frozenset[int]) -> None:
        self.slots = slots
        """Results of the operations that are written down."""
        self._lines: dict[int, list[tuple[Tensor, Tensor]]] = defaultdict(list)

    def write(self, slot: int, programs: Tensor, values: Tensor) -> None:
        """Note that programs [n], by linear ids, read ``values`` [n, ...]."""
        self._lines[slot].append((programs, values))

    def lines(self, slot: int) -> tuple[Tensor, Tensor]:
        """Return programs [n], ascending, and what each read [n, ...]; a program's reads are in order."""
        if slot not in self._lines:
            return torch.zeros(0, dtype=torch.int64), torch.zeros(0)
        programs, values = (torch.cat(column) for column in zip(*self._lines[slot], strict=True))
        order = torch.argsort(programs, stable=True)
        return programs[order], values[order]


class Prompter:
    """Tells programs what a script says that they read; one for each run of them."""

    def __init__(self, script: Script, *, acts: bool) -> None:
        self.slots = script.slots
        self.acts = acts
        """Whether atomic operations still do to memory what they do, whatever they are told that they read."""
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
