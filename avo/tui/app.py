"""The application: which screen is shown, and the keys that work everywhere."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from avo.tui.help import COMMANDS, HelpScreen
from avo.tui.hot_loop import MakeProfiler
from avo.tui.run import RunScreen
from avo.tui.runs import RunsScreen
from evaluator.evaluators import Evaluator, judge_process
from evaluator.isolation import Sandbox
from lineage_db.records import Run
from lineage_db.store import Store


class AvoApp(App[None]):
    """Shows the runs of one database, live while they go on."""

    TITLE = "avo"
    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(
        self,
        store_url: str,
        run_name: str | None,
        *,
        poll_s: float = 1.0,
        profiler: MakeProfiler | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Show ``run_name``, or the list of runs. The database is read every ``poll_s`` seconds, less often while
        nothing changes.

        ``profiler`` starts the judge that explains a run's kernels; by default it runs on this machine.
        """
        super().__init__()
        self._store_url = store_url
        self._run_name = run_name
        self._poll_s = poll_s
        self._profiler = profiler or _start_judge
        self._clock = clock

    def on_mount(self) -> None:
        """Show the first screen."""
        self.push_screen(self._runs_screen() if self._run_name is None else self._run_screen(self._run_name))

    def on_runs_screen_chosen(self, message: RunsScreen.Chosen) -> None:
        """Go from the list to a run."""
        self.switch_screen(self._run_screen(message.run_name))

    def on_run_screen_left(self) -> None:
        """Go back to the list."""
        self.switch_screen(self._runs_screen())

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Offer in the command palette everything that keys do."""
        for title, words, action in COMMANDS:
            on_screen = hasattr(screen, f"action_{action.partition('(')[0]}")
            if on_screen or action in ("help", "quit", "change_theme"):
                yield SystemCommand(title, words, partial(self._do, screen if on_screen else self, action))

    async def _do(self, where: "Screen[object] | AvoApp", action: str) -> None:
        await self.run_action(action, where)

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(HelpScreen())

    def _runs_screen(self) -> RunsScreen:
        return RunsScreen(self._store_url, self._poll_s, self._clock)

    def _run_screen(self, name: str) -> RunScreen:
        return RunScreen(self._store_url, name, self._poll_s, self._profiler, self._clock)


def _start_judge(run: Run) -> Evaluator:
    """Start a judge in the way that the run itself does."""
    return judge_process(
        run.target,
        run.suite,
        sandbox=Sandbox(run.config.get("sandbox", Sandbox.AUTO)),
        command=run.config.get("evaluator_command"),
    )


def run_ui(store_url: str, run_name: str | None) -> None:
    """Open the UI on a run, or on the list of runs, and return when the user quits.

    The list waits for a database that has no runs yet. Raises ``UnknownRun`` or ``DatabaseUnavailable`` if the run that
    is asked for cannot be read.
    """
    if run_name is not None:
        with Store.read(store_url) as store:
            store.run(run_name)
    AvoApp(store_url, run_name).run()
