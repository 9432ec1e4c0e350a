"""The feed: a thread that polls the database for a screen and posts one message for each piece of news."""

from collections.abc import Callable
from threading import Event
from typing import Generic, TypeVar

from textual.message import Message
from textual.screen import Screen

from avo.snapshot import follow
from lineage_db.errors import StoreError
from lineage_db.store import Store

T = TypeVar("T")


class FeedScreen(Screen[None], Generic[T]):
    """A screen that shows what ``read`` returns and is told when it changes."""

    class News(Message):
        """The database was read: a new value, or why there is none."""

        def __init__(self, value: object) -> None:
            super().__init__()
            self.value = value

    def __init__(self, store_url: str, read: Callable[[Store, T | None], T], poll_s: float) -> None:
        super().__init__()
        self._store_url = store_url
        self._read = read
        self._poll_s = poll_s
        self._stop = Event()

    def on_mount(self) -> None:
        """Start the thread."""
        self.run_worker(self._follow, thread=True)

    def on_unmount(self) -> None:
        """Let the thread end."""
        self._stop.set()

    def _follow(self) -> None:
        follow(self._store_url, self._read, self._post, self._stop, self._poll_s)

    def _post(self, news: T | StoreError) -> None:
        self.post_message(self.News(news))
