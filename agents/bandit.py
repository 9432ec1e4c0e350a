"""Which of several models the next step asks: a bandit over what each one's steps gained for what they cost.

It follows the ideas of ShinkaEvolve (Lange et al., arXiv 2509.19349): gains are relative to the best version, an upper
confidence bound makes up for few steps, and old steps count less, as a run's gains become rarer. Steps run side by
side, so the next model is drawn, in proportion to the squares of the bounds, rather than always the first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from avo.agents.settings import ModelSettings
from avo.lineage_db.entries import PaidStep

MOST_STEPS = 200
"""Latest steps that count: an older one has less than a hundredth of the weight of the last."""
FLOOR = 0.1
"""Share of the steps that go by the models' weights whatever was seen: none is ever given up."""
_HALF_LIFE = 30.0
"""Steps after which a step counts half."""
_EXPLORATION = 0.5
"""Weight of the bound: what a model that was asked once may be better by than it seems, as a share of the best rate."""
_SHRUNK = 2.0
"""Steps of the mean of all models that each one's own are mixed with."""


@dataclass(frozen=True, slots=True)
class ModelShare:
    """What the steps of a model gained and cost, and its share of the steps to come."""

    model: str
    steps: int
    gain: float
    """Of its versions over the best before each, compounded, 0.03 being 3 percent."""
    tokens: int
    usd: float | None
    """None where the price of a call is not known."""
    share: float


def shares(models: Sequence[ModelSettings], paid: Sequence[PaidStep]) -> tuple[ModelShare, ...]:
    """Return each model with its share of the steps to come, which are those of its weight before any step has ended.

    ``paid`` are the run's last steps, oldest first. Cost is in US dollars, or in tokens where a model has no price.
    """
    whole = sum(model.weight for model in models)
    weights = {model.name: model.weight / whole for model in models}
    paid = [step for step in paid if step.model in weights][-MOST_STEPS:]
    priced = all(step.usd is not None for step in paid) and any(step.usd for step in paid)
    cost = {step.number: (step.usd or 0.0) if priced else float(step.tokens) for step in paid}
    ages = {step.number: 0.5 ** ((len(paid) - 1 - place) / _HALF_LIFE) for place, step in enumerate(paid)}
    tried = sum(ages.values())
    gained = sum(ages[step.number] * step.gain for step in paid)
    spent = sum(ages[step.number] * cost[step.number] for step in paid)
    mixed = _SHRUNK / tried if tried else 0.0
    steps = {name: [step for step in paid if step.model == name] for name in weights}
    bounds = {}
    for name, own in steps.items():
        count = sum(ages[step.number] for step in own)
        gain = sum(ages[step.number] * step.gain for step in own) + mixed * gained
        price = sum(ages[step.number] * cost[step.number] for step in own) + mixed * spent
        bounds[name] = gain / price if price else 0.0, math.sqrt(math.log1p(tried) / (1 + count))
    best = max((rate for rate, _ in bounds.values()), default=0.0)
    drawn = {
        name: weights[name] * ((rate / best if best else 1.0) + _EXPLORATION * width) ** 2
        for name, (rate, width) in bounds.items()
    }
    total = sum(drawn.values())
    return tuple(
        ModelShare(
            name,
            len(own),
            math.expm1(sum(step.gain for step in own)),
            sum(step.tokens for step in own),
            None if any(step.usd is None for step in own) else sum(step.usd or 0.0 for step in own),
            FLOOR * weights[name] + (1 - FLOOR) * drawn[name] / total,
        )
        for name, own in steps.items()
    )
