"""Errors of exports. ``str()`` of each is one line, or one for each version, that says what to do."""

from avo.errors import AvoError


class ExportError(AvoError):
    """These versions cannot be exported, or not under this name or to this place."""


class NotExported(AvoError):
    """A version does not pass the judge."""
