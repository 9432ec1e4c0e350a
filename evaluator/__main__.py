"""``python -m avo.evaluator``: a judge that reads requests and writes verdicts, one JSON object per line."""

import argparse
import contextlib
import json
import os
import select
import shlex
import sys
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from avo.evaluator import cuda
from avo.evaluator.cuda.holding import Place
from avo.evaluator.errors import EvaluatorError, EvaluatorUnavailable
from avo.evaluator.evaluators import CASCADE, CLOCKS, EQUIVALENCE_MARGIN, TO_COMPARE, WALL_S, Progress
from avo.evaluator.known import unspelled
from avo.evaluator.machine import choose_gpus
from avo.evaluator.sandbox.isolation import Sandbox
from avo.evaluator.sandbox.jobs import hide
from avo.evaluator.serving.memory import collect_seldom, keep_freed_memory
from avo.evaluator.serving.protocol import (
    MalformedRequest,
    answer_line,
    failure_line,
    progress_line,
    ready,
    requests,
)
from avo.evaluator.target import ScoreKind
from avo.evaluator.targets import get_target


def _margin(text: str) -> float:
    value = float(text)
    if not 0 < value < 0.5:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 0.5")
    return value


def _cascade(text: str) -> float | None:
    if text == "off":
        return None
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is neither a fraction from 0 to 1 nor off")
    return value


def end_with_reader(pipe: int) -> None:
    """End this process when nobody can read from ``pipe`` any more, even in the middle of a verdict.

    Whoever asked may have been killed because memory ran out, and this process holds most of it.
    """

    def watch() -> None:
        poll = select.poll()
        poll.register(pipe, 0)  # which leaves errors: the other end is closed
        ((_, event),) = poll.poll()
        if not event & select.POLLNVAL:  # which is that this process has closed it: it ends by itself
            os._exit(1)

    threading.Thread(target=watch, name="reader", daemon=True).start()


def _keep(trace: Path | None, *rows: Mapping[str, Any]) -> None:
    """Append what was timed; several judges may write to one file. Raises ``EvaluatorUnavailable`` where none can."""
    if trace is None:
        return
    try:
        with trace.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    except OSError as error:
        raise EvaluatorUnavailable(f"--trace: cannot write {trace}: {error.strerror}") from None


def main() -> int:
    """Serve until standard input ends, or until nobody reads the answers."""
    parser = argparse.ArgumentParser(prog="python -m avo.evaluator", description=__doc__)
    parser.add_argument(
        "--target", required=True,
        help="cuda: this machine's GPU, measured; or a card, predicted: e.g. h100",
    )  # fmt: skip
    parser.add_argument("--suite", default="quick", help="benchmark cases: quick or paper")
    parser.add_argument(
        "--sandbox", type=Sandbox, default=Sandbox.AUTO, choices=list(Sandbox),
        help="where candidates cannot be kept in namespaces: judge them anyway (auto) or refuse to start (require)",
    )  # fmt: skip
    parser.add_argument(
        "--equivalence-margin", type=_margin, default=EQUIVALENCE_MARGIN, metavar="FRACTION",
        help="on cuda: speeds that differ by less are the same",
    )  # fmt: skip
    parser.add_argument(
        "--cascade", type=_cascade, default=CASCADE, metavar="FRACTION|off",
        help="on cuda: do not time candidates predicted to be further than this behind the incumbent",
    )  # fmt: skip
    parser.add_argument(
        "--wall", type=float, default=WALL_S, metavar="SECONDS",
        help=f"on cuda: a comparison that takes {TO_COMPARE:.0%}% of this long ends undecided",
    )  # fmt: skip
    parser.add_argument("--device", metavar="N", help="on cuda: the GPU, as nvidia-smi counts, or its uuid")
    parser.add_argument("--run", metavar="NAME", help="on cuda: take turns on the GPU with other judges of this name")
    parser.add_argument("--clock", choices=CLOCKS, default=CLOCKS[0], help=f"on cuda: {cuda.CLOCK_HELP}")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="on cuda: append every run's times, as JSON lines")
    parser.add_argument(
        "--worker-prefix", type=shlex.split, default=[], metavar="COMMAND",
        help="on cuda: put this before the command of GPU workers, e.g. 'ncu -o out-%%p'; nothing is limited then",
    )  # fmt: skip
    options = parser.parse_args()
    hide()
    if options.device is not None:
        choose_gpus(options.device)
    keep_freed_memory()
    # Verdicts alone go to standard output: whatever a library prints goes to standard error.
    verdicts = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    end_with_reader(verdicts.fileno())
    try:
        target = get_target(unspelled(options.target))
        options.sandbox.check()
        _keep(options.trace)  # so that a wrong name is told before anything is judged
        place = Place(cuda.card(), options.run) if target.kind is ScoreKind.MEASURED else None
    except EvaluatorError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    import torch

    from avo.evaluator.cuda.contender import start_worker
    from avo.evaluator.cuda.measured import Measured
    from avo.evaluator.cuda.measuring import Audience
    from avo.evaluator.cuda.memcheck import Memcheck
    from avo.evaluator.cuda.ncu import Ncu
    from avo.evaluator.judging.judge import Judge
    from avo.evaluator.judging.speed import Instruments

    torch.set_num_threads(1)
    collect_seldom()
    measured, number = None, 0

    def tell(progress: Progress) -> None:
        print(progress_line(number, progress), file=verdicts, flush=True)

    def wait(before: int) -> None:
        words = f"waiting for the card, {before} before it" if before else "has the card"
        tell(Progress(words=words, waits=before > 0))

    if place:
        measured = Measured(
            target,
            margin=options.equivalence_margin,
            cascade=options.cascade,
            start=partial(start_worker, prefix=options.worker_prefix),
            sustained=options.clock == CLOCKS[0],
            profiler=shlex.join(options.worker_prefix),
            audience=Audience(tell, partial(_keep, options.trace)),
            turn=partial(place.turn, wait),
        )
        measured.compare_s = TO_COMPARE * options.wall
    instruments = None
    if place and not options.worker_prefix:  # two profilers do not go together
        in_turn = place.turn(wait)  # around each call of a function
        instruments = Instruments(in_turn(Ncu().count), in_turn(Memcheck().check))
    judged = Judge(target, options.suite, sandbox=options.sandbox, speed=measured, instruments=instruments)
    with judged as judge, contextlib.suppress(KeyboardInterrupt):
        print(ready(target), file=verdicts, flush=True)
        for asked in requests(sys.stdin):
            if isinstance(asked, MalformedRequest):
                line = failure_line(None, str(asked))
            else:
                number, request = asked
                try:
                    line = answer_line(number, judge.follow(request, tell))
                except EvaluatorError as error:
                    line = failure_line(number, str(error))
            print(line, file=verdicts, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
