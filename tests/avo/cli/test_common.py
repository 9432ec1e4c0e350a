"""What the commands share."""

import pytest

from avo.cli import common
from avo.evaluator.evaluators import Progress


def test_what_takes_long_says_how_far_it_is_also_where_it_is_piped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "TELL_S", 0.01)
    said = ""
    with common.telling("judging kernel.py") as tell:
        for line in ("judging kernel.py ...\n", "judging kernel.py: 2 of 9 checks\n"):
            while line not in said:
                said += capsys.readouterr().err
            tell(Progress(2, 9))
    assert said + capsys.readouterr().err == "judging kernel.py ...\njudging kernel.py: 2 of 9 checks\n"


def test_what_is_done_soon_is_piped_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    with common.telling("judging kernel.py") as tell:
        tell(Progress(2, 9))
    assert capsys.readouterr().err == ""
