"""Where exported kernels come from, as plain data."""

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version as installed
from typing import Any

from avo.config import TRANSFERRED
from avo.export.judging import Passed
from avo.export.table import names
from avo.lineage_db.records import Attempt, Version
from avo.subject import FOR

LICENCE = "Apache-2.0"


def provenance(versions: Sequence[Passed], now: datetime) -> dict[str, Any]:
    """Return each kernel's run, judgement and lineage, the time ``now`` and the versions of the exporting tools."""
    return {
        "licence": LICENCE,
        "exported": now.isoformat(),
        "exported_with": {
            "python": platform.python_version(),
            **{name: installed(name) for name in ("avo-kernels", "triton", "torch")},
        },
        "kernels": [_kernel(name, each) for name, each in zip(names(versions), versions, strict=True)],
    }


def _kernel(name: str, passed: Passed) -> dict[str, Any]:
    run, version, attempt = passed.chosen.run, passed.chosen.version, passed.chosen.attempt
    return {
        "name": name,
        "run": run.name,
        "version": version.number if version else None,
        "problem": passed.chosen.problem.name,
        "target": run.target,
        "suite": run.suite,
        "operator": run.operator,
        "seed": run.seed,
        "for": run.config.get(FOR),
        "transferred": run.config.get(TRANSFERRED),
        "attempt": attempt.id,
        "accepted": version.accepted.isoformat() if version else None,
        "decision": attempt.decision.told if attempt.decision else None,
        "digest": attempt.digest,
        "source_sha256": hashlib.sha256(passed.chosen.source.encode()).hexdigest(),
        "without": list(passed.chosen.without),
        "edits": passed.chosen.ablation and asdict(passed.chosen.ablation),
        "measured": passed.chosen.measured and passed.chosen.measured.to_json(),
        "judged": [evaluation.to_json() for evaluation in passed.evaluations],
        "lineage": [
            *(_step(each.attempt, each) for each in passed.chosen.line),
            *(() if version else (_step(attempt, None),)),
        ],
    }


def _step(attempt: Attempt, version: Version | None) -> dict[str, Any]:
    score = attempt.evaluation.score
    return {
        "version": version.number if version else None,
        "parents": list(version.parents if version else attempt.parents),
        "change": version.change if version else attempt.change,
        "hypothesis": attempt.hypothesis,
        "digest": attempt.digest,
        "accepted": version.accepted.isoformat() if version else None,
        "score": None
        if score is None
        else {"kind": score.kind, "target": score.target, "card": score.card, "geomean_tflops": score.geomean_tflops},
    }
