"""The canary: a judge that does not see a wrong or a slow variant of the seed stops the run before it starts."""

import re
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avo.config import RunConfig
from avo.errors import CanaryFault, RunFailed
from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.capture import Capturer
from avo.evaluator.catalogue import get_problem
from avo.evaluator.cuda.measured import Measured
from avo.evaluator.evaluation import Comparison, Evaluation, Fault, Status, Verdict
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.judging.judge import Judge
from avo.evaluator.offline import offline
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.targets import get_target
from avo.lineage_db.records import RunState, StepState
from avo.lineage_db.store import Store
from avo.search.canary import GLUON, TRITON, examine, slow_variant, wrong_variant
from avo.search.run import RunSession, Stop
from avo.seeds import KINDS, seed_source
from tests.avo.fakes import NOW, SEED, Climber, InlineCrew, correct, judge, make_run
from tests.avo.measured import MeasuringEvaluator, kernel

MHA = Candidate("mha", seed_source("mha"))


@pytest.fixture(scope="module")
def capturer(fork_server: ForkServer) -> Capturer:
    return Capturer(fork_server)


def drive(
    store: Store, verdict: Callable[[Candidate], Evaluation], attempts: int = 3, command: str | None = None
) -> FakeEvaluator:
    """Work on the run ``fake`` with this judge, and return it."""
    run = store.run("fake") if store.runs() else make_run(store)
    evaluator = FakeEvaluator(verdict)
    RunSession(
        store,
        run,
        RunConfig(workers=1, max_attempts=attempts, evaluator_command=command),
        deadline=None,
        hire=InlineCrew(store, run, Climber(), evaluator).hire,
        stop=Stop(),
        say=lambda line: None,
        clock=lambda: NOW,
    ).drive()
    return evaluator


def accepts_all(candidate: Candidate) -> Evaluation:
    return correct(50.0 if "canary" in candidate.source else 100.0)


def scores_all_equal(candidate: Candidate) -> Evaluation:
    found = judge(candidate)
    return correct(100.0, plan=candidate.digest) if found.correct else found


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (accepts_all, "a variant of the seed in which a triton kernel writes a wrong number is judged correct"),
        (scores_all_equal, r"a variant of the seed that does all its work twice is judged 1\.00 times as fast"),
    ],
)
def test_a_judge_that_cannot_be_trusted_stops_the_run_before_it_has_a_version(
    store: Store, verdict: Callable[[Candidate], Evaluation], words: str
) -> None:
    with pytest.raises(RunFailed, match=f"^the judge cannot be trusted: {words}: look at avo doctor") as error:
        drive(store, verdict)
    assert "\n" not in str(error.value)
    run = store.run("fake")
    assert run.state is RunState.STOPPED
    assert store.versions(run.id) == []
    assert [(step.state, step.reason) for step in store.steps(run.id)] == [(StepState.FAILED, str(error.value))]


def test_a_run_stopped_by_its_canary_goes_on_with_another_judge_and_does_not_judge_the_seed_again(store: Store) -> None:
    with pytest.raises(RunFailed):
        drive(store, accepts_all)
    sources = [call.source for call in drive(store, judge).calls]
    assert SEED not in sources
    assert sum("canary" in source for source in sources) == 2
    assert len(store.versions(1)) > 0


def test_the_canary_is_judged_once_a_run_and_kept_in_its_record(store: Store) -> None:
    drive(store, judge)
    assert "canary: the wrong variant is incorrect, the slow one 0.50 times as fast" in store.steps(1)[0].reason
    assert len(store.attempts(1)) == 3, "its variants are no attempts"
    again = drive(store, judge, attempts=5)
    assert not any("canary" in call.source for call in again.calls)


def test_a_judge_behind_a_command_is_tested_again_when_the_run_goes_on(store: Store) -> None:
    command = "ssh gpu-box python -m avo.evaluator"
    drive(store, judge, command=command)
    again = drive(store, judge, attempts=5, command=command)
    assert sum("canary" in call.source for call in again.calls) == 2
    assert len(store.attempts(1)) == 5
    with pytest.raises(RunFailed, match="the judge cannot be trusted"):
        drive(store, accepts_all, attempts=9, command=command)
    assert len(store.attempts(1)) == 5


def test_a_slow_variant_that_is_refused_is_slow_enough() -> None:
    def refuses(candidate: Candidate) -> Evaluation:
        slow = "canary" in candidate.source and "canary_kernel" not in candidate.source
        return Evaluation(Status.TIMED_OUT, "too long", "h100", "quick", 0.1) if slow else judge(candidate)

    score = correct(100.0).score
    assert score is not None
    assert examine(FakeEvaluator(refuses).evaluate, Candidate("mha", SEED), score, 0.05).endswith(
        "the slow one timed out"
    )


def test_where_speed_is_measured_the_seed_is_timed_against_its_slow_variant() -> None:
    evaluator, seed = MeasuringEvaluator(), Candidate("mha", kernel(100.0))
    score = evaluator.evaluate(seed).score
    assert score is not None
    found = "canary: the wrong variant is incorrect, and incorrect on the GPU alone, the slow one slower"
    assert examine(evaluator.evaluate, seed, score, 0.05) == found
    assert [source for source, _ in evaluator.calls[1:3]] == [
        wrong_variant(seed, dialect).source for dialect in (TRITON, GLUON)
    ]
    assert evaluator.calls[-1] == (seed.source, Incumbent(slow_variant(seed), 0.05))


def test_a_gpu_whose_own_checks_see_nothing_is_not_trusted() -> None:
    evaluator, seed = MeasuringEvaluator(), Candidate("mha", kernel(100.0))
    score = evaluator.evaluate(seed).score
    assert score is not None
    honest = evaluator.evaluate

    def evaluate(candidate: Candidate, incumbent: Incumbent | None = None) -> Evaluation:
        return honest(seed if GLUON in candidate.source else candidate, incumbent)

    evaluator.evaluate = evaluate  # type: ignore[method-assign]
    with pytest.raises(CanaryFault, match=f"in which a {GLUON} kernel writes a wrong number"):
        examine(evaluator.evaluate, seed, score, 0.05)


def test_a_gpu_on_which_everything_takes_as_long_is_not_trusted() -> None:
    evaluator, seed = MeasuringEvaluator(), Candidate("mha", kernel(100.0))
    score = evaluator.evaluate(seed).score
    assert score is not None
    honest = evaluator.compare

    def compare(speed: float, incumbent: Incumbent) -> Comparison:
        return replace(honest(speed, incumbent), verdict=Verdict.EQUIVALENT)

    evaluator.compare = compare  # type: ignore[method-assign]
    with pytest.raises(CanaryFault, match="the seed is judged equivalent"):
        examine(evaluator.evaluate, seed, score, 0.05)


@pytest.mark.corpus
def test_the_judge_sees_that_the_wrong_variant_of_any_seed_is_wrong(fork_server: ForkServer) -> None:
    with Judge(get_target("h100"), "quick", server=fork_server) as judging:
        for problem in KINDS:
            found = judging.evaluate(wrong_variant(Candidate(problem, seed_source(problem))))
            assert found.status is Status.INCORRECT
            assert re.search("rows 0 of (dq, )?batch 0, head 0", found.message)


@pytest.mark.corpus
def test_the_judge_sees_that_a_variant_which_works_twice_is_slow(fork_server: ForkServer) -> None:
    with Judge(get_target("h100"), "quick", server=fork_server) as judging:
        score = judging.evaluate(MHA).score
        assert score is not None
        seen = re.search(r"the slow one (\S+) times as fast", examine(judging.evaluate, MHA, score, 0.05))
        assert seen is not None
        assert float(seen[1]) == pytest.approx(0.5, abs=0.05)


@pytest.mark.gpu
def test_a_gpu_sees_wrong_and_slow_variants_one_of_them_in_gluon() -> None:
    target = get_target("cuda")
    with Judge(target, "quick", speed=Measured(target, cascade=None)) as judging:
        score = judging.evaluate(MHA).score
        assert score is not None
        found = "canary: the wrong variant is incorrect, and incorrect on the GPU alone, the slow one slower"
        assert examine(judging.evaluate, MHA, score, 0.05) == found


def test_the_wrong_number_is_far_from_whatever_the_right_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    path = tmp_path / "variant.py"
    path.write_text(wrong_variant(Candidate("mha", "def attention(*tensors):\n    pass\n")).source)
    variant = runpy.run_path(str(path))
    right = torch.linspace(-4, 4, 17).bfloat16()
    wrong = right.clone()
    with offline("h100"):
        for number in wrong.split(1):
            variant["attention"](right, right, right, number)
    assert ((wrong - right).abs() >= 1).all()


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["plain", "no newline at its end", "entry by assignment", "annotated"])
def test_variants_launch_what_the_candidate_launches_and_more(capturer: Capturer, name: str) -> None:
    source = {
        "plain": MHA.source,
        "no newline at its end": MHA.source.rstrip("\n"),
        "entry by assignment": MHA.source.replace("def attention(", "def mine(") + "\nattention = mine\n",
        "annotated": "from __future__ import annotations\n" + MHA.source,
    }[name]
    candidate, problem = Candidate("mha", source), get_problem("mha")
    kernels = []
    for variant in (candidate, wrong_variant(candidate), wrong_variant(candidate, GLUON), slow_variant(candidate)):
        calls = [problem.call(problem.correctness_cases[0])]
        plans = capturer.capture(variant.source, problem.entry, calls, get_target("h100"))
        assert not isinstance(plans, Fault), plans
        kernels.append([plans[0].kernels[launch.kernel].name for launch in plans[0].launches])
    assert kernels == [
        ["attention_kernel"],
        ["attention_kernel", "_canary_kernel"],
        ["attention_kernel", "_canary_kernel"],
        ["attention_kernel", "attention_kernel"],
    ]
