"""An input line at the bottom of the screen."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Label


class Prompt(Horizontal):
    """Hidden until it is needed. Reports the text as it is typed, and when the input is submitted or cancelled."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "give_up", "Cancel")]

    class Typed(Message):
        """The text has changed; ``done`` when the input is over."""

        def __init__(self, purpose: str, text: str, *, done: bool) -> None:
            super().__init__()
            self.purpose = purpose
            self.text = text
            self.done = done

    def __init__(self) -> None:
        super().__init__(id="prompt")
        self._purpose = ""
        self._before = ""

    def compose(self) -> ComposeResult:
        """Lay out the line."""
        yield Label(id="prompt-label", markup=False)
        yield Input(id="prompt-input", compact=True, select_on_focus=False)

    def ask(self, purpose: str, label: str, text: str = "") -> None:
        """Show the input. ``purpose`` is part of each message; ``text`` is reported if the user cancels."""
        self._purpose, self._before = purpose, text
        self.query_one("#prompt-label", Label).update(f"{label} ")
        field = self.query_one(Input)
        with field.prevent(Input.Changed):
            field.value = text
        field.cursor_position = len(text)
        self.add_class("shown")
        field.focus()

    def on_input_changed(self, message: Input.Changed) -> None:
        """Report the text."""
        message.stop()
        if self.has_class("shown"):
            self.post_message(self.Typed(self._purpose, message.value, done=False))

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Report the text and hide."""
        message.stop()
        self._done(message.value)

    def action_give_up(self) -> None:
        """Restore the text from before."""
        self._done(self._before)

    def _done(self, text: str) -> None:
        self.remove_class("shown")
        self.post_message(self.Typed(self._purpose, text, done=True))
