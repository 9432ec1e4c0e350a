"""What is accessed on the chip, and by whom."""

from dataclasses import dataclass

import torch

from avo.evaluator.executor.chip.cluster import Box

Tensor = torch.Tensor

TOO_EARLY = "on-chip access too early"

Peers = tuple[tuple[int, int, Box | None], ...]
"""Each CTA that has a part of a block in registers, with each whose memory it uses for that, and what of a view."""


@dataclass(frozen=True, slots=True)
class Access:
    """One access of a partition to the on-chip memory of a CTA, or of an asynchronous operation that it issues."""

    verb: str
    """``reads`` or ``writes``."""
    agent: int
    """Which partition of which CTA it is, or issues it, see ``Clocks``."""
    cta: int
    """The CTA whose memory it is."""
    actor: int | None = None
    """Which asynchronous operation it is, see ``Clocks``; None: the partition itself."""
    time: Tensor | None = None
    """When, on the clock of ``actor``, [P]."""
    in_order: bool = False
    """Whether it takes place after all earlier operations of ``actor``, or of any barrier where that is one."""
    fences: bool = False
    """Whether it sees only those writes of partitions that were fenced (the async proxy of the PTX ISA)."""
    ordinary: bool = False
    """Whether, asynchronous or not, it must be fenced before such an access sees it."""
    box: Box | None = None
    """Which elements of the view it is to, where not all that the CTA holds."""

    @property
    def by(self) -> int:
        """The actor: the asynchronous operation, or the partition itself."""
        return self.agent if self.actor is None else self.actor
