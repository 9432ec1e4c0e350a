"""What a model is told of the task: the problem, the card, the figures to beat, and what the prediction leaves out."""

import inspect
from importlib.metadata import version
from typing import Any

from agents.operator import Brief
from agents.tools.tables import table
from evaluator.catalogue import get_suite
from evaluator.problem import Case, Problem
from evaluator.target import CUDA, TARGETS, Target


def told(brief: Brief) -> dict[str, Any]:
    """Return the template variables that describe the problem and target of ``brief``."""
    return task(brief.problem, brief.target, brief.suite, brief.requirement)


def task(problem: Problem, target: Target, suite: str, requirement: str) -> dict[str, Any]:
    """Return the template variables that describe a problem, target and suite, and what a version must be."""
    cases = get_suite(problem, suite)
    return {
        "problem": problem,
        "meaning": meaning(problem),
        "target": target,
        "suite": suite,
        "requirement": requirement,
        "cases": [case.name for case in cases],
        "call": problem.call(cases[0]),
        "published": published(problem, target, cases),
        "triton": version("triton"),
    }


def meaning(problem: Problem) -> str:
    """Return what a problem says of its entry: the docstring of its class, below the line with the signature."""
    return (inspect.getdoc(type(problem)) or "").partition("\n")[2].strip()


def published(problem: Problem, target: Target, cases: tuple[Case, ...]) -> str:
    """Return a table of the TFLOPS published for ``cases`` on the target's card, with their sources.

    Where speed is measured the figures are those of all cards of the architecture. Empty if there are none.
    """
    cards = [
        each
        for each, card in TARGETS.items()
        if each == target.name or (target.name == CUDA and card.arch == target.arch)
    ]
    names = [case.name for case in cases]
    found = [
        baseline
        for baseline in problem.baselines
        if baseline.target in cards and not baseline.tflops.keys().isdisjoint(names)
    ]
    if not found:
        return ""
    rows = [
        (each.name, each.target, *(f"{each.tflops[name]:g}" if name in each.tflops else "-" for name in names))
        for each in found
    ]
    sources = dict.fromkeys(each.source for each in found)
    return "\n".join([table(("", "card", *names), rows), *(f"Source: {source}" for source in sources)])
