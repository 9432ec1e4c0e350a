"""Cards: a GPU as its driver describes it, and the target made from that."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.target import CUDA, TARGETS, ScoreKind, Target


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU, as its driver describes it."""

    name: str
    arch: int
    """Compute capability times ten."""
    sms: int
    l2_bytes: int
    max_clock_ghz: float
    """Highest clock of the SMs; 0 where the driver does not say."""
    hbm_bytes_per_s: float
    """Peak bandwidth, from memory clock and bus width; 0 where the driver does not say."""
    driver: str
    """Version of the driver; empty where it cannot be read."""
    uuid: str = ""
    """Tells this card from all others."""
    assembler: Mapping[str, str] = field(default_factory=dict)
    """Environment in which Triton takes an assembler whose kernels the driver loads; empty where it does by itself."""

    def nearest(self) -> Target:
        """Return the known card most like it. Raises ``EvaluatorUnavailable`` for an architecture without figures:
        without the tensor cores' peak no time could be called impossible.
        """
        known = self._known()
        if not known:
            having = ", ".join(sorted({f"{target.arch / 10:.1f}" for target in TARGETS.values()}, key=float))
            raise EvaluatorUnavailable(
                f"{self.name} has compute capability {self.arch / 10:.1f}; this version measures on {having}"
            )
        hbm = self.hbm_bytes_per_s or max(target.hbm_bytes_per_s for target in known)
        return min(known, key=lambda target: (target.sms != self.sms, abs(target.hbm_bytes_per_s - hbm)))

    def target(self) -> Target:
        """Return the card as a target: its own counts and bandwidth, everything else from the ``nearest``; raise alike.

        A card with another number of SMs than all known ones has the highest tensor rate of its architecture: so no
        time that it can reach is called impossible.
        """
        alike, known = self.nearest(), self._known()
        return replace(
            alike,
            tensor_flop=alike.tensor_flop if alike.sms == self.sms else max(target.tensor_flop for target in known),
            name=CUDA,
            product=self.name,
            sms=self.sms,
            l2_bytes=self.l2_bytes,
            hbm_bytes_per_s=self.hbm_bytes_per_s or max(target.hbm_bytes_per_s for target in known),
            kind=ScoreKind.MEASURED,
        )

    def _known(self) -> list[Target]:
        return [target for target in TARGETS.values() if target.arch == self.arch]

    def floor_s(self, flops: int, least_bytes: int) -> float:
        """Return the least seconds that a run of a case can take: its roofline at the card's highest clock.

        Bytes that fit into the L2 cache are not counted: outputs may be written back after the run. Raises like
        ``target``.
        """
        target = self.target()
        clock_hz = max(self.max_clock_ghz, target.clock_ghz) * 1e9
        compute = flops / (target.tensor_flop * target.sms * clock_hz)
        return max(compute, (least_bytes - target.l2_bytes) / target.hbm_bytes_per_s)
