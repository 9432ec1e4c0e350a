"""A variation operator of your own: it tries the best version with other numbers of warps.

    pip install examples/warps_operator
    avo run --operator warps --max-attempts 4

An operator is a class with a ``name`` and a method ``vary``. AVO calls ``vary`` once per step with a ``Brief``: the
problem, the target, the lineage, everything tried so far, the knowledge base and the scoring function. The operator
returns a ``Proposal``. Acceptance, records and budgets are not its concern: ``brief.evaluate`` records each attempt,
and the run decides whether the proposed one becomes a version.
"""

import re

from avo import Brief, BudgetSpent, CandidateTaken, Proposal

WARPS = (4, 8, 2, 16)
"""Numbers of warps to try, in this order."""


class WarpsOperator:
    """Replaces ``num_warps=N`` in the source of one version. Works on sources that write N as a number."""

    name = "warps"

    def vary(self, brief: Brief) -> Proposal:
        """Evaluate the first number of warps that the run has not tried, and propose it if it is correct."""
        parent = brief.parent  # the best version, or the one that population or supervisor ask for
        tried = {attempt.digest for attempt in brief.attempts}
        for warps in WARPS:
            source = re.sub(r"num_warps=\d+", f"num_warps={warps}", parent.attempt.source)
            candidate = brief.candidate(source)
            if candidate.digest in tried:
                continue
            try:
                attempt = brief.evaluate(candidate, change=f"num_warps {warps}", parents=(parent.number,))
            except CandidateTaken:  # another worker evaluates it just now
                continue
            except BudgetSpent as error:  # others evaluate what is left of --max-attempts
                return Proposal(None, str(error))
            verdict = f"num_warps {warps} on version {parent.number}: {attempt.status.words}"
            return Proposal(attempt if attempt.evaluation.correct else None, verdict)
        return Proposal(None, f"every number of warps of version {parent.number} has been tried")
