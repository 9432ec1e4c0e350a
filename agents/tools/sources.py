"""Kernels that are known, by name: seeds, the best that moves lead to, and the versions of other runs."""

import ast
import re

from avo.agents.best import GLUON, TRITON, source_of
from avo.agents.operator import Brief
from avo.agents.tools.arguments import BadCall
from avo.agents.tools.tables import short, table
from avo.evaluator.catalogue import kind_of
from avo.evaluator.targets import get_target
from avo.evaluator.units import figure
from avo.seeds import KINDS, fitting, seed_source, seeds_of

_PATHS = {f"known {problem} {target}": (path, target) for (problem, target), path in TRITON.items()}
_PATHS |= {f"known {problem} {target} gluon": (path, target) for (problem, target), path in GLUON.items()}


def listed(brief: Brief) -> str:
    """Return a table of the names and of what is known of each."""
    rows = [(f"seed {kind}/{name}", _title(seed_source(kind, name))) for kind in KINDS for name in seeds_of(kind)]
    rows += [(name, f"{path[0]} by {'; '.join(path[1:])}") for name, (path, _) in _PATHS.items()]
    rows += [
        (
            f"run {each.run.name}",
            f"{each.run.problem}, {each.run.target}, suite {each.run.suite}: "
            f"{figure(each.best_geomean or 0.0)} TFLOPS; its versions are run {each.run.name}@0 and on",
        )
        for each in brief.desk.runs()
    ]
    return table(("name", "kernel"), rows)


def named(brief: Brief, name: str) -> str:
    """Return a source by its name in the table; raise ``BadCall``."""
    kind, _, rest = " ".join(name.split()).partition(" ")
    problem, _, seed = rest.partition("/")
    if kind == "seed" and seed in seeds_of(problem):
        return seed_source(problem, seed)
    if (found := _PATHS.get(f"{kind} {rest}")) is not None:
        path, target = found
        return source_of(path, get_target(target))
    if kind == "run" and (of := re.fullmatch(r"([^@]+)(?:@(\d{1,9}))?", rest)):
        try:
            return brief.desk.version(of[1], int(of[2]) if of[2] else None).attempt.source
        except LookupError as error:
            raise BadCall(f"{error}: call sources without a name for a list") from None
    raise BadCall(f"there is no source {name!r:.80}: call sources without a name for a list")


def exemplars(brief: Brief) -> list[str]:
    """Return the names of what is closest to the run in the table: the seeds of its problem, the best kernels known for
    its problem and card, and the best of other runs for the card.
    """
    kind, target = kind_of(brief.problem.name), brief.target.name
    names = [f"seed {kind}/{name}" for name in fitting(kind, brief.target)]
    names += [name for name in (f"known {kind} {target}", f"known {kind} {target} gluon") if name in _PATHS]
    return names + [f"run {each.run.name}" for each in brief.desk.runs() if each.run.target == target]


def _title(source: str) -> str:
    return short((ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0], 120)
