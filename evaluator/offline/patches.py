"""Temporary changes to attributes of modules and classes."""

import threading
from typing import Any

_MISSING = object()


class Patches:
    """Sets attributes of modules and classes and restores them."""

    def __init__(self) -> None:
        self._saved: list[tuple[Any, str, object]] = []

    @property
    def applied(self) -> bool:
        """Whether anything is changed at present."""
        return bool(self._saved)

    def set(self, owner: Any, name: str, value: object) -> None:
        """Set ``owner.name``; ``undo`` restores the owner's own attribute."""
        self._saved.append((owner, name, vars(owner).get(name, _MISSING)))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Restore everything, the latest change first."""
        while self._saved:
            owner, name, value = self._saved.pop()
            if value is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


active = threading.Lock()
"""Held while a session is active: triton's driver and torch's functions belong to the process, not to a thread."""
