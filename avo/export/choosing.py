"""Choosing: the versions and attempts to export, and how each came from the seed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from avo.config import START
from avo.evaluator.catalogue import get_problem
from avo.evaluator.problem import Problem, signature
from avo.evaluator.problem_sources import cap_of, public_function
from avo.export.errors import ExportError
from avo.export.source import about, saying, tidied
from avo.lineage_db.ablated import Ablation
from avo.lineage_db.measurements import Measured
from avo.lineage_db.records import Attempt, Run, Version
from avo.subject import model_of
from avo.watch.wording import counted, printable


@dataclass(frozen=True, slots=True)
class Chosen:
    """A version to export, or an attempt that is no version."""

    run: Run
    problem: Problem
    line: tuple[Version, ...]
    """The version and all its ancestors, oldest first; for an attempt that is no version, its ancestors alone."""
    attempt: Attempt
    source: str
    """The source as it is exported, without the header of comments."""
    measured: Measured | None = None
    """What a card measured of it in its run; None for nothing."""
    ablation: Ablation | None = None
    """What its edits are worth, where that was found out."""
    minimal: bool = False
    """Whether it is exported without its useless edits."""

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
            without = f" without {counted(len(self.without), 'useless edit')}" if self.without else ""
            return f"version {self.version.number}{without}"
        why = f" ({self.attempt.decision.told})" if self.attempt.decision else ""
        return f"attempt {self.attempt.id}, which is no version{why},"

    @property
    def without(self) -> tuple[str, ...]:
        """The edits that the exported kernel does without."""
        return self.ablation.dropped if self.ablation and self.minimal else ()

    @property
    def model(self) -> str:
        """The model and the phase that the run is for, in words; empty for none."""
        return model_of(self.run)

    @property
    def function(self) -> str:
        """Name of the public function that the version is for."""
        return public_function(self.problem)


def choose(
    run: Run, versions: Sequence[Version], attempt: Attempt, measured: Measured | None = None,
    ablation: Ablation | None = None, *, minimal: bool = False,
) -> Chosen:  # fmt: skip
    """Return ``attempt`` of ``run``, whose versions are ``versions``, ready to be judged. It need not be a version.

    ``minimal``: without its useless edits, as its ``ablation`` found; what a card measured is of another kernel then.

    Raises ``ExportError`` for a problem that exported packages do not know, and for a source that is not Python.
    """
    problem = get_problem(run.problem)
    if not public_function(problem):
        raise ExportError(
            f"{run.name} is for the problem {problem.name}, which no exported package knows: only dense and selected "
            "attention, their gradients and decoding have a public function"
        )
    accepted = [version.number for version in versions if version.attempt.id == attempt.id]
    line = lineage_of(versions, *(accepted or attempt.parents))
    chosen = Chosen(run, problem, line, attempt, attempt.source, measured, ablation, minimal)
    if ablation and chosen.without:
        chosen = replace(chosen, source=ablation.minimal, measured=None)
    try:
        return replace(chosen, source=tidied(_describing_itself(chosen)))
    except ExportError as error:
        raise ExportError(f"{chosen.label}: {error}") from None


def check_together(chosen: Sequence[Chosen]) -> None:
    """Raise ``ExportError`` unless there is a forward pass for each version that computes gradients."""
    forward = [each for each in chosen if each.problem.entry == each.function]
    for each in chosen:
        of_function = [other for other in forward if other.function == each.function]
        if not of_function:
            raise ExportError(
                f"{each.label} computes gradients of {each.function}: name a version that computes {each.function} too"
            )
        if not any(_taken(each) & _taken(other) for other in of_function):
            raise ExportError(
                f"{each.label} computes gradients that no other version named here needs: its types, head dims, "
                "packing or soft cap are others"
            )


def _taken(chosen: Chosen) -> set[tuple[str, int, int, bool, float]]:
    """Return the types and head dims that a version takes, whether sequences are packed, and the soft cap."""
    problem = chosen.problem
    packed = "cu_seqlens_q" in signature(problem)[1]
    return {
        (case.dtype, case.head_dim, case.head_dim_v or case.head_dim, packed, cap_of(problem))
        for case in problem.correctness_cases
    }


def _describing_itself(chosen: Chosen) -> str:
    """Return the source of a version; where its docstring is still that of the first one, it says what was changed."""
    source, line = chosen.source, chosen.line
    start = line[0].attempt if line else chosen.attempt
    (origin, *_) = [each["origin"] for each in chosen.run.config.get(START, ())] or [""]
    taken = re.fullmatch(r".+[@#]\d+", origin)  # a version or attempt of another run, not a file
    if about(source) != about(start.source) or (start.id == chosen.attempt.id and not taken):
        return source
    steps = [*line[1:], *(() if chosen.version else (chosen.attempt,))]
    changes = [f"- {printable(' '.join(step.change.split())):.110}" for step in steps if step.change.strip()]
    whence = f"\nThat run started from {origin}." if taken else ""
    text = (
        f"{chosen.problem.entry} for the problem {chosen.problem.name} on {chosen.run.target}:\n"
        f"{chosen.mark} of the run {chosen.run.name}.{whence}"
    )
    if changes:
        text += "\n\nWhat the search changed, in order:\n" + "\n".join(changes)
    if chosen.without:
        useless = [f"- {printable(' '.join(each.split())):.110}" for each in chosen.without]
        text += "\n\nOf that, what made it no faster was taken away:\n" + "\n".join(useless)
    try:
        return saying(source, text)
    except (SyntaxError, ValueError):
        return source  # what is wrong with it is said when it is tidied


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
