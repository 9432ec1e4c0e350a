"""Hold what notes claim about gains against the performance model.

python -m bench.claims            works out every claim, and says which are off
python -m bench.claims exp2       those of some notes
python -m bench.claims --write    also writes the gains that are off into the notes
"""

import argparse
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from avo.agents.best import Unmakeable, moved
from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Fault
from avo.evaluator.evaluators import Evaluator
from avo.evaluator.judges import local_judge
from avo.evaluator.targets import get_target
from avo.knowledge_base.claims import Claim
from avo.knowledge_base.library import NOTES
from avo.knowledge_base.note import read_notes
from avo.seeds import seed_source

ROOT = Path(__file__).parents[1]


def made(steps: Sequence[str], target: str) -> str:
    """Return the source that the steps of a claim make; raise ``Unmakeable``."""
    source = ""
    for step in steps:
        source = _stepped(source, step, target)
    return source


def _stepped(source: str, step: str, target: str) -> str:
    if found := re.fullmatch(r"(\w+)/(\w+)", step):
        return seed_source(found[1], found[2])
    if found := re.fullmatch(r"\w+:(.+\.py)", step):
        return (ROOT / found[1]).read_text(encoding="utf-8")
    if found := re.fullmatch(r"(\w+)=(\S+)", step):
        edited, count = re.subn(rf"^{found[1]} = .*$", f"{found[1]} = {found[2]}", source, flags=re.MULTILINE)
        if count != 1:
            raise Unmakeable(f"{step}: the kernel sets {found[1]} {count} times, not once")
        return edited
    return moved(source, step, get_target(target))


class Predictions:
    """Predicts kernels, each once, with a judge for each target. Use it in a ``with``."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._judges: dict[str, Evaluator] = {}
        self._known: dict[tuple[str, str, str], float] = {}

    def __enter__(self) -> "Predictions":
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def gain(self, claim: Claim) -> float:
        """Return the gain that the model of the day predicts, in percent; raise ``Unmakeable``."""
        before = self._tflops(claim, claim.before)
        return 100 * (self._tflops(claim, (*claim.before, *claim.after)) / before - 1)

    def _tflops(self, claim: Claim, steps: Sequence[str]) -> float:
        source = made(steps, claim.target)
        key = (claim.target, claim.case, source)
        if key not in self._known:
            if claim.target not in self._judges:
                judge = local_judge(get_target(claim.target), "quick")
                self._judges[claim.target] = self._open.enter_context(judge)
            found = self._judges[claim.target].profile(Candidate(claim.problem, source), claim.case)
            if isinstance(found, Fault):
                raise Unmakeable(f"{' + '.join(steps)}: {found.status.words}: {found.message}")
            self._known[key] = found[0].score.tflops
        return self._known[key]


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if all claims are right or were mended, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("note", nargs="*", help="ids of notes; by default all that claim something")
    parser.add_argument("--write", action="store_true", help="write gains that are off into the notes")
    asked = parser.parse_args(arguments)
    notes = read_notes(NOTES)
    if unknown := set(asked.note) - {note.id for note in notes}:
        parser.error(f"there is no note {min(unknown)!r}")
    wrong = 0
    with Predictions() as predictions:
        for note, claim in [(each, claim) for each in notes for claim in each.claims]:
            if asked.note and note.id not in asked.note:
                continue
            try:
                gain = predictions.gain(claim)
            except Unmakeable as error:
                print(f"OFF  {note.id}: {claim}: {error}", flush=True)
                wrong += 1
                continue
            off = not claim.holds(gain)
            print(f"{'OFF ' if off else 'ok  '} {note.id}: {claim}: the model has {gain:+.1f}%", flush=True)
            if off and asked.write:
                path, right = NOTES / f"{note.id}.md", str(replace(claim, gain=round(gain)))
                path.write_text(path.read_text(encoding="utf-8").replace(str(claim), right), encoding="utf-8")
            wrong += off and not asked.write
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
