"""``python measure.py``: verifies and times a shortlist's kernels, beside what is installed, on this machine's card.

Processes of ``session`` do it one after another, so that a kernel that hangs or breaks the device costs no more than
itself, and so that code and buffers do not lie at the same places throughout. What was found is written after every
round: Ctrl-C, or the end of a Slurm job, loses nothing.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from avo.evaluator.cuda.protocol import late
from avo.evaluator.cuda.shortlist.session import UNGRAPHED, Orders
from avo.evaluator.cuda.shortlist.table import table
from avo.evaluator.evaluation import Status
from avo.evaluator.measurement import FILE, SHORTLIST, UNMEASURED, Entrant, MeasuredCase, Measurement, Sample
from avo.evaluator.serving.child import Child

CHILD = (sys.executable, "-m", "avo.evaluator.cuda.shortlist.session")
SHARES = (0.4, 0.6, 0.8, 1.0)
"""At which shares of the time each process ends. The first also compiles, and opens what later ones find compiled."""
START_S = 180.0
"""How long a process may import torch and triton, and open the card."""
_LOST = 2
"""So many processes may end without a sample and without an entrant's fault."""


class Measuring:
    """One call: what was found so far, and where it is written."""

    def __init__(self, folder: Path, child: Sequence[str]) -> None:
        self._folder, self._child = folder, child
        begun = Measurement.begun((folder / SHORTLIST).read_text(encoding="utf-8"))
        self._began = time.monotonic()
        self.found = replace(begun, began=datetime.now(UTC).isoformat(timespec="seconds"))
        self._entrants = {each.name: each for each in begun.entrants}
        self._samples = list[Sample]()
        self._ungraphed: dict[str, str] = {}
        """Why entrants run without a graph."""
        self.trouble = ""
        """Why nothing more can be measured; empty where something can."""

    def run(self, seconds: float) -> None:
        """Measure for so long, in several processes."""
        kernels, without, lost, session = self._kernels(), list[str](), 0, 0
        for share in SHARES:
            until = self._began + seconds * share
            while (left_s := until - time.monotonic()) > 0 and not self.trouble:
                session += 1
                before, ungraphed = len(self._samples), len(self._ungraphed)
                orders = Orders(
                    self.found.problem,
                    self.found.suite,
                    kernels,
                    session,
                    left_s,
                    tuple(without),
                    dict(self._ungraphed),
                )
                broken = self._session(orders)
                if before < len(self._samples) and share < 1:
                    _say(f"\n{table(self.found)}\n")
                if broken:
                    without.append(broken)
                elif before < len(self._samples):
                    break
                elif ungraphed == len(self._ungraphed):
                    lost += 1
                    if lost == _LOST:
                        self.trouble = self.trouble or "nothing runs to its end: measure.log says more"

    def _kernels(self) -> dict[str, str]:
        """Return the files of the kernels by name; those that were edited are not run, and have no verdict."""
        found = {}
        for each in self.found.kernels:
            file = self._folder / "kernels" / f"{each.name}.py"
            if file.exists() and file.read_text(encoding="utf-8") == each.source:
                found[each.name] = str(file)
            else:
                self._judge(each.name, UNMEASURED, f"kernels/{file.name} is not as the shortlist has it")
        return found

    def _session(self, orders: Orders) -> str:
        """Let a process measure; return the entrant that it could not go on after."""
        doing, limit_s, ready = "", START_S, False  # for importing torch and triton, and opening the card
        with (self._folder / "measure.log").open("ab") as log:
            words = (*self._child, json.dumps(asdict(orders)))
            child = Child(words, self._environment(), "the process that measures", log)
            try:
                while line := _read(child.next_line(limit_s)):
                    ready = ready or "ready" in line
                    if "doing" in line:
                        doing, limit_s = line["entrant"], line["limit_s"]
                    self._hear(line)
                code = child.code(START_S)
            except TimeoutError:
                if doing:
                    self._judge(doing, Status.TIMED_OUT, f"it did not end within {limit_s:.0f} s")
                return doing
            finally:
                child.kill()
        if code in (0, UNGRAPHED, -signal.SIGKILL, -signal.SIGTERM) or not ready or self.trouble:
            return ""  # nobody's fault among the entrants: killed by others, perhaps for want of memory
        if doing and self._entrants[doing].status in (Status.CORRECT, UNMEASURED):
            self._judge(doing, Status.CRASHED, "the process that ran it died: measure.log says more")
        return doing

    def _hear(self, line: dict[str, Any]) -> None:
        """Take what a process says: see ``session``."""
        match line:
            case {"ready": ready}:
                cases = tuple(MeasuredCase(**case) for case in ready.pop("cases"))
                self.found = replace(self.found, cases=cases, **ready)
            case {"doing": words}:
                _say(words)
            case {"entrant": name, "status": status, "message": message, "release": release}:
                self._judge(name, status, message, release)
            case {"sample": sample}:
                self._keep(Sample(**sample))
            case {"entrant": name, "ungraphed": why}:
                self._ungraphed.setdefault(name, why)
                (first, why), *_ = self._ungraphed.items()
                self.found = replace(self.found, ungraphed=f"{first}: {why}")
            case {"others": others}:
                self.found = replace(self.found, others=tuple(sorted({*self.found.others, *others})))
            case {"error": why}:
                self.trouble = why

    def _environment(self) -> dict[str, str]:
        path = [each for each in sys.path if each]
        kept = {"TRITON_CACHE_DIR": str(self._folder / ".cache")}
        return {**kept, **os.environ, "PYTHONPATH": os.pathsep.join(path)}

    def _judge(self, name: str, status: str, message: str, release: str = "") -> None:
        """Note a verdict; a fault stays one."""
        former = self._entrants.get(name, Entrant(name, UNMEASURED, release=release))
        if former.status in (UNMEASURED, Status.CORRECT) and not (status == UNMEASURED and former.status != status):
            self._entrants[name] = replace(former, status=str(status), message=message)
            self.write()

    def _keep(self, sample: Sample) -> None:
        self._samples.append(sample)
        if self._entrants[sample.entrant].status == UNMEASURED:
            self._judge(sample.entrant, Status.CORRECT, "")
        last = self._samples[-2] if len(self._samples) > 1 else sample
        if last.round != sample.round:
            self.write()

    def write(self) -> None:
        """Write what was found, at once or not at all."""
        balance = Counter[str]()
        for sample in self._samples:
            balance[sample.entrant] += 2 * late(sample.us / 1e6, sample.wall_us / 1e6) - 1
        why = "most runs took another time by the host's clock: is the host busy?"
        entrants = [
            replace(each, status=UNMEASURED, message=why)
            if balance[each.name] > 0 and each.status == Status.CORRECT
            else each
            for each in self._entrants.values()
        ]
        self.found = replace(
            self.found,
            entrants=tuple(entrants),
            samples=tuple(self._samples),
            seconds=round(time.monotonic() - self._began, 3),
        )
        new = self._folder / f".{FILE}.new"
        new.write_text(self.found.to_json(), encoding="utf-8")
        new.replace(self._folder / FILE)


def main(arguments: Sequence[str] | None = None, folder: Path | None = None, child: Sequence[str] = CHILD) -> int:
    """Measure, print tables and write ``measured.json``. Exit code 2 where nothing can be measured."""
    folder = (folder or Path.cwd()).absolute()
    parser = argparse.ArgumentParser(prog="measure.py", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--minutes", type=_minutes, default=5.0, help="how long to measure (default: %(default)g)")
    seconds = 60 * parser.parse_args(arguments).minutes
    out = folder / FILE
    if out.exists():  # of an earlier call
        out.replace(out.with_name(f"{out.stem}-{out.stat().st_mtime:.0f}{out.suffix}"))
    measuring = Measuring(folder, child)
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():  # a notebook's other threads take no signals
            # Slurm sends it before it kills: it ends like Ctrl-C.
            former = signal.signal(signal.SIGTERM, signal.default_int_handler)
            stack.callback(signal.signal, signal.SIGTERM, former)
        try:
            measuring.run(seconds)
        except KeyboardInterrupt:
            print("\ninterrupted: what was measured until now is kept")
    if not measuring.found.samples:
        for each in measuring.found.entrants:
            if each.message:
                print(f"{each.name}: {each.status}: {each.message}")
        print(f"measure.py: {measuring.trouble or 'nothing was measured'}", file=sys.stderr)
        return 2
    measuring.write()
    if measuring.trouble:
        print(f"measure.py: {measuring.trouble}", file=sys.stderr)
    print(f"\n{table(measuring.found)}\n\n{out} has every run: avo ingest {FILE}")
    return 0


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e5:
        raise argparse.ArgumentTypeError(f"{text} should be a number of minutes above 0")
    return value


def _read(text: str) -> dict[str, Any]:
    """Return what a process says in a line; nothing at its end, or where it died within one."""
    try:
        said: dict[str, Any] = json.loads(text)
    except ValueError:
        return {}
    return said


def _say(text: str) -> None:
    """Tell how far it is: on a terminal in one line, elsewhere by the tables alone."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="\n" if "\n" in text else "", flush=True)
    elif "\n" in text:
        print(text, flush=True)
