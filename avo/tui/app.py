"""The application: which screen is shown, and the keys that work everywhere."""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.theme import Theme

from avo.evaluator.evaluators import Evaluator
from avo.evaluator.judges import judge_process
from avo.evaluator.sandbox.isolation import Sandbox
from avo.lineage_db.records import Run
from avo.lineage_db.store import Store
from avo.tui.help import COMMANDS, HelpScreen
from avo.tui.hot_loop import MakeProfiler
from avo.tui.run import RunScreen
from avo.tui.runs import RunsScreen


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
        options: str = "",
        theme_file: Path | None = None,
    ) -> None:
        """Show ``run_name``, or the list of runs. The database is read every ``poll_s`` seconds, less often while
        nothing changes.

        ``profiler`` starts the judge that explains a run's kernels; by default it runs on this machine. ``options`` end
        each command that is copied. The theme is kept in ``theme_file``, if there is one.
        """
        super().__init__()
        self._store_url = store_url
        self._run_name = run_name
        self._poll_s = poll_s
        self._profiler = profiler or _start_judge
        self._clock = clock
        self._options = options
        self._theme_file = theme_file

    def on_mount(self) -> None:
        """Show the first screen, in the theme that was chosen last."""
        kept = _read(self._theme_file)
        if kept in self.available_themes:
            self.theme = kept
        self.theme_changed_signal.subscribe(self, self._keep_theme)
        self.push_screen(self._runs_screen() if self._run_name is None else self._run_screen(self._run_name))

    def _keep_theme(self, theme: Theme) -> None:
        if self._theme_file is None:
            return
        with suppress(OSError):  # a theme that cannot be kept is no reason to stop
            self._theme_file.parent.mkdir(parents=True, exist_ok=True)
            self._theme_file.write_text(f"{theme.name}\n", encoding="utf-8")

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
        return RunScreen(self._store_url, name, self._poll_s, self._profiler, self._clock, self._options)


def _start_judge(run: Run) -> Evaluator:
    """Start a judge in the way that the run itself does."""
    return judge_process(
        run.target,
        run.suite,
        sandbox=Sandbox(run.config.get("sandbox", Sandbox.AUTO)),
        command=run.config.get("evaluator_command"),
    )


def _read(file: Path | None) -> str:
    try:
        return file.read_text(encoding="utf-8").strip() if file else ""
    except (OSError, UnicodeDecodeError):
        return ""


def theme_file() -> Path | None:
    """Return where the theme is kept: ``avo/theme`` in the user's folder of settings; None where there is no home."""
    try:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "avo" / "theme"
    except RuntimeError:
        return None


def run_ui(store_url: str, run_name: str | None, options: str = "") -> None:
    """Open the UI on a run, or on the list of runs, and return when the user quits. ``options`` end copied commands.

    The list waits for a database that has no runs yet. Raises ``UnknownRun`` or ``DatabaseUnavailable`` if the run that
    is asked for cannot be read.
    """
    if run_name is not None:
        with Store.read(store_url) as store:
            store.run(run_name)
    AvoApp(store_url, run_name, options=options, theme_file=theme_file()).run()
