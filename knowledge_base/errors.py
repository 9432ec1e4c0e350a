"""The error of the knowledge base."""


class LibraryError(Exception):
    """A note is missing or malformed, or a document cannot be kept. ``str()`` is one line that says what to do."""
