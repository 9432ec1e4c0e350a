"""The examination before acceptance: what it looks at besides the cases that are scored.

A candidate might recognise it by the shapes that it is called for. So the cases of the suite are captured alone, as
where the candidate was scored, and among all others in an order that is drawn: the plans must be the same.
"""

import random
from collections.abc import Iterable, Sequence
from functools import partial

from evaluator.candidate import Candidate
from evaluator.evaluation import Fault, Status
from evaluator.judging import places
from evaluator.judging.planning import Planner
from evaluator.judging.refusal import Refused
from evaluator.plan import Configuration, LaunchPlan
from evaluator.problem import Case, Problem

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
    chance: random.Random,
) -> tuple[Plans, list[tuple[Case, tuple[LaunchPlan, ...]]]]:
    """Return the plans of ``cases``, and drawn cases with theirs.

    Raises ``Refused`` for a candidate that launches something else for the cases that are ``shown``, those that it is
    scored on, when it is called for others too.
    """
    drawn = places.drawn(problem, chance)
    drawn += places.changes(problem, partial(planner.kinds, candidate, problem), chance)
    alone = planner.alternatives(candidate, problem, (*problem.correctness_cases, *shown))[-len(shown) :]

    def among(others: Sequence[Case]) -> Plans:
        mixed = [*others, *shown]
        order = chance.sample(range(len(mixed)), len(mixed))
        plans = dict(zip(order, planner.alternatives(candidate, problem, [mixed[i] for i in order]), strict=True))
        again = [plans[i] for i in range(len(others), len(mixed))]
        for case, before, now in zip(shown, alone, again, strict=True):
            if [plan.digest for plan in before] != [plan.digest for plan in now]:
                message = (
                    f"case {case.name}: launches something else when it is called for other cases before: what it "
                    "launches may depend on nothing but the arguments of the call"
                )
                raise Refused(Fault(Status.FORBIDDEN, message))
        return tuple(plans[i] for i in range(len(others)))

    return among(cases), list(zip(drawn, among(drawn), strict=True))


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
