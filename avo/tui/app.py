"""The application: which screen is shown, and the keys that work everywhere."""

from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType

from avo.tui.help import HelpScreen
from avo.tui.run import RunScreen
from avo.tui.runs import RunsScreen
from lineage_db.store import Store


class AvoApp(App[None]):
    """Looks at the runs of one database, live while they go on."""

    TITLE = "avo"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, store_url: str, run_name: str | None, *, poll_s: float = 1.0) -> None:
        """Show ``run_name``, or the list of runs; the database is asked for news every ``poll_s`` seconds."""
        super().__init__()
        self._store_url = store_url
        self._run_name = run_name
        self._poll_s = poll_s

    def on_mount(self) -> None:
        """Show the first screen."""
        if self._run_name is None:
            self.push_screen(RunsScreen(self._store_url, self._poll_s))
        else:
            self.push_screen(RunScreen(self._store_url, self._run_name, self._poll_s))

    def on_runs_screen_chosen(self, message: RunsScreen.Chosen) -> None:
        """Go from the list to a run."""
        self.switch_screen(RunScreen(self._store_url, message.run_name, self._poll_s))

    def on_run_screen_left(self) -> None:
        """Go back to the list."""
        self.switch_screen(RunsScreen(self._store_url, self._poll_s))

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(HelpScreen())


def run_ui(store_url: str, run_name: str | None) -> None:
    """Open the UI on a run, or on the list of runs, and return when the user quits.

    A database without runs is waited for; raises ``UnknownRun`` or ``DatabaseUnavailable`` when a run is asked for that
    cannot be had.
    """
    if run_name is not None:
        with Store.open(store_url, create=False) as store:
            store.run(run_name)
    AvoApp(store_url, run_name).run()
