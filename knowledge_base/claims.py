"""Claims of notes as data: by how much one kernel is predicted to be faster than another.

One line of a note's front matter each::

    claim: h100 8k-full: mha/plain + exp2 + stages(3) => descriptors: +8% within 3

The kernel before ``=>`` is compared with what the steps after it make of it. A step is a kernel, ``PROBLEM/SEED`` or
``PROBLEM:PATH`` in the repository; or a move, in its first variant or the first whose label has the words in
parentheses; or ``NAME=VALUE``, which sets a constant of the kernel's module. ``python -m bench.claims`` works them out
and ``--write`` writes the gains of the model of the day into the notes.
"""

import re
from dataclasses import dataclass

_FORM = re.compile(
    r"(?P<target>\w+) (?P<case>[\w-]+): (?P<before>.+) => (?P<after>.+): "
    r"(?P<gain>[+-]\d+(?:\.\d+)?)% within (?P<tolerance>\d+(?:\.\d+)?)"
)
_POINT = 1.0
"""By how much, in percentage points, a gain and a loss may differ and still be called the same."""
FORM = "TARGET CASE: KERNEL + MOVE => MOVE: +8% within 3"


@dataclass(frozen=True, slots=True)
class Claim:
    """By how much one kernel is predicted to be faster than another on one benchmark case."""

    target: str
    case: str
    before: tuple[str, ...]
    """The steps that make the slower kernel, the first a kernel."""
    after: tuple[str, ...]
    """The steps that make the faster one of it."""
    gain: float
    """In percent; negative where the kernel becomes slower."""
    tolerance: float
    """How far the gain may be off, in percentage points."""

    @property
    def problem(self) -> str:
        """Name of the problem that the kernels are for."""
        return re.split("[/:]", self.before[0])[0]

    def holds(self, gain: float) -> bool:
        """Whether ``gain``, in percent, is what is claimed: near enough, and no loss where a gain is claimed or a gain
        where a loss is, unless they are within a point.
        """
        off = abs(gain - self.gain)
        return off <= self.tolerance and (gain * self.gain >= 0 or off <= _POINT)

    def __str__(self) -> str:
        before, after = " + ".join(self.before), " + ".join(self.after)
        return f"{self.target} {self.case}: {before} => {after}: {self.gain:+g}% within {self.tolerance:g}"


def read_claim(text: str) -> Claim:
    """Parse a claim; raise ``ValueError`` for one that has not the form."""
    found = _FORM.fullmatch(text)
    if found is None or not re.match("[^ ]+[/:]", found["before"]):
        raise ValueError(text)
    before, after = (tuple(found[part].split(" + ")) for part in ("before", "after"))
    return Claim(found["target"], found["case"], before, after, float(found["gain"]), float(found["tolerance"]))
