"""The conversations that are replayed: all calls can be performed, and what is said twice is counted once."""

import json
from pathlib import Path

import pytest

from avo.evaluator.candidate import Candidate
from avo.evaluator.evaluation import Evaluation
from avo.evaluator.evaluators import AnyRequest
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.inspection import Findings
from bench.replay import SEED, Keeping, conversations, replayed, variant
from tests.avo.fakes import correct


def judge(candidate: Candidate) -> Evaluation:
    return correct(600.0 if candidate.source == SEED else 590.0)


@pytest.mark.parametrize("name", conversations())
def test_all_calls_of_a_conversation_are_performed(name: str) -> None:
    evaluator = FakeEvaluator(judge)
    evaluator.findings = Findings(text="nothing " * 20)
    calls, messages = conversations()[name], []
    count = replayed(evaluator, calls, messages)
    said = [str(each["content"]) for each in messages if each["role"] == "tool"]
    assert len(said) == sum(map(len, calls[:-1]))
    assert [each for each in said if each.startswith(("error: ", "not run"))] == []
    assert len(json.dumps(messages)) // 4 < count.last < count.tokens / 2
    assert count.last < count.cached < count.tokens
    assert set(count.kinds) >= {"sources", "rest"}
    assert count.kinds.total() > len(SEED) / 2


def test_variants_differ_from_the_seed_where_they_say() -> None:
    assert "block_m, block_n = 64, 64\n" in variant(64, 3)
    assert "STAGES=3," in variant(64, 3)
    assert variant(128, 2) == SEED


def test_a_judge_is_asked_each_question_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[AnyRequest] = []

    class Counting(FakeEvaluator):
        def ask(self, request: AnyRequest) -> object:
            asked.append(request)
            return super().ask(request)

    monkeypatch.setattr("bench.replay.judge_process", lambda *_: Counting(judge))
    for _ in range(2):
        with Keeping(tmp_path / "answers") as kept:
            assert kept.evaluate(Candidate("mha", SEED)).geomean_tflops == pytest.approx(600.0)
    assert len(asked) == 1
