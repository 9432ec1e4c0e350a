"""What the commands share."""

import io
from queue import SimpleQueue

import pytest
from rich.console import Console

from avo.cli import common
from avo.evaluator.evaluators import Progress


class Lines(io.StringIO):
    """Hands over what is written, of which ``capsys`` may lose what a thread writes while it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.found = SimpleQueue[str]()

    def write(self, text: str) -> int:
        self.found.put(text)
        return len(text)


def test_what_takes_long_says_how_far_it_is_also_where_it_is_piped(monkeypatch: pytest.MonkeyPatch) -> None:
    piped, said = Lines(), ""
    monkeypatch.setattr(common, "TELL_S", 0.01)
    monkeypatch.setattr(common, "err", Console(file=piped, width=80))
    with common.telling("judging kernel.py") as tell:
        for line in ("judging kernel.py ...\n", "judging kernel.py: 2 of 9 checks\n"):
            while line not in said:
                said += piped.found.get(timeout=60)
            tell(Progress(2, 9))
    while not piped.found.empty():
        said += piped.found.get()
    assert said == "judging kernel.py ...\njudging kernel.py: 2 of 9 checks\n"


def test_what_is_done_soon_is_piped_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    with common.telling("judging kernel.py") as tell:
        tell(Progress(2, 9))
    assert capsys.readouterr().err == ""
