"""Ablated: the record of what each edit of a version is worth in it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """An edit of a version, and what the version is without it."""

    name: str
    """The move, or the first line that the hunk adds or removes."""
    worth: float | None
    """By how much the edit makes the version faster, 0.03 being 3 percent; None where it cannot be taken away alone."""
    width: float = 0.0
    """The least worth that acceptance would take: the resolution of the two kernels, or the run's ``min_gain``."""
    useless: bool = False
    """Whether acceptance would not take the version over the kernel without the edit."""
    why: str = ""
    """Why it cannot be taken away, in words."""

    @property
    def spread(self) -> float:
        """What the worth is known to, to either side: the width is that of the ratio of two speeds."""
        return self.width * max(1.0, 1.0 + (self.worth or 0.0))

    @property
    def words(self) -> str:
        """What there is to say besides the worth; empty for an edit that carries the version."""
        if self.worth is None or not self.useless:
            return self.why
        return "slows it down" if self.worth < -self.width else "worth nothing, within the resolution"


@dataclass(frozen=True, slots=True)
class Ablation:
    """What each edit of a version is worth in it, and the version without the useless ones."""

    run: str
    version: int
    line: tuple[int, ...]
    """The versions from a seed to it, each made from the one before: of several parents, the first."""
    merged: bool
    """Whether one of these has other parents too, whose edits are not told apart."""
    ranked: bool
    """Whether means over neighbours were compared, as before acceptance, and not single predictions."""
    tflops: float
    """Of the version, as it was judged beside the others."""
    edits: tuple[Edit, ...]
    """Moves in the order in which they were made, or hunks from top to bottom."""
    moves: bool
    """Whether edits are moves. Where those repeated make another source, they are hunks of its difference to the seed.
    """
    left_out: int
    """Number of edits that were kept since there are too many."""
    dropped: tuple[str, ...]
    """The edits that the minimal kernel does without."""
    minimal: str
    """Its source; that of the version where no edit can go."""
    minimal_tflops: float
    releases: str
    """The releases of AVO and of what compiles kernels that judged it, in words."""

    @property
    def title(self) -> str:
        """What the edits are, and of which versions: ``mha-h100@3: what each of its moves is worth in it``."""
        kind = "moves" if self.moves else "hunks of its difference to the seed"
        line = f", of the line {', '.join(f'v{number}' for number in self.line)}: other parents are not followed"
        return f"{self.run}@{self.version}: what each of its {kind} is worth in it{line if self.merged else ''}"
