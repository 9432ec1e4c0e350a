"""Calibration: the times that measured kernels took on one card, and the card as a target that they make."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations

import msgspec

from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem
from avo.evaluator.cuda.cards import Card
from avo.evaluator.evaluation import Fault
from avo.evaluator.judging.judge import Judge
from avo.evaluator.judging.refusal import outcome
from avo.evaluator.measurement import Measurement
from avo.evaluator.performance.calibrating import Calibration as Calibration
from avo.evaluator.performance.calibrating import NotCalibrated, Timed, calibrate
from avo.evaluator.performance.memory import Timing
from avo.evaluator.target import ScoreKind, Target

_AGREE = 0.05
"""By how much the times of two sessions may differ in the middle: a card's clock changes them by a few per cent."""
_Kernel = tuple[str, str, str]
"""Problem, suite and source."""
_Times = dict[tuple[_Kernel, str], list[float]]
"""Microseconds, by kernel and case."""


def calibrated_by(files: Sequence[Measurement], name: str, tell: Callable[[str], None]) -> Calibration:
    """Return the card that was measured, as a target called ``name``. ``tell`` hears what is done.

    Raises ``NotCalibrated`` for files of two cards, and for times that are too few, contradict each other or teach
    nothing; ``EvaluatorUnavailable`` for an architecture without figures, and where no kernel can be compiled.
    """
    card = _card(files)
    base = replace(card.target(), name=name, kind=ScoreKind.PREDICTED)
    times = _check_sessions(files)
    timed = list(_timed(times, base, tell))
    tell(f"fitting {len(timed)} times")
    nearest = card.nearest()
    found = calibrate(timed, base, nearest)
    found.check()
    day = max(each.began for each in files)[:10]
    standing = (
        f"{found.times} times of {found.kernels} kernels on {card.name} ({day}), which its constants were fitted to; "
        f"fitted to half of the kernels, the mean error on the others was {found.after.error:.1%}, "
        f"and {found.before.error:.1%} for {nearest.name}"
    )
    return replace(found, card=replace(found.card, held_against=standing))


def _card(files: Sequence[Measurement]) -> Card:
    """Return the card that all files are of."""
    try:
        cards = [msgspec.convert(dict(each.card), Card) for each in files]
    except msgspec.ValidationError as error:
        raise NotCalibrated(f"a file does not describe its card: {error}") from None
    if other := next((each for each in cards if (each.name, each.sms) != (cards[0].name, cards[0].sms)), None):
        raise NotCalibrated(f"the times are of two cards, {cards[0].name} and {other.name}: calibrate each by its own")
    return cards[0]


def _check_sessions(files: Sequence[Measurement]) -> _Times:
    """Return the times of all sessions together; raise ``NotCalibrated`` where two of them disagree."""
    sessions: dict[str, _Times] = {}
    together: _Times = {}
    for number, file in enumerate(files, 1):
        right = [each for each in file.kernels if each.status == "correct"]
        kernels = {each.name: (file.problem, file.suite, each.source) for each in right}
        for sample in (each for each in file.samples if each.entrant in kernels):
            for times in (sessions.setdefault(f"session {sample.session} of file {number}", {}), together):
                times.setdefault((kernels[sample.entrant], sample.case), []).append(sample.us)
    for (first, mine), (second, theirs) in combinations(sessions.items(), 2):
        logs = [math.log(statistics.median(mine[key]) / statistics.median(theirs[key])) for key in mine.keys() & theirs]
        if logs and abs(gap := statistics.median(logs)) > _AGREE:
            raise NotCalibrated(
                f"the times contradict each other: those of {first} differ from those of {second} by "
                f"{math.expm1(gap):+.0%}, so the card was not in one state"
            )
    return together


def _timed(times: _Times, base: Target, tell: Callable[[str], None]) -> Iterator[Timed]:
    """Capture and compile the kernels, and yield their times; those that are refused here have none."""
    kernels = list(dict.fromkeys(kernel for kernel, _ in times))
    for suite in dict.fromkeys(suite for _, suite, _ in kernels):
        with Judge(base, suite) as judge:
            for number, (name, _, source) in enumerate(kernels, 1):
                tell(f"compiling kernel {number} of {len(kernels)}")
                problem, plans = get_problem(name), outcome(partial(judge.planned, Candidate(name, source)))
                for each in () if isinstance(plans, Fault) else plans:
                    if us := times.get(((name, suite, source), each.case.name)):
                        least = problem.least_bytes(each.case)
                        case = f"{name}, {each.case.name}"
                        yield Timed(source, case, each.works, least, statistics.median(us), Timing(cold=True))
