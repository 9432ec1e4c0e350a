"""Choosing: the versions to export, and how each came from the seed."""

from collections.abc import Sequence
from dataclasses import dataclass

from avo.export.errors import ExportError
from avo.export.source import tidied
from evaluator.catalogue import get_problem
from evaluator.problem import Problem
from evaluator.problem_sources import has_public_function
from lineage_db.records import Run, Version


@dataclass(frozen=True, slots=True)
class Chosen:
    """A version to export."""

    run: Run
    problem: Problem
    line: tuple[Version, ...]
    """The version and all its ancestors, oldest first."""
    source: str
    """The source as it is exported, without the header of comments."""

    @property
    def version(self) -> Version:
        """The version itself."""
        return self.line[-1]

    @property
    def label(self) -> str:
        """RUN@VERSION."""
        return f"{self.run.name}@{self.version.number}"

    @property
    def function(self) -> str:
        """Name of the public function that the version is for."""
        return self.problem.entry


def choose(run: Run, versions: Sequence[Version], number: int) -> Chosen:
    """Return version ``number`` of ``run``, whose versions are ``versions``, ready to be judged.

    Raises ``ExportError`` for a problem that exported packages do not know, and for a source that is not Python.
    """
    problem = get_problem(run.problem)
    if not has_public_function(problem):
        raise ExportError(
            f"{run.name} is for the problem {problem.name}, which no exported package knows: "
            "only dense and selected attention (mha, gqa, fsa and their kind) have a public function"
        )
    line = lineage_of(versions, number)
    try:
        source = tidied(line[-1].attempt.source)
    except ExportError as error:
        raise ExportError(f"{run.name}@{number}: {error}") from None
    return Chosen(run, problem, line, source)


def lineage_of(versions: Sequence[Version], number: int) -> tuple[Version, ...]:
    """Return the version called ``number`` and all its ancestors, oldest first."""
    by_number = {version.number: version for version in versions}
    wanted, found = [number], set[int]()
    while wanted:
        current = wanted.pop()
        if current not in found:
            found.add(current)
            wanted += by_number[current].parents
    return tuple(by_number[each] for each in sorted(found))
