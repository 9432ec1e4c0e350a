"""The examination before acceptance: what it looks at besides the cases that are scored.

A candidate might recognise it by the shapes that it is called for, or by the time. So the cases of the suite are
captured alone, as where the candidate was scored, and among all others in an order that is drawn: the plans must be the
same, and those that were scored.
"""

import random
from collections.abc import Iterable, Sequence
from functools import partial

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.judging import places
from avo.evaluator.judging.planning import Planner, digest_of
from avo.evaluator.judging.refusal import Refused
from avo.evaluator.plan import Configuration, LaunchPlan
from avo.evaluator.problem import Case, Problem

MOST_OTHERS = 16
"""About the most pairs of a case of the suite and a configuration that is not the fastest there. Each configuration is
in at least one.
"""

Plans = tuple[tuple[LaunchPlan, ...], ...]
"""For each case the plans with each configuration."""


def captured(
    planner: Planner,
    candidate: Candidate,
    problem: Problem,
    cases: Sequence[Case],
    shown: Sequence[Case],
    scored: str | None,
    chance: random.Random,
) -> tuple[Plans, list[tuple[Case, tuple[LaunchPlan, ...]]]]:
    """Return the plans of ``cases``, and drawn cases with theirs.

    Raises ``Refused`` for a candidate that launches something else for the cases that are ``shown``, those that it is
    scored on, when it is called for others too, or than when it was ``scored``: the digest of its plans then.
    """
    drawn = places.drawn(problem, chance)
    kinds = partial(planner.kinds, candidate, problem)
    drawn += places.changes(problem, kinds, chance)
    drawn += places.rare(problem, partial(kinds, arguments=False), drawn, chance)
    before = planner.alternatives(candidate, problem, (*problem.correctness_cases, *shown))
    if scored not in (None, digest_of(before)):
        raise _fickle("than when it was scored")

    def among(others: Sequence[Case]) -> Plans:
        mixed = [*others, *shown]
        order = chance.sample(range(len(mixed)), len(mixed))
        plans = dict(zip(order, planner.alternatives(candidate, problem, [mixed[i] for i in order]), strict=True))
        for i, alone in enumerate(before[-len(shown) :], len(others)):
            if [plan.digest for plan in alone] != [plan.digest for plan in plans[i]]:
                raise _fickle("when it is called for other cases before", f"case {mixed[i].name}: ")
        return tuple(plans[i] for i in range(len(others)))

    return among(cases), list(zip(drawn, among(drawn), strict=True))


def _fickle(when: str, where: str = "") -> Refused:
    message = (
        f"{where}launches something else {when}: what it launches may depend on nothing but the arguments of the call"
    )
    return Refused(Fault(Status.FORBIDDEN, message))


def others(
    fitting: Iterable[tuple[Case, Sequence[LaunchPlan]]], fastest: Sequence[LaunchPlan], chance: random.Random
) -> list[tuple[Case, LaunchPlan]]:
    """Return cases with plans that a tuner on another card may choose there: some of the ``fitting``, without the
    ``fastest``.
    """
    pairs = [(case, plan) for case, plans in fitting for plan in plans if plan not in fastest]
    chance.shuffle(pairs)
    once = {pair[1].configurations: pair for pair in pairs}
    more = [pair for pair in pairs if once[pair[1].configurations] is not pair]
    return [*once.values(), *more[: max(MOST_OTHERS - len(once), 0)]]


def one_of(plans: Sequence[LaunchPlan], fit: set[Configuration], chance: random.Random) -> LaunchPlan:
    """Return a plan for a drawn case with configurations that ``fit``, by name, or the first if none are known to."""
    names = set(map(str, fit))
    return chance.choice([plan for plan in plans if names.issuperset(map(str, plan.configurations))] or plans[:1])
