"""What each partition of each program knows to be done, as vector clocks.

An actor has a clock that counts what it does: a partition, each queue of asynchronous operations of a partition, and
each barrier, for the copies that signal it. In a cluster each partition is as many as there are CTAs: those of one
partition are numbered one after another. A partition knows, of each actor, the time up to which everything is done
and visible to it. Arriving at a barrier hands on what a partition knows, and waiting for it takes that over: two
accesses are ordered exactly if the later one's partition knows the earlier one (Lamport, Time, clocks, and the ordering
of events, 1978; Mattern, Virtual time and global states, 1989).
"""

from collections.abc import Sequence
from enum import IntEnum

import torch

Tensor = torch.Tensor


class Queue(IntEnum):
    """Asynchronous operations of one partition that end in the order in which they were issued."""

    TENSOR_CORE = 1
    """tcgen05 products and copies; a commit signals their end."""
    WARP_GROUP = 2
    """wgmma products."""
    COPY = 3
    """cp.async copies, in groups."""
    STORE = 4
    """TMA copies to global memory."""


_WORDS = {
    Queue.TENSOR_CORE: "an asynchronous product or copy (tcgen05)",
    Queue.WARP_GROUP: "an asynchronous product (wgmma)",
    Queue.COPY: "an asynchronous copy (cp.async)",
    Queue.STORE: "a TMA copy to global memory",
}


class Clocks:
    """The clocks of a number of programs (rows). Times are int32 and start at 1."""

    def __init__(self, rows: int, partitions: int, barriers: int, ctas: int = 1) -> None:
        """``partitions`` are those of all ``ctas``."""
        self.partitions = partitions
        self._ctas = ctas
        self.actors = partitions * (1 + len(Queue)) + barriers
        self.known = torch.zeros(rows, partitions, self.actors, dtype=torch.int32)
        """Up to which time each partition knows each actor, [rows, partitions, actors]."""
        for partition in range(partitions):
            self.known[:, partition, partition] = 1
        self.fenced = torch.zeros_like(self.known)
        """The same, of writes that a fence has made visible to asynchronous operations."""
        self.met = torch.zeros(rows, partitions, partitions, dtype=torch.int32)
        """Up to which time each partition knows each other to have come, though not what it wrote."""
        self.issued = torch.zeros(rows, partitions, 1 + len(Queue), dtype=torch.int32)
        """How many operations are in each queue of each partition, done or not."""
        self.cores = torch.zeros_like(self.known)
        """What each partition knew when it last gave the tensor core work: what a commit hands on."""

    def actor(self, partition: int, queue: Queue) -> int:
        """Return the actor that a queue of a partition is."""
        return self.partitions * queue + partition

    def barrier(self, number: int) -> int:
        """Return the actor that the copies signalling a barrier are."""
        return self.partitions * (1 + len(Queue)) + number

    def partition_of(self, actors: Tensor) -> Tensor:
        """Return the partition that actors are, or whose queues they are; -1 for barriers."""
        return torch.where(actors < self.barrier(0), actors % self.partitions // self._ctas, -1)

    def issue(self, rows: Tensor, partition: int, queue: Queue) -> Tensor:
        """Count one more operation in a queue, and return its time [P]."""
        self.issued[rows, partition, queue] += 1
        return self.issued[rows, partition, queue]

    def finish(self, rows: Tensor, partition: int, queue: Queue, pending: int) -> None:
        """Note that a partition knows all operations of its queue to be done, but the last ``pending``."""
        actor = self.actor(partition, queue)
        done = self.issued[rows, partition, queue] - pending
        self.known[rows, partition, actor] = torch.maximum(self.known[rows, partition, actor], done)

    def release(self, rows: Tensor, partition: int) -> None:
        """Start a new time of a partition: what it does from now on is not part of what it has handed on."""
        self.known[rows, partition, partition] += 1

    def fence(self, rows: Tensor, partition: int) -> None:
        """Make the writes that a partition knows visible to asynchronous operations."""
        self.fenced[rows, partition] = torch.maximum(self.fenced[rows, partition], self.known[rows, partition])
        self.release(rows, partition)

    def heard(self, rows: Tensor, partition: int) -> Tensor:
        """Return up to which time a partition knows each to have come, [P, partitions]."""
        return torch.maximum(self.met[rows, partition], self.known[rows, partition, : self.partitions])

    def begin(self, rows: Tensor, partition: int) -> None:
        """Let all partitions of a CTA know what one does, and take that for fenced."""
        own = range(partition % self._ctas, self.partitions, self._ctas)
        known = torch.maximum(self.known[rows][:, own], self.known[rows, partition].unsqueeze(1))
        fenced = torch.maximum(self.fenced[rows][:, own], known[:, partition // self._ctas].unsqueeze(1))
        met = self.heard(rows, partition)
        for i, other in enumerate(own):
            self.met[rows, other] = torch.maximum(self.met[rows, other], met)
            self.known[rows, other], self.fenced[rows, other] = known[:, i], fenced[:, i]
        self.release(rows, partition)

    def end(self, rows: Tensor, partition: int) -> None:
        """Let a partition see all that its CTA has done, except asynchronous operations that none has waited for."""
        own = range(partition % self._ctas, self.partitions, self._ctas)
        for table in (self.known, self.fenced, self.met):
            table[rows, partition] = table[rows][:, own].amax(1)
        for other in own:
            self.release(rows, other)

    def meet(self, rows: Tensor, partitions: Sequence[int]) -> None:
        """Let some partitions know what each of them does."""
        for table in (self.known, self.fenced, self.met):
            every = table[rows][:, partitions].amax(1)
            for partition in partitions:
                table[rows, partition] = every
        for partition in partitions:
            self.release(rows, partition)

    def words(self, actor: int, barriers: list[str]) -> str:
        """Return what an actor is called in messages."""
        if actor < self.partitions:
            return self.partition(actor)
        queue, partition = divmod(actor, self.partitions)
        if queue <= len(Queue):
            return f"{_WORDS[Queue(queue)]} of {self.partition(partition)}"
        return f"an asynchronous copy that signals barrier {barriers[actor - self.barrier(0)]}"

    def partition(self, number: int) -> str:
        """Return what a partition is called in messages."""
        own, cta = divmod(number, self._ctas)
        name = f"partition {own - 1}" if own else "the default partition"
        if self.partitions == self._ctas:
            name = "the program"
        return f"{name} in CTA {cta}" if self._ctas > 1 else name
