"""``python measure.py``: verifies and times a shortlist's kernels, beside what is installed, on this machine's card.

Workers do it one after another, each a ``Session``, so that a kernel that hangs or breaks the device costs no more than
itself, and so that code and buffers do not lie at the same places throughout. What was found is written after every
round: Ctrl-C, or the end of a Slurm job, loses nothing.
"""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from avo.evaluator.cuda.shortlist.book import Book
from avo.evaluator.cuda.shortlist.session import Session, say
from avo.evaluator.cuda.shortlist.table import table
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.measurement import FILE, UNMEASURED
from avo.evaluator.serving.child import Child

WORKER = (sys.executable, "-m", "avo.evaluator.cuda.worker", "--alone")
SHARES = (0.4, 0.6, 0.8, 1.0)
"""At which shares of the time each session ends. The first also compiles, and opens what later ones find compiled."""
_LOST = 2
"""So many sessions may end without a sample and without an entrant's fault."""


class Measuring:
    """One call in ``folder``; ``worker``: the command of one."""

    def __init__(self, folder: Path, worker: Sequence[str]) -> None:
        self._folder, self._worker = folder, worker
        self.book = Book(folder)
        self.trouble = ""
        """Why nothing more can be measured; empty where something can."""

    def run(self, seconds: float) -> None:
        """Measure for so long, in several sessions."""
        kernels, lost, number = self._kernels(), 0, 0
        for share in SHARES:
            until = self.book.began + seconds * share
            while (left_s := until - time.monotonic()) > 0 and not self.trouble:
                number += 1
                before, known = len(self.book.samples), self.book.learnt()
                whole = self._session(kernels, number, left_s)
                sampled = len(self.book.samples) > before
                if sampled and share < 1:
                    say(f"\n{table(self.book.found)}\n")
                if sampled and (whole or known == self.book.learnt()):
                    break
                if known == self.book.learnt():
                    lost += 1
                    if lost == _LOST:
                        self.trouble = self.trouble or "nothing runs to its end: measure.log says more"

    def _kernels(self) -> dict[str, Path]:
        """Return the files of the kernels by name; those that were edited are not run, and have no verdict."""
        found = {}
        for each in self.book.found.kernels:
            file = self._folder / "kernels" / f"{each.name}.py"
            if file.exists() and file.read_text(encoding="utf-8") == each.source:
                found[each.name] = file
            else:
                self.book.judge(each.name, UNMEASURED, f"kernels/{file.name} is not as the shortlist has it")
        return found

    def _session(self, kernels: Mapping[str, Path], number: int, seconds: float) -> bool:
        """Let a worker measure; return whether nothing has ended it before its time."""
        with (self._folder / "measure.log").open("ab") as log:
            child = Child(self._worker, self._environment(), "the process that measures", log)
            try:
                session = Session(child, self.book, kernels, number, seconds)
                session.begin()
                return session.run()
            except EvaluatorUnavailable as error:
                self.trouble = str(error)
                return False
            finally:
                child.kill()

    def _environment(self) -> dict[str, str]:
        path = [each for each in sys.path if each]
        kept = {"TRITON_CACHE_DIR": str(self._folder / ".cache")}
        return {**kept, **os.environ, "PYTHONPATH": os.pathsep.join(path)}


def main(arguments: Sequence[str] | None = None, folder: Path | None = None, worker: Sequence[str] = WORKER) -> int:
    """Measure, print tables and write ``measured.json``. Exit code 2 where nothing can be measured."""
    folder = (folder or Path.cwd()).absolute()
    parser = argparse.ArgumentParser(prog="measure.py", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--minutes", type=_minutes, default=5.0, help="how long to measure (default: %(default)g)")
    seconds = 60 * parser.parse_args(arguments).minutes
    out = folder / FILE
    if out.exists():  # of an earlier call
        out.replace(out.with_name(f"{out.stem}-{out.stat().st_mtime:.0f}{out.suffix}"))
    measuring = Measuring(folder, worker)
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():  # a notebook's other threads take no signals
            # Slurm sends it before it kills: it ends like Ctrl-C.
            former = signal.signal(signal.SIGTERM, signal.default_int_handler)
            stack.callback(signal.signal, signal.SIGTERM, former)
        try:
            measuring.run(seconds)
        except KeyboardInterrupt:
            print("\ninterrupted: what was measured until now is kept")
    if not measuring.book.found.samples:
        for each in measuring.book.found.entrants:
            if each.message:
                print(f"{each.name}: {each.status}: {each.message}")
        print(f"measure.py: {measuring.trouble or 'nothing was measured'}", file=sys.stderr)
        return 2
    measuring.book.write()
    if measuring.trouble:
        print(f"measure.py: {measuring.trouble}", file=sys.stderr)
    print(f"\n{table(measuring.book.found)}\n\n{out} has every run: avo ingest {FILE}")
    return 0


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e5:
        raise argparse.ArgumentTypeError(f"{text} should be a number of minutes above 0")
    return value
