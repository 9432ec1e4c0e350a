"""Targets as users name them: what this release can judge for, and what it says to the one it cannot."""

from avo.errors import ConfigError
from evaluator.target import TARGETS, Target, get_target


def find_target(name: str) -> Target:
    """Return the target called ``name``; raise ``ConfigError`` for ``cuda``, ``UnknownTarget`` for what is none."""
    if name == "cuda":
        raise ConfigError(
            "target 'cuda': measuring on a GPU is not part of this version; "
            f"name an architecture to predict for: {', '.join(TARGETS)}"
        )
    return get_target(name)
