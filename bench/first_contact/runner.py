"""Runs steps one after the other, each in a process and within a limit of its own, and goes on after one that fails."""

import contextlib
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

LEAST_S = 5.0
"""A step that has less time than this is not begun."""
_KILL_S = 20.0


@dataclass(frozen=True)
class Step:
    """A part of the evidence."""

    name: str
    share_s: float
    """What is kept for it while steps before it run."""
    most_s: float
    """What it may take where others have left as much."""
    what: str


@dataclass(frozen=True)
class Outcome:
    """What became of a step."""

    step: str
    ending: str
    """``done``, or why not."""
    seconds: float


def perform(
    steps: Sequence[Step],
    folder: Path,
    command: Sequence[str],
    until: float,
    say: Callable[[str], None],
    aside: str | None = None,
) -> list[Outcome]:
    """Run ``command`` with each step's name, ``folder``, which gets the evidence, and the step's limit in seconds;
    return what became of each step.

    All end at ``until`` by ``time.monotonic``; see ``limit``. Beside them the step ``aside`` runs from the first to the
    last. A step's output is in the file ``STEP.log``, the outcomes in ``summary.json``. Ctrl-C ends the steps, not the
    collecting of what they have found.
    """
    outcomes: list[Outcome] = []
    watching = None if aside is None else _started(aside, folder, command, until - time.monotonic())
    try:
        for number, step in enumerate(steps, 1):
            limit_s = limit(steps[number - 1 :], until - time.monotonic())
            if limit_s < LEAST_S:
                outcomes.append(Outcome(step.name, "no time was left", 0.0))
                continue
            say(f"{number}/{len(steps)} {step.name}: {step.what}, at most {limit_s:.0f} s")
            outcomes.append(_one(step, folder, command, limit_s))
            _write(folder, outcomes)
            say(f"    {outcomes[-1].ending} after {outcomes[-1].seconds:.0f} s{_why(outcomes[-1], folder)}")
    except KeyboardInterrupt:
        say("interrupted: collecting what there is")
        begun = {outcome.step for outcome in outcomes}
        outcomes += [Outcome(step.name, "interrupted", 0.0) for step in steps if step.name not in begun]
    finally:
        if watching is not None:
            _kill(watching)
        _write(folder, outcomes)
    return outcomes


def limit(steps: Sequence[Step], left_s: float) -> float:
    """Return how long the first of ``steps`` may take when ``left_s`` are left for all of them.

    Those behind it keep their shares as far as there is time for its own: so a step that hangs takes none of theirs,
    and where there is little time the first ones have it.
    """
    first, *others = steps
    spare_s = left_s - sum(step.share_s for step in others)
    return min(first.most_s, left_s, max(first.share_s, spare_s))


def _one(step: Step, folder: Path, command: Sequence[str], limit_s: float) -> Outcome:
    began = time.monotonic()
    process = _started(step.name, folder, command, limit_s)
    try:
        code = process.wait(limit_s)
        ending = "done" if code == 0 else f"killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
    except subprocess.TimeoutExpired:
        ending = f"stopped at its limit of {limit_s:.0f} s"
    finally:
        survives = not _kill(process)
    if survives:
        ending += "; it survives being killed, so the card may be stuck: nvidia-smi --gpu-reset"
    return Outcome(step.name, ending, time.monotonic() - began)


def _started(name: str, folder: Path, command: Sequence[str], limit_s: float) -> "subprocess.Popen[bytes]":
    words = [*command, name, str(folder), f"{limit_s:.0f}"]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _kill(process: "subprocess.Popen[bytes]") -> bool:
    """Kill a step and all that it started; return whether it ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(_KILL_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _why(outcome: Outcome, folder: Path) -> str:
    """Return the last line that a step which failed has said: with Python, the error."""
    if outcome.ending == "done":
        return ""
    said = (folder / f"{outcome.step}.log").read_text(errors="replace").strip()
    return f": {said.splitlines()[-1]:.300}" if said else ""


def _write(folder: Path, outcomes: Sequence[Outcome]) -> None:
    (folder / "summary.json").write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))


def pack(folder: Path) -> Path:
    """Write ``folder`` as one archive beside it, and return that."""
    archive = folder.with_name(f"{folder.name}.tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return archive
