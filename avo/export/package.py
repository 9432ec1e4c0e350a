"""Packages: what an export holds, rendered from templates and written to a folder. The kernel is never executed."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from avo.errors import AvoError
from avo.wording import SPREAD, compared, place, spread
from evaluator.evaluation import Score
from evaluator.problem import Case, Problem
from lineage_db.records import Run, Version

ENTRY = "attention"
"""The entry function that the exported wrapper calls: q, k, v, out, lse, then causal and scale."""

TESTED_SCORES = 2**18
"""Most scores (heads * q_len * kv_len) of a case in the exported test: Triton's interpreter takes seconds for them."""

_TEMPLATES = {
    "LICENSE.j2": "LICENSE",
    "pyproject.toml.j2": "pyproject.toml",
    "README.md.j2": "README.md",
    "init.py.j2": "src/{package}/__init__.py",
    "test_kernel.py.j2": "tests/test_kernel.py",
}


class ExportError(AvoError):
    """The version cannot be exported, or not to this place."""


def package_name(run: str) -> str:
    """Return the import name of the package for a run: ``avo_kernel_`` and the run's name in small letters."""
    return re.sub(r"[^a-z0-9]+", "_", f"avo kernel {run}".lower()).strip("_")


def lineage_of(versions: Sequence[Version], number: int) -> tuple[Version, ...]:
    """Return the version called ``number`` and all its ancestors, oldest first."""
    by_number = {version.number: version for version in versions}
    wanted, found = [number], set[int]()
    while wanted:
        current = wanted.pop()
        if current not in found:
            found.add(current)
            wanted += by_number[current].parents
    return tuple(by_number[each] for each in sorted(found))


def render_package(
    run: Run, problem: Problem, versions: Sequence[Version], number: int, now: datetime
) -> dict[str, str]:
    """Return the files of the package of version ``number``, by path; raise ``ExportError`` if none can be made.

    ``versions`` are all versions of ``run``, which is for ``problem``; ``now`` is the date of the export.
    """
    if problem.entry != ENTRY:
        raise ExportError(f"export knows kernels named {ENTRY}, not {problem.entry} of the problem {problem.name}")
    line = lineage_of(versions, number)
    version = line[-1]
    score = _score(version)
    package = package_name(run.name)
    names: dict[str, Any] = {
        "package": package,
        "distribution": package.replace("_", "-"),
        "run": run,
        "number": number,
        "score": score,
        "place": place(score),
        "spread": SPREAD[score.kind],
        "compared": compared(score.comparison) if score.comparison else "",
        "lineage": [{"version": each, "score": _score(each)} for each in line],
        "date": now,
        "release": f"0.{number}.0",
        "head_dims": sorted({case.head_dim for case in problem.correctness_cases}),
        "grouped": any(case.heads != case.kv_heads for case in problem.correctness_cases),
        "dtypes": sorted({case.dtype for case in problem.correctness_cases}),
        "cases": _tested(problem),
    }
    environment = Environment(
        loader=PackageLoader("avo.export"), undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True,
        lstrip_blocks=True, autoescape=False,
    )  # fmt: skip
    environment.filters["spread"] = spread
    environment.filters["cell"] = lambda text: " ".join(text.split()).replace("|", "\\|")
    files = {
        place.format(package=package): environment.get_template(name).render(names)
        for name, place in _TEMPLATES.items()
    }
    files[f"src/{package}/kernel.py"] = version.attempt.source
    files[f"src/{package}/provenance.json"] = json.dumps(_provenance(run, line, now), indent=2) + "\n"
    files[f"src/{package}/py.typed"] = ""
    return files


def write_package(files: Mapping[str, str], folder: Path, force: bool = False) -> None:
    """Write the files below ``folder``; raise ``ExportError`` when it is not empty (unless ``force``) or not writable.

    ``force`` replaces files of the same name and leaves others alone.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise ExportError(f"{folder} is a file: name a folder")
        if folder.is_dir() and any(folder.iterdir()) and not force:
            raise ExportError(f"{folder} is not empty: choose another folder, or add --force to write into it")
        for place, text in files.items():
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise ExportError(f"cannot write {error.filename or folder}: {error.strerror}") from error


def _score(version: Version) -> Score:
    score = version.attempt.evaluation.score
    if score is None:
        raise ExportError(f"version {version.number} has no score: only correct versions can be exported")
    return score


def _tested(problem: Problem) -> list[Case]:
    return [case for case in problem.correctness_cases if case.heads * case.q_len * case.kv_len <= TESTED_SCORES]


def _provenance(run: Run, line: Sequence[Version], now: datetime) -> dict[str, Any]:
    version, score = line[-1], _score(line[-1])
    evaluation = version.attempt.evaluation.to_json()
    return {
        "run": run.name,
        "problem": run.problem,
        "target": run.target,
        "suite": run.suite,
        "operator": run.operator,
        "seed": run.seed,
        "version": version.number,
        "attempt": version.attempt.id,
        "digest": version.attempt.digest,
        "plan_digest": version.attempt.plan_digest,
        "accepted": version.accepted.isoformat(),
        "score_kind": score.kind,
        "score": evaluation["score"],
        "correctness": evaluation["cases"],
        "resources": evaluation["resources"],
        "lineage": [
            {
                "version": each.number,
                "parents": list(each.parents),
                "change": each.attempt.change,
                "digest": each.attempt.digest,
                "score": each.attempt.evaluation.geomean_tflops,
                "accepted": each.accepted.isoformat(),
            }
            for each in line
        ],
        "exported": now.isoformat(),
        "exported_with": {name: installed(name) for name in ("avo-kernels", "triton", "torch")},
    }
