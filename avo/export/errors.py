"""Why nothing is exported, as exceptions. ``str()`` is a line, or one for each version, that says what to do."""

from avo.errors import AvoError


class ExportError(AvoError):
    """The call is at fault: these versions cannot be exported, or not under this name or to this place."""


class NotExported(AvoError):
    """A version does not pass the judge."""
