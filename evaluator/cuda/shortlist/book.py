"""What was found of a shortlist until now, and the file that has it."""

import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from avo.evaluator.cuda.libraries import library_called
from avo.evaluator.cuda.protocol import late
from avo.evaluator.evaluation import Status
from avo.evaluator.measurement import FILE, SHORTLIST, UNMEASURED, Entrant, Measurement, Sample


class Book:
    """Verdicts and samples of one call, written to ``measured.json`` in ``folder`` after each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        begun = Measurement.begun((folder / SHORTLIST).read_text(encoding="utf-8"))
        self.began = time.monotonic()
        self.found = replace(begun, began=datetime.now(UTC).isoformat(timespec="seconds"))
        self._entrants = {each.name: each for each in begun.entrants}
        self.samples = list[Sample]()
        self.ungraphed: dict[str, str] = {}
        """Why entrants run without a graph."""

    def learnt(self) -> tuple[int, int]:
        """Return how many entrants are left out, and how many run without a graph."""
        return sum(map(self.left_out, self._entrants)), len(self.ungraphed)

    def left_out(self, name: str) -> bool:
        """Return whether an entrant has failed."""
        return name in self._entrants and self._entrants[name].status not in (UNMEASURED, Status.CORRECT)

    def judge(self, name: str, status: str, message: str) -> None:
        """Note a verdict on a kernel or a library; a fault stays one."""
        library = library_called(name)
        former = self._entrants.get(name, Entrant(name, UNMEASURED, release=library.release if library else ""))
        if former.status in (UNMEASURED, Status.CORRECT) and not (status == UNMEASURED and former.status != status):
            self._entrants[name] = replace(former, status=str(status), message=message[:500])
            self.write()

    def keep(self, sample: Sample) -> None:
        """Note a timed run; after a round, write."""
        self.samples.append(sample)
        if self._entrants[sample.entrant].status == UNMEASURED:
            self.judge(sample.entrant, Status.CORRECT, "")
        last = self.samples[-2] if len(self.samples) > 1 else sample
        if last.round != sample.round:
            self.write()

    def write(self) -> None:
        """Write what was found, at once or not at all."""
        balance = Counter[str]()
        for sample in self.samples:
            balance[sample.entrant] += 2 * late(sample.us / 1e6, sample.wall_us / 1e6) - 1
        why = "most runs took another time by the host's clock: is the host busy?"
        entrants = [
            replace(each, status=UNMEASURED, message=why)
            if balance[each.name] > 0 and each.status == Status.CORRECT
            else each
            for each in self._entrants.values()
        ]
        without = [f"{name}: {why}" for name, why in self.ungraphed.items()]
        self.found = replace(
            self.found,
            ungraphed="".join(without[:1]),
            entrants=tuple(entrants),
            samples=tuple(self.samples),
            seconds=round(time.monotonic() - self.began, 3),
        )
        new = self._folder / f".{FILE}.new"
        new.write_text(self.found.to_json(), encoding="utf-8")
        new.replace(self._folder / FILE)
