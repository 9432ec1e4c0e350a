"""An operator of the world of fakes for long runs, installed as users install theirs: see ``install``."""

import random
from pathlib import Path

from avo.agents.operator import Brief, Proposal
from tests.avo.fakes import submit

BETTER = 0.03
"""Share of the candidates that are faster than the best, by 2%."""


class Walker:
    """Submits one candidate a step. It finds something better for ever, but not so often that numbers overflow."""

    name = "walker"

    def vary(self, brief: Brief) -> Proposal:
        """Submit one candidate."""
        best, chance = brief.versions[-1], random.Random(brief.seed)
        factor = 1.02 if chance.random() < BETTER else chance.uniform(0.8, 1.0)
        source = f"tflops = {best.attempt.evaluation.geomean_tflops * factor!r}"
        return Proposal(submit(brief, source, (best.number,)), "a step on")


def install(folder: Path) -> None:
    """Make the operator known to processes that have ``folder`` on their import path."""
    info = folder / "walker-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: walker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[avo.operators]\nwalker = tests.avo.walker:Walker\n")
