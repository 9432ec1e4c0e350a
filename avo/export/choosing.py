"""Choosing: the versions and attempts to export, and how each came from the seed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from avo.export.errors import ExportError
from avo.export.source import tidied
from avo.model_config import model_of
from evaluator.catalogue import get_problem
from evaluator.problem import Problem
from evaluator.problem_sources import has_public_function
from lineage_db.records import Attempt, Run, Version


@dataclass(frozen=True, slots=True)
class Chosen:
    """A version to export, or an attempt that is no version."""

    run: Run
    problem: Problem
    line: tuple[Version, ...]
    """The version and all its ancestors, oldest first; of an attempt that is no version, its ancestors alone."""
    attempt: Attempt
    source: str
    """The source as it is exported, without the header of comments."""

    @property
    def version(self) -> Version | None:
        """The version itself; None for an attempt that is none."""
        return next((version for version in self.line if version.attempt.id == self.attempt.id), None)

    @property
    def label(self) -> str:
        """RUN@VERSION or RUN#ATTEMPT."""
        return f"{self.run.name}@{self.version.number}" if self.version else f"{self.run.name}#{self.attempt.id}"

    @property
    def mark(self) -> str:
        """``v3``, or ``a38`` for an attempt that is no version."""
        return f"v{self.version.number}" if self.version else f"a{self.attempt.id}"

    @property
    def words(self) -> str:
        """``version 3``, or the attempt with why it is no version."""
        if self.version:
            return f"version {self.version.number}"
        why = f" ({self.attempt.decision.told})" if self.attempt.decision else ""
        return f"attempt {self.attempt.id}, which is no version{why},"

    @property
    def model(self) -> str:
        """The model and the phase that the run is for, in words; empty for none."""
        return model_of(self.run)

    @property
    def function(self) -> str:
        """Name of the public function that the version is for."""
        return self.problem.entry


def choose(run: Run, versions: Sequence[Version], attempt: Attempt) -> Chosen:
    """Return ``attempt`` of ``run``, whose versions are ``versions``, ready to be judged. It need not be a version.

    Raises ``ExportError`` for a problem that exported packages do not know, and for a source that is not Python.
    """
    problem = get_problem(run.problem)
    if not has_public_function(problem):
        raise ExportError(
            f"{run.name} is for the problem {problem.name}, which no exported package knows: "
            "only dense and selected attention (mha, gqa, fsa, without windows, sinks or packed sequences, and with "
            "keys as long as values) have a public function"
        )
    accepted = [version.number for version in versions if version.attempt.id == attempt.id]
    chosen = Chosen(run, problem, lineage_of(versions, *(accepted or attempt.parents)), attempt, attempt.source)
    try:
        return replace(chosen, source=tidied(attempt.source))
    except ExportError as error:
        raise ExportError(f"{chosen.label}: {error}") from None


def lineage_of(versions: Sequence[Version], *numbers: int) -> tuple[Version, ...]:
    """Return the versions with these ``numbers`` and all their ancestors, oldest first."""
    by_number = {version.number: version for version in versions}
    wanted, found = list(numbers), set[int]()
    while wanted:
        current = wanted.pop()
        if current not in found:
            found.add(current)
            wanted += by_number[current].parents
    return tuple(by_number[each] for each in sorted(found))
