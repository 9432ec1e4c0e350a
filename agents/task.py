"""What a model is told of the task: the problem, the card, the figures to beat, and what the prediction leaves out."""

import inspect
from importlib.metadata import version
from typing import Any

from avo.agents.operator import Brief
from avo.agents.tools.tables import table
from avo.evaluator.catalogue import get_suite, kind_and_setting, settable
from avo.evaluator.problem import Call, Case, Problem
from avo.evaluator.target import TARGETS, Target
from avo.evaluator.units import figure, rooflines_s


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
        "call": problem.call(cases[0]),
        "cases": [shapes(problem.call(case)) for case in cases],
        "published": published(problem, target, cases),
        "rooflines": rooflines(problem, target, cases),
        "triton": version("triton"),
    }


def meaning(problem: Problem) -> str:
    """Return what a problem says of its entry: the docstring of its class, below the line with the signature, and what
    its setting adds to that.
    """
    kind, setting = kind_and_setting(problem.name)
    said = (inspect.getdoc(type(problem)) or "").partition("\n")[2].strip()
    further = settable()[kind].meaning(setting) if setting else ""
    return f"{said}\n\n{further}" if further else said


def shapes(call: Call) -> str:
    """Return what a call is made with, on one line: tensors of the same shape together, then the scalars."""
    named = dict[tuple[int, ...], list[str]]()
    for tensor in call.tensors:
        named.setdefault(tensor.shape, []).append(tensor.name)
    parts = [f"{', '.join(names)} {list(shape)}" for shape, names in named.items()]
    parts += [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in call.scalars]
    return f"{call.case}: {'; '.join(parts)}"


def rooflines(problem: Problem, target: Target, cases: tuple[Case, ...]) -> str:
    """Return what each case's useful FLOPs and least bytes take at the card's peaks: ``8k-full 137 us``."""
    found = rooflines_s(problem, cases, target)
    return ", ".join(f"{name} {figure(seconds * 1e6)} us" for name, seconds in found.items())


def published(problem: Problem, target: Target, cases: tuple[Case, ...]) -> str:
    """Return a table of the TFLOPS published for ``cases`` on the target's card, and what was published in the place of
    TFLOPS, with their sources.

    Where speed is measured, and for a calibrated card, the figures are those of all cards of the architecture. Empty if
    there are none.
    """
    cards = [
        each
        for each, card in TARGETS.items()
        if each == target.name or (target.name not in TARGETS and card.arch == target.arch)
    ]
    names = [case.name for case in cases]
    here = [baseline for baseline in problem.baselines if baseline.target in cards]
    found = [baseline for baseline in here if not baseline.tflops.keys().isdisjoint(names)]
    in_words = [baseline for baseline in here if baseline.words and not baseline.tflops]
    rows = [
        (each.name, each.target, *(f"{each.tflops[name]:g}" if name in each.tflops else "-" for name in names))
        for each in found
    ]
    sources = dict.fromkeys(each.source for each in found)
    figures = [table(("TFLOPS", "card", *names), rows), *(f"Source: {source}" for source in sources)] if found else []
    said = [f"{each.name}, {each.target}: {each.words}. Source: {each.source}" for each in in_words]
    return "\n".join([*figures, *said])
