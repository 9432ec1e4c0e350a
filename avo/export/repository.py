"""The lineage as a git repository: a commit for each version, as the AVO paper (arXiv 2603.24517) keeps it."""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from avo.errors import RepositoryFailed
from avo.evaluator.target import ScoreKind
from avo.evaluator.units import TFLOPS, units_of
from avo.lineage_db.entries import Intervention
from avo.lineage_db.measurements import Measured
from avo.lineage_db.records import Run, Step, Version
from avo.subject import subject
from avo.watch.scores import over_parent, unit_for
from avo.watch.wording import briefly_measured, first_line, in_a_list, printable, valued
from avo.watch.wording import measured as in_words

KERNEL = "kernel.py"
"""The file that every commit changes."""
README = "README.md"
"""The file with a row for each version until then."""
PREDICTED = " Predicted ones come from a model of the card; none was measured unless its row says so."
_AUTHOR = "AVO <avo@localhost>"


def write_repository(
    run: Run,
    versions: Sequence[Version],
    steps: Mapping[int, Step],
    interventions: Sequence[Intervention],
    measured: Mapping[int, Measured],
    folder: Path,
    attempt: Version | None = None,
) -> None:
    """Write ``versions``, oldest first, as a git repository at ``folder``, which must be empty or missing.

    Each version is a commit whose parents are the commits of its parents. The commit is dated when the version was
    accepted and tagged ``v`` and the version's number; ``main`` is the last one. Other versions without children have
    branches of their own. ``attempt`` is an attempt that is no version, in the form of one with a number that none has:
    it is a commit on the branch ``attempt-`` and its id. ``steps`` are by number, and what cards ``measured`` by
    attempt. The same lineage and measurements give the same commits. Raises ``RepositoryFailed`` and then leaves
    nothing behind.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RepositoryFailed(f"{folder} is not an empty folder: name a new one with --out")
    if not versions:
        raise RepositoryFailed(f"run {run.name!r} has no accepted version yet: there is nothing to commit")
    stream = b"".join(_commands(run, versions, steps, interventions, measured, attempt))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".avo-git-") as name:
            made = Path(name) / "repository"
            _git("init", "--quiet", "--initial-branch=main", str(made))
            _git("-C", str(made), "fast-import", "--quiet", stdin=stream)
            _git("-C", str(made), "reset", "--quiet", "--hard", "main")
            if folder.exists():
                folder.rmdir()
            shutil.move(made, folder)
    except OSError as error:
        raise RepositoryFailed(f"{folder} cannot be written: {error.strerror or error}") from error


def readme(run: Run, versions: Sequence[Version], measured: Mapping[int, Measured]) -> str:
    """Return what the repository is, and a table of ``versions`` with what is known of their speed."""
    scores = [version.attempt.evaluation.score for version in versions]
    kind = next((score.kind for score in scores if score), "")
    unit = unit_for(run, next(filter(None, scores), None))
    rows = [
        f"| v{version.number} | {', '.join(f'v{number}' for number in version.parents)} | "
        f"{unit.cell(score.geomean_tflops) if score else ''} | "
        f"{briefly_measured(found, unit) if (found := measured.get(version.attempt.id)) else ''} | "
        f"{_cell(version.change)} |"
        for version, score in zip(versions, scores, strict=True)
    ]
    return "\n".join(
        [
            f"# {run.name}",
            "",
            f"`{KERNEL}` computes {subject(run)} for {run.target}. It was evolved by AVO (avo-kernels), operator "
            f"{run.operator}: each version is a commit with a tag. Speeds are {unit.head}, "
            f"geometric means over the suite {run.suite}.{PREDICTED if kind == ScoreKind.PREDICTED else ''}",
            "",
            f"| version | from | {kind} | measured on a card | change |",
            "|---|---|---:|---|---|",
            *rows,
            "",
            f"    git diff {f'v{versions[0].number}'} HEAD -- {KERNEL}",
            f"    avo evaluate {KERNEL} --problem {run.problem} --target {run.target} --suite {run.suite}",
            "",
        ]
    )


def _cell(text: str) -> str:
    return printable(first_line(text)).replace("|", "\\|").replace("<", "&lt;")


def message(
    run: Run,
    version: Version,
    versions: Sequence[Version],
    step: Step,
    said: Sequence[Intervention],
    measured: Measured | None = None,
) -> str:
    """Return the commit message of ``version``: what changed and why, then the scores as trailers.

    ``said``: what the supervisor said between the version before it and this one. ``measured``: what a card measured.
    """
    attempt = version.attempt
    score = attempt.evaluation.score
    is_version = version.number < len(versions)
    change = first_line(version.change) or "no words"
    short = in_a_list(change)
    paragraphs = [f"{f'v{version.number}' if is_version else f'attempt {attempt.id}'}: {short}"]
    paragraphs += [change] if short != change else []
    submission = step.said_of(attempt.id)
    told = {
        "Hypothesis": attempt.hypothesis,
        "Expected": submission.expected if submission else "",
        "Seen": submission.seen if submission else "",
    }
    paragraphs += [f"{name}: {printable(text).strip()}" for name, text in told.items() if text.strip()]
    if not is_version:
        why = attempt.decision.told if attempt.decision else f"{attempt.status.words}: {attempt.evaluation.message}"
        paragraphs.append(f"No version: {printable(why).strip()}")
    paragraphs += [f"Supervisor ({made.level}): {printable(made.reason)}" for made in said]
    units = units_of(run.problem, run.suite, run.target)
    grown = over_parent(version, {each.number: each for each in versions}) if score else ""
    trailers = [
        ("Run", run.name),
        ("Version", str(version.number)) if is_version else ("Attempt", str(attempt.id)),
        *(("Parent-version", str(number)) for number in version.parents),
        ("Operator", first_line(step.operator)),
        *((("Score", f"{valued(score, unit_for(run, score))}, geometric mean"),) if score else ()),
        *((("Measured", in_words(measured, run.name, unit_for(run, score))),) if measured else ()),
        *((("Gain", grown),) if grown else ()),
        *(
            (f"Score-{case.case}", units.get(case.case, TFLOPS).cell(case.tflops))
            for case in (score.cases if score else ())
        ),
        ("Digest", attempt.digest),
    ]
    paragraphs.append("\n".join(f"{name}: {value}" for name, value in trailers))
    return "\n\n".join(paragraphs) + "\n"


def _commands(
    run: Run,
    versions: Sequence[Version],
    steps: Mapping[int, Step],
    interventions: Sequence[Intervention],
    measured: Mapping[int, Measured],
    attempt: Version | None,
) -> list[bytes]:
    """Return the input of ``git fast-import`` (see git-fast-import(1)); the mark of version n is n + 1."""
    parents = {number for version in versions for number in version.parents}
    lines, seen = [], -1
    for version in (*versions, *((attempt,) if attempt else ())):
        step = steps[version.step_number]
        is_version = version is not attempt
        said = [made for made in interventions if is_version and seen <= made.after_step < step.number]
        seen = max(seen, step.number)
        is_tip = version.number not in parents and version is not versions[-1]
        branch = f"refs/heads/tip-v{version.number}" if is_tip else "refs/heads/main"
        tag = f"reset refs/tags/v{version.number}\nfrom :{version.number + 1}\n\n"
        if not is_version:
            branch, tag = f"refs/heads/attempt-{version.attempt.id}", "\n"
        when = f"{_AUTHOR} {int(version.accepted.timestamp())} +0000"
        text = message(run, version, versions, step, said, measured.get(version.attempt.id)).encode("utf-8", "replace")
        known = [each for each in versions if each.number <= version.number]
        origin, *merged = version.parents or (None,)
        if origin is None:  # otherwise a second seed would be a child of the first
            lines.append(f"reset {branch}\n\n".encode())
        lines += [
            f"commit {branch}\nmark :{version.number + 1}\ncommitter {when}\n".encode(),
            _data(text),
            *([b"deleteall\n"] if origin is None else [f"from :{origin + 1}\n".encode()]),
            *(f"merge :{number + 1}\n".encode() for number in merged if number is not None),
            f"M 100644 inline {KERNEL}\n".encode(),
            _data(version.attempt.source.encode("utf-8", "surrogatepass")),
            f"M 100644 inline {README}\n".encode(),
            _data(readme(run, known, measured).encode("utf-8", "replace")),
            tag.encode(),
        ]
    return lines


def _data(content: bytes) -> bytes:
    return b"data %d\n%b\n" % (len(content), content)


def _git(*arguments: str, stdin: bytes = b"") -> None:
    """Run git without the configuration of the user or the system."""
    environment = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": "/nonexistent"}
    program = shutil.which("git")
    if program is None:
        raise RepositoryFailed("git is not on the PATH: install it, e.g. apt install git")
    done = subprocess.run([program, *arguments], input=stdin, capture_output=True, env=environment, check=False)
    if done.returncode:
        raise RepositoryFailed(f"git {arguments[0]} failed: {first_line(done.stderr.decode(errors='replace'))}")
