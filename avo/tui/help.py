"""The help screen, which lists the keys, and the commands of the palette, which do the same."""

from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

_KEYS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "everywhere",
        (
            ("up down, j k", "move, or scroll"),
            ("pgup pgdn home end", "move further"),
            ("enter", "open, go into, fold or unfold"),
            ("escape", "go back"),
            ("z", "give the part next to a list the whole width"),
            ("tab", "next part of the screen"),
            ("l t a s m w", "the views, by their first letters"),
            ("y", "copy the source, the digest or a command"),
            ("r", "list of runs"),
            ("ctrl+p", "all commands by name"),
            ("q", "quit"),
        ),
    ),
    (
        "list of runs",
        (
            ("/  f", "show only runs with all of some words"),
            ("o", "newest, fastest, most gained or oldest first"),
        ),
    ),
    (
        "lineage",
        (
            ("b", "jump to the best version"),
            ("/  > <", "find words, v12, >0.5 (percent); next, previous"),
            ("f", "show only versions that match such words"),
            ("1 2 3 4", "scores, source, diff to parent, hot loop"),
            ("v", "diff with another version"),
            ("d", "diff side by side, or unified"),
            ("p", "have the judge profile the hot loop"),
            ("o n", "its machine code, PTX, what binds it; next case"),
        ),
    ),
    (
        "attempts",
        (
            ("/  f", "show only attempts with all of some words"),
            ("o", "newest, fastest or oldest first"),
            ("d", "the source, or its difference to the parent"),
            ("v", "difference to another attempt (38) or version (v4)"),
        ),
    ),
    ("trajectory", (("c", "show or hide the lines of the cases"),)),
    ("steps, memory", (("e", "unfold or fold everything"),)),
    (
        "signs",
        (
            ("★ ●", "the best version; another"),
            ("◆", "the supervisor stepped in before this version"),
            ("┄", "a published figure that versions have to pass"),
        ),
    ),
)

COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("Lineage", "Versions as a tree (l)", "view('lineage')"),
    ("Trajectory", "Every attempt and the running best as a plot (t)", "view('trajectory')"),
    ("Attempts", "Everything tried, failures by reason (a)", "view('attempts')"),
    ("Steps", "Steps and their transcripts (s)", "view('steps')"),
    ("Memory", "Notes and the supervisor (m)", "view('memory')"),
    ("Workers", "What is running (w)", "view('workers')"),
    ("Best version", "Jump to it (b)", "best"),
    ("Find", "Find versions or attempts by words (/)", "ask('find', 'find:')"),
    ("Filter", "Show only some versions or attempts (f)", "ask('filter', 'filter:')"),
    ("Diff with", "Compare with another version or attempt (v)", "ask('compare', 'diff with:')"),
    ("Side by side", "Diff side by side, or unified; for an attempt, diff or source (d)", "sides"),
    ("Copy", "Copy the source, the digest or a command (y)", "copy"),
    ("Zoom", "Give the part next to a list the whole width (z)", "zoom"),
    ("Profile", "Have the judge profile the hot loop (p)", "profile"),
    ("Hot loop: next part", "Machine code, PTX, what binds it (o)", "part"),
    ("Hot loop: next case", "The same in the next case (n)", "case"),
    ("Runs", "List of runs (r)", "runs"),
    ("Help", "The keys (?)", "help"),
    ("Theme", "Other colours", "change_theme"),
    ("Quit", "Leave (q)", "quit"),
)
"""Title, help text and action of each command in the palette."""


class HelpScreen(ModalScreen[None]):
    """Shows the keys until one is pressed."""

    # The keys of the application do not reach through a modal screen.
    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape,question_mark,enter", "dismiss", "Close"),
        ("q", "app.quit", "Quit"),
    ]

    def compose(self) -> ComposeResult:
        """Lay out the table."""
        table = Table.grid(padding=(0, 2, 0, 0))
        for place, keys in _KEYS:
            table.add_row(Text(place, "bold underline"))
            for key, meaning in keys:
                table.add_row(Text(f" {key}", "bold"), Text(meaning))
        with VerticalScroll(id="help-box") as box:
            box.border_title = "Keys"
            box.border_subtitle = "up down: more, escape: close"
            yield Static(table, id="help")

    def on_mount(self) -> None:
        """Let the keys scroll."""
        self.query_one("#help-box").focus()
