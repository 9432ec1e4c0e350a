"""Barriers in shared memory (PTX ISA, mbarrier): phases, arrivals, bytes that copies are to bring."""

import torch

Tensor = torch.Tensor


class Barriers:
    """The barriers of a number of programs (rows). Rows and numbers of barriers are int64 [P] throughout."""

    def __init__(
        self, rows: int, number: int, partitions: int, actors: int, first_actor: int, *, hands_on: bool = True
    ) -> None:
        """``partitions``, ``actors`` and ``first_actor`` as in ``Clocks``; ``hands_on`` says whether what those
        who arrive know counts.
        """
        self._hands_on = hands_on
        self.names = [""] * number
        self.valid = torch.zeros(rows, number, dtype=torch.bool)
        """Whether the barrier is initialised."""
        self.count = torch.zeros(rows, number, dtype=torch.int64)
        """Arrivals that a phase takes."""
        self.missing = torch.zeros(rows, number, dtype=torch.int64)
        """Arrivals that the current phase still takes."""
        self.bytes = torch.zeros(rows, number, dtype=torch.int64)
        """Bytes that the current phase still takes."""
        self.phase = torch.zeros(rows, number, dtype=torch.int32)
        """Phases that are complete."""
        self.begun = torch.zeros(rows, number, dtype=torch.int32)
        """Phases that were complete when the barrier was initialised last."""
        self.begun_by = torch.zeros(rows, number, dtype=torch.int64)
        """Which partition initialised it last."""
        self.begun_at = torch.zeros(rows, number, dtype=torch.int32)
        """When that was, on the partition's clock."""
        self._used_at = torch.zeros(rows, number, partitions, dtype=torch.int32)
        """When each partition used it last, on its clock; 0: not since it was initialised."""
        self._waited = torch.zeros_like(self._used_at)
        """How many phases were complete when each partition's last wait for it ended."""
        self._waited_at = torch.zeros_like(self._used_at)
        """When that was, on the partition's clock; 0: it has not waited."""
        self._seen = torch.zeros_like(self._used_at)
        """How far those who arrived, or let copies arrive, knew each partition to have come."""
        self._told = torch.zeros_like(self._used_at)
        """The same, up to the end of the last complete phase."""
        self._first_actor = first_actor
        self._signaller = torch.zeros(rows, number, dtype=torch.int64)
        self._signalled_at = torch.zeros(rows, number, dtype=torch.int32)
        """Which asynchronous operation signals the barrier last, and when on its clock; 0: none does."""
        self._arrived = torch.zeros(2, rows, number, actors, dtype=torch.int32)
        """What those who arrived knew, and what of it was fenced."""
        self._done = torch.zeros_like(self._arrived)
        """The same, up to the end of the last complete phase."""

    def initialise(self, rows: Tensor, number: Tensor, count: int, partition: int, time: Tensor) -> None:
        """Start the first phase, at the ``time`` [P] of a partition."""
        self.begun_by[rows, number], self.begun_at[rows, number] = partition, time
        for table in (self._used_at, self._waited, self._waited_at, self._seen, self._told):
            table[rows, number] = 0
        self.valid[rows, number] = True
        self.count[rows, number] = self.missing[rows, number] = count
        self.bytes[rows, number] = self._signalled_at[rows, number] = 0
        # Phases count on, so that a copy of before is not taken for one of after; the first one has parity 0.
        self.phase[rows, number] += self.phase[rows, number] & 1
        self.begun[rows, number] = self.phase[rows, number]

    def waits(self, rows: Tensor, number: Tensor, parity: Tensor) -> Tensor:
        """Return where the phase with a parity [P or 1] is not complete, bool [P]."""
        return self.valid[rows, number] & ((self.phase[rows, number] & 1) == (parity & 1))

    def use(self, rows: Tensor, number: Tensor, partition: int, time: Tensor) -> None:
        """Note that a partition uses barriers at its ``time`` [P]."""
        self._used_at[rows, number, partition] = time

    def in_use(self, rows: Tensor, number: Tensor, heard: Tensor, partitions: range) -> Tensor:
        """Return where one of some partitions may still be using the barrier, for all that was ``heard`` of them [P,
        partitions], bool [P].
        """
        return (self._used_at[rows, number][:, partitions] > heard[:, partitions]).any(1)

    def see(self, rows: Tensor, number: Tensor, heard: Tensor) -> None:
        """Note how far someone who arrives, or issues a copy that will, knows partitions to be [P, partitions]."""
        self._seen[rows, number] = torch.maximum(self._seen[rows, number], heard)

    def waited(self, rows: Tensor, number: Tensor, partition: int, time: Tensor) -> None:
        """Note that a partition has waited for the last complete phase until its ``time`` [P]."""
        self._waited[rows, number, partition] = self.phase[rows, number]
        self._waited_at[rows, number, partition] = time

    def overtaken(self, rows: Tensor, number: Tensor) -> Tensor:
        """Return, for barriers whose phase has just ended, where a partition may still be waiting for the one before:
        it would wait for ever, or for another phase of that parity. bool [P]
        """
        waiting = self._waited[rows, number] == self.phase[rows, number].unsqueeze(1) - 1
        return (waiting & (self._waited_at[rows, number] > self._seen[rows, number])).any(1)

    def hand_on(self, rows: Tensor, number: Tensor, known: Tensor, fenced: Tensor) -> None:
        """Add what someone who arrives knows, [P, actors] each."""
        for table, added in zip(self._arrived, (known, fenced), strict=True):
            table[rows, number] = torch.maximum(table[rows, number], added)

    def handed_on(self, rows: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        """Return what those who arrived knew and had fenced when the last complete phase ended, [P, actors] each."""
        return self._done[0, rows, number], self._done[1, rows, number]

    def told(self, rows: Tensor, number: Tensor) -> Tensor:
        """Return how far partitions were known to have come when the last complete phase ended, [P, partitions]."""
        return self._told[rows, number]

    def signalled(self, rows: Tensor, number: Tensor, actor: Tensor, time: Tensor) -> None:
        """Note asynchronous operations [P] that signal the barriers once they are done."""
        self._signaller[rows, number], self._signalled_at[rows, number] = actor, time

    def outstanding(self, rows: Tensor, number: Tensor, known: Tensor) -> Tensor:
        """Return where an operation may still signal the barrier, for all that is ``known`` [P, actors], bool [P]."""
        done = known.gather(1, self._signaller[rows, number].unsqueeze(1)).squeeze(1)
        return done < self._signalled_at[rows, number]

    def arrive(self, rows: Tensor, number: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Count arrivals; return where there were more than the phase takes, and where it ended, bool [P]."""
        left = self.missing[rows, number] - count
        self.missing[rows, number] = left.clamp(min=0)
        return left < 0, self._complete(rows, number)

    def expect(self, rows: Tensor, number: Tensor, amount: int | Tensor) -> Tensor:
        """Add bytes that the current phase takes; a negative amount has come. Return where it ended, bool [P]."""
        self.bytes[rows, number] += amount
        return self._complete(rows, number)

    def _complete(self, rows: Tensor, number: Tensor) -> Tensor:
        """End the current phase where it takes nothing more; return where that is, bool [P]."""
        ends = self.valid[rows, number] & ((self.missing[rows, number] | self.bytes[rows, number]) == 0)
        if bool(ends.any()):
            self._next_phase(rows[ends], number[ends])
        return ends

    def _next_phase(self, rows: Tensor, number: Tensor) -> None:
        self.phase[rows, number] += 1
        self.missing[rows, number] = self.count[rows, number]
        if self._hands_on:
            self._arrived[0, rows, number, self._first_actor + number] = self.phase[rows, number]
            self._done[:, rows, number] = self._arrived[:, rows, number]
            self._told[rows, number] = self._seen[rows, number]
