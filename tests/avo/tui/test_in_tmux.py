"""The terminal UI on a terminal: ``avo ui`` within tmux."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.avo.sample_run import make_sample_run

TMUX = shutil.which("tmux")


class Terminal:
    """A detached tmux session of 80 columns and 24 lines."""

    def __init__(self, socket: Path, command: str, environment: dict[str, str]) -> None:
        self._tmux = (TMUX or "tmux", "-u", "-S", str(socket), "-f", "/dev/null")
        settings = [part for name, value in environment.items() for part in ("-e", f"{name}={value}")]
        self._run("new-session", "-d", "-x", "80", "-y", "24", *settings, command)

    def _run(self, *arguments: str) -> str:
        return subprocess.run((*self._tmux, *arguments), capture_output=True, text=True, check=True).stdout

    def press(self, *keys: str) -> None:
        """Press keys, as tmux calls them."""
        self._run("send-keys", *keys)

    def until(self, *words: str, escapes: bool = False) -> str:
        """Wait until all ``words`` are seen, and return what is seen; the limit only ends a broken test."""
        for _ in range(6000):
            shown = self._run("capture-pane", "-p", *(["-e"] if escapes else []))
            if all(word in shown for word in words):
                return shown
            time.sleep(0.1)
        raise AssertionError(f"{words} do not appear:\n{shown}")

    def close(self) -> None:
        """End everything in the session."""
        subprocess.run((*self._tmux, "kill-server"), capture_output=True, check=False)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    name = make_sample_run(str(tmp_path / "lineage.db"))
    ui = f"{sys.executable} -m avo ui {name} --db {tmp_path}/lineage.db"
    command = f"TERM=dumb {ui}; echo refused with $?; {ui}; echo left with $?; sleep 3600"
    opened = Terminal(tmp_path / "socket", command, {"NO_COLOR": "1", "LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]})
    yield opened
    opened.close()


@pytest.mark.skipif(TMUX is None, reason="no tmux on this machine")
def test_a_run_is_walked_through_in_tmux_without_colour(terminal: Terminal) -> None:
    terminal.until("★ v3", "Version 3", "260")
    terminal.press("k")
    terminal.until("Version 2")
    terminal.press("a")
    terminal.until("2 incorrect", "BLOCK_N 64 -> 128")
    terminal.press("t")
    drawn = terminal.until("● new best 4", escapes=True)
    colours = [code for code in drawn.split("\x1b[")[1:] if code.startswith(("31", "32", "33", "34", "35", "36"))]
    assert not colours
    terminal.press("q")
    shown = terminal.until("left with 0")
    assert "avo ui needs a terminal that can move its cursor" in shown
    assert "refused with 2" in shown
