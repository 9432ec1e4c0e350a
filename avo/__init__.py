"""AVO: an automated search for faster attention kernels.

The names below are for users' code: problems, operators and scripts of their own. Each is loaded when it is first asked
for, so that ``import avo`` costs nothing and a judge on a bare GPU machine needs none of them.
"""

from pkgutil import resolve_name
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avo.agents.errors import BudgetSpent, CandidateTaken, LooksSpent
    from avo.agents.operator import Brief, Proposal
    from avo.agents.operator import VariationOperator as Operator
    from avo.agents.tools import Toolbox
    from avo.evaluator.offline import FaultsFound, UnsupportedOperation, offline
    from avo.evaluator.problem import HELD_OUT, Absolute, Baseline, Call, Case, Expected, Output, Problem, Rounded

__all__ = [
    "HELD_OUT",
    "Absolute",
    "Baseline",
    "Brief",
    "BudgetSpent",
    "Call",
    "CandidateTaken",
    "Case",
    "Expected",
    "FaultsFound",
    "LooksSpent",
    "Operator",
    "Output",
    "Problem",
    "Proposal",
    "Rounded",
    "Toolbox",
    "UnsupportedOperation",
    "offline",
]
_PLACES = {
    "HELD_OUT": "avo.evaluator.problem:HELD_OUT",
    "Absolute": "avo.evaluator.problem:Absolute",
    "Baseline": "avo.evaluator.problem:Baseline",
    "Brief": "avo.agents.operator:Brief",
    "BudgetSpent": "avo.agents.errors:BudgetSpent",
    "Call": "avo.evaluator.problem:Call",
    "CandidateTaken": "avo.agents.errors:CandidateTaken",
    "Case": "avo.evaluator.problem:Case",
    "Expected": "avo.evaluator.problem:Expected",
    "FaultsFound": "avo.evaluator.offline:FaultsFound",
    "LooksSpent": "avo.agents.errors:LooksSpent",
    "Operator": "avo.agents.operator:VariationOperator",
    "Output": "avo.evaluator.problem:Output",
    "Problem": "avo.evaluator.problem:Problem",
    "Proposal": "avo.agents.operator:Proposal",
    "Rounded": "avo.evaluator.problem:Rounded",
    "Toolbox": "avo.agents.tools:Toolbox",
    "UnsupportedOperation": "avo.evaluator.offline:UnsupportedOperation",
    "offline": "avo.evaluator.offline:offline",
}

if not TYPE_CHECKING:  # else any name would pass the type checker

    def __getattr__(name: str) -> object:
        """Load a name when it is first used."""
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return resolve_name(_PLACES[name])


def __dir__() -> list[str]:
    return [*globals(), *_PLACES]
