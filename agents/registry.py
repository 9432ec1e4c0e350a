"""Operators by name: the built-in ones, and those of installed packages.

A package adds an operator with an entry point in the group ``avo.operators`` whose object, called without arguments,
returns a ``VariationOperator``. Built-in names cannot be taken over.
"""

from collections.abc import Callable
from importlib.metadata import entry_points

from avo.agents.agentic import Agentic
from avo.agents.command import Command
from avo.agents.errors import InvalidOperator, UnknownOperator
from avo.agents.mutate import Mutate
from avo.agents.operator import COMMAND_OPERATOR, VariationOperator
from avo.agents.settings import Settings
from avo.agents.single_turn import SingleTurn
from avo.evaluator.renamed import with_new_name

GROUP = "avo.operators"
_WITH_MODELS: dict[str, Callable[[Settings], VariationOperator]] = {"agent": Agentic, "single_turn": SingleTurn}
_BUILT_IN: dict[str, Callable[[Settings], VariationOperator]] = {
    "mutate": lambda _: Mutate(),
    **_WITH_MODELS,
    COMMAND_OPERATOR: Command,
}


def operator_names() -> tuple[str, ...]:
    """Return every known name: built-in ones first, then plugins alphabetically."""
    return (*_BUILT_IN, *sorted({point.name for point in entry_points(group=GROUP)} - _BUILT_IN.keys()))


def adapts(operator: VariationOperator) -> bool:
    """Return whether ``operator`` can adapt a kernel with another signature (``Brief.transferred``).

    An operator that cannot says ``adapts = False``.
    """
    return bool(getattr(operator, "adapts", True))


def asks_models(name: str) -> bool:
    """Return whether the operator called ``name`` uses language models."""
    return name in _WITH_MODELS


def reads_memory(name: str) -> bool:
    """Return whether the operator called ``name`` may read ``Brief.directions``."""
    return name != Mutate.name


def get_operator(name: str, settings: Settings | None = None) -> VariationOperator:
    """Return a new operator called ``name``; ``settings`` are for those that ask models.

    Raises ``UnknownOperator`` with the known names, or ``InvalidOperator`` when a plugin cannot be loaded.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name](settings or Settings())
    for point in entry_points(group=GROUP, name=name):
        try:
            operator = point.load()()
        except Exception as error:  # another package's code: whatever it raises, the user needs one line
            why = with_new_name(repr(error))
            raise InvalidOperator(f"operator {name!r} ({point.value}) cannot be loaded: {why}") from error
        if not callable(getattr(operator, "vary", None)):
            raise InvalidOperator(f"operator {name!r} ({point.value}) has no method vary(brief)")
        return operator  # type: ignore[no-any-return]
    raise UnknownOperator(name, operator_names())
