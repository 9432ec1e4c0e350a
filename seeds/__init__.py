"""Seeds: the kernels that a search starts from, one folder a problem."""

from importlib.resources import files

_DEFAULT = {"mha": "mha/plain.py"}


def seed_source(problem: str) -> str:
    """Return the source of the problem's default seed; raise ``KeyError`` when it has none."""
    return (files(__name__) / _DEFAULT[problem]).read_text(encoding="utf-8")
