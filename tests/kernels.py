"""The sources that tests judge: the kernels of ``corpora/``, and edits of a seed."""

from dataclasses import dataclass
from pathlib import Path

from avo.evaluator.evaluation import Status
from avo.evaluator.problems.mutant import Mutant
from avo.seeds import seed_source

CORPORA = Path(__file__).parents[1] / "corpora"
SEED = seed_source("mha")
ENTRY = "def attention(q, k, v, out, lse, *, causal: bool, scale: float) -> None:\n"


def stored(name: str) -> str:
    """Return the text of a kernel of ``corpora/``, such as ``honest/mha/tuned``."""
    return (CORPORA / f"{name}.py").read_text(encoding="utf-8")


def stored_in(folder: str) -> dict[str, str]:
    """Return the texts of the kernels in a folder of ``corpora/``, by file name."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted((CORPORA / folder).glob("*.py"))}


@dataclass(frozen=True)
class Attack:
    """A candidate and the verdict that it deserves."""

    source: str
    status: Status
    message: str
    """A regular expression that the judge's message matches."""


def before(code: str) -> str:
    """Return the seed with ``code`` ahead of it, run at import."""
    return f"{code}\n{SEED}"


def within(code: str) -> str:
    """Return the seed with ``code`` at the top of its entry function."""
    lines = "".join(f"    {line}\n" for line in code.splitlines())
    return SEED.replace(ENTRY, ENTRY + lines)


def around(code: str) -> str:
    """Return the seed with ``code`` behind it, which calls the seed's entry as ``honest`` and defines its own."""
    return SEED.replace("def attention(", "def honest(") + f"\n\n{code}\n"


def edited(*edits: tuple[str, str], source: str = SEED) -> str:
    """Return ``source``, each ``old`` that occurs once replaced by its ``new``."""
    return Mutant(edits, "").of(source)
