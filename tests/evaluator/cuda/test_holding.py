"""One judge measures on a card at a time, and a dead one leaves nothing behind."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from avo.evaluator.cuda import holding
from avo.evaluator.cuda.holding import hold
from avo.evaluator.errors import EvaluatorUnavailable
from tests.evaluator.cuda.fake_device import CARD

MINE = replace(CARD, uuid=f"test-{os.getpid()}")


def test_a_card_is_held_until_it_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "_PATIENCE_S", 0.0)
    first = hold(MINE)
    with pytest.raises(EvaluatorUnavailable, match="another judge measures on this Fake H100: wait for its end"):
        hold(MINE)
    hold(replace(MINE, uuid=f"another-{MINE.uuid}")).close()
    first.close()
    hold(MINE).close()


@pytest.mark.long
def test_a_card_is_free_when_its_holder_was_killed() -> None:
    program = (
        "import os, signal\nfrom tests.evaluator.cuda.test_holding import *\n"
        f"held = hold(replace(CARD, uuid={MINE.uuid!r}))\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=600, check=False).returncode == -9
    hold(MINE).close()
