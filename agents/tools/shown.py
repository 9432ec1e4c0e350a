"""Remembers what the caller of the tools has read of late, so that nothing long is sent twice."""

from collections.abc import Sequence

_LATELY = 30
"""After so many calls a text is sent again: callers whose context is shortened do not always say so."""
_SHORT = 400
"""Texts with fewer characters are always sent."""


class Shown:
    """Texts that were sent, each with the number of its call."""

    def __init__(self) -> None:
        self._calls = 0
        self._sent: dict[tuple[str, str], tuple[int, int]] = {}

    def add(self, source: str) -> None:
        """Note that the caller has a source in full."""
        self._sent["source", source] = self._calls, 0

    def has(self, source: str) -> bool:
        """Whether the caller has a source in full."""
        return len(source) > _SHORT and self._lately("source", source) is not None

    def answer(self, name: str, arguments: str, result: str) -> str:
        """Return the result of a call, or one line where the same call had the same result of late."""
        self._calls += 1
        ago, key = self._lately(name, arguments), hash(result)
        if ago is not None and len(result) > _SHORT and self._sent[name, arguments][1] == key:
            first = result.partition("\n")[0][:_SHORT]
            return (
                f"{first}\n[the rest is as {ago} calls before: you have it above. Change something, or ask for a part]"
            )
        self._sent[name, arguments] = self._calls, key
        return result

    def keep(self, texts: Sequence[str]) -> None:
        """Forget what is not among ``texts``, or in one of them: they are what the caller has left."""
        whole = set(map(hash, texts))
        self._sent = {
            what: sent
            for what, sent in self._sent.items()
            if (any(what[1] in text for text in texts) if what[0] == "source" else sent[1] in whole)
        }

    def forget(self) -> None:
        """Forget all: the caller has lost it."""
        self._sent.clear()

    def _lately(self, kind: str, text: str) -> int | None:
        """Return how many calls ago this was sent; None where that is long ago, or never was."""
        sent = self._sent.get((kind, text))
        ago = None if sent is None else self._calls - sent[0]
        return ago if ago is not None and ago <= _LATELY else None
