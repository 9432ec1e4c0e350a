"""What is kept of the accesses to one buffer."""

from avo.evaluator.executor.races import Order, Trace

READ, WRITTEN, UPDATED = "read", "written", "updated atomically"


class Shadow:
    """The accesses to the granules of one buffer that the kernel may write to.

    As long as it is only accessed in rows, these count as granules.
    """

    def __init__(self, size: int, granule: int, order: Order) -> None:
        self.granule = granule
        """Bytes of a granule."""
        self._size = size
        self._order = order
        self._rows: tuple[int, int] | None = None
        """Bytes of the rows that it counts in, and the byte where they begin."""
        self._traces: dict[str, Trace] = {}

    def trace(self, verb: str) -> Trace:
        """Return the trace of accesses of a kind."""
        if verb not in self._traces:
            row, start = self._rows or (self.granule, 0)
            self._traces[verb] = Trace((self._size - start) // row, self._order, latest=verb == WRITTEN)
        return self._traces[verb]

    def others(self, verb: str) -> Trace | None:
        """Return the trace of a kind if it has accesses."""
        return self._traces.get(verb)

    def takes_rows(self, row: int, start: int) -> bool:
        """Count in rows of ``row`` bytes from byte ``start`` on, unless it counts otherwise; return whether it does."""
        if not self._traces and row % self.granule == start % self.granule == 0:
            self._rows = row, start
        return self._rows == (row, start)

    def take_granules(self) -> None:
        """Count in granules from now on."""
        if self._rows is not None:
            row, start = (size // self.granule for size in self._rows)
            for trace in self._traces.values():
                trace.spread(self._size // self.granule, row, start)
            self._rows = None
