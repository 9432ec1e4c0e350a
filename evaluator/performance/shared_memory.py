"""An SM's shared memory while its tensor cores read their operands there."""

from dataclasses import dataclass


@dataclass(slots=True)
class SharedMemory:
    """Serves the operands of matrix products in turn with all other accesses. Times in clocks."""

    served: float = 0.0
    """Time until which it is taken by operands, and by what was served beside them."""
    owed: float = 0.0
    """Clocks of other accesses that are still to be served then."""

    def access(self, clocks: float) -> None:
        """Take on what a load, a store, a shuffle or the writes of a copy need."""
        self.owed += clocks

    def multiply(self, start: float, end: float, clocks: float) -> float:
        """Read the operands of a product that the tensor cores do from ``start`` to ``end``; return when it is done.

        Where both wait, others get a clock for each clock of operands.
        """
        first = max(self.served, start)
        self.owed = max(0.0, self.owed - (first - self.served))
        last = first + clocks
        end = max(end, last + min(self.owed, clocks))
        beside = min(self.owed, end - last)
        self.owed -= beside
        self.served = last + beside
        return end
