"""The example of an operator is found by its name, makes correct candidates and ends when all are tried."""

import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from avo.agents.operator import Brief, Scorer
from avo.agents.registry import get_operator
from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem
from avo.evaluator.evaluation import Evaluation, Status
from avo.evaluator.judging.judge import Judge
from avo.evaluator.targets import get_target
from avo.knowledge_base.library import Library
from avo.lineage_db.records import Attempt, AttemptSummary, Version
from tests.agents.world import no_profile
from tests.avo.fakes import correct

pytestmark = pytest.mark.long

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def installed(examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the example, as far as entry points go."""
    project = tomllib.loads((examples / "warps_operator" / "pyproject.toml").read_text())["project"]
    info = tmp_path / "warps_operator-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    sections = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("".join(sections))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(examples / "warps_operator")
    monkeypatch.delitem(sys.modules, "warps_operator", raising=False)


def test_it_tries_every_number_of_warps_once(examples: Path, judge: Judge) -> None:
    problem = str(examples / "sliding_window.py")
    source = (examples / "sliding_window_seed.py").read_text()
    operator = get_operator("warps")
    attempts: list[AttemptSummary] = []

    def record(candidate: Candidate, change: str, evaluation: Evaluation) -> Attempt:
        number = len(attempts) + 1
        summary = (number, 0, candidate.digest, None, evaluation.status, 0.0, "", change, (0,), None, 1.0, NOW)
        attempts.append(AttemptSummary(*summary))
        return Attempt(number, 1, 1, candidate.digest, candidate.source, change, (0,), evaluation, NOW, NOW)

    def judged(candidate: Candidate, *, change: str, parents: tuple[int, ...], hypothesis: str = "") -> Attempt:
        return record(candidate, change, judge.evaluate(candidate))

    def refused(candidate: Candidate, *, change: str, parents: tuple[int, ...], hypothesis: str = "") -> Attempt:
        return record(candidate, change, Evaluation(Status.RACE, "two programs write", "h100", "quick", 0.1))

    def brief(evaluate: Scorer) -> Brief:
        return Brief(
            problem=get_problem(problem),
            target=get_target("h100"),
            suite="quick",
            seed=0,
            versions=(Version(1, 0, (), NOW, seed),),
            attempts=tuple(attempts),
            knowledge=Library.load(),
            evaluate=evaluate,
            profile=no_profile,
        )

    seed = record(Candidate(problem, source), "seed", correct(100.0))
    first = operator.vary(brief(judged))
    assert first.attempt is not None
    assert first.reason == "num_warps 8 on version 0: correct"
    assert "num_warps=8" in first.attempt.source
    rest = [operator.vary(brief(refused)) for _ in range(3)]
    assert [proposal.attempt for proposal in rest] == [None, None, None]
    assert [proposal.reason for proposal in rest] == [
        "num_warps 2 on version 0: race",
        "num_warps 16 on version 0: race",
        "every number of warps of version 0 has been tried",
    ]
