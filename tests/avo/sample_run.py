"""A small run with accepted, slower and faulty attempts, recorded by hand: no evaluator takes part."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from avo.evaluator.candidate import Candidate
from avo.evaluator.catalogue import get_problem, get_suite
from avo.evaluator.evaluation import CaseResult, CaseScore, Comparison, Evaluation, Resources, Score, Status, Verdict
from avo.evaluator.target import ScoreKind
from avo.lineage_db.ablated import Ablation, Edit
from avo.lineage_db.decision import Decision, Ruling
from avo.lineage_db.records import Attempt, RunState, Version
from avo.lineage_db.store import Store
from avo.search.acceptance import Thresholds, decide
from avo.seeds import seed_source

_THRESHOLDS = Thresholds(min_gain=0.005, min_share=0.9)
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

_TRIES: tuple[tuple[str, str, str, Status | float], ...] = (
    ("seed", "", "", 100.0),
    ("BLOCK_M 64 -> 128, num_warps 4 -> 8", "block_m, block_n = 64, 64", "block_m, block_n = 128, 64", 150.0),
    ("num_stages 1 -> 5", "num_stages=1", "num_stages=5", Status.DOES_NOT_FIT),
    ("num_stages 1 -> 2", "num_stages=1", "num_stages=2", 210.0),
    ("skip [diagonal] blocks", "offs_n < kv_len", "offs_n <= kv_len", Status.INCORRECT),
    ("BLOCK_N 64 -> 32", "block_m, block_n = 64, 64", "block_m, block_n = 64, 32", 180.0),
    ("exp -> exp2", "tl.exp(row_max - new_max)", "tl.exp2(row_max - new_max)", Status.INCORRECT),
    ("BLOCK_N 64 -> 128", "block_m, block_n = 64, 64", "block_m, block_n = 64, 128", 260.0),
)
"""What changed, text of the seed, its replacement, and the verdict: a status or the geometric mean in TFLOPS."""

_MESSAGES = {
    Status.DOES_NOT_FIT: "needs 262144 bytes of shared memory, h100 has 232448 a CTA: use fewer stages",
    Status.INCORRECT: "case ragged: 12 of 77 rows are wrong, relative error 0.41",
}


ABLATION = Ablation(
    "mha-h100", 3, (0, 1, 2, 3), False, True, 260.0,
    (
        Edit("BLOCK_N 64 -> 128", 0.3, 0.012),
        Edit("num_stages 1 -> 2", 0.004, 0.01, useless=True),
        Edit("skip [diagonal] blocks", None, why="later moves find nothing to do without it"),
        Edit("exp -> exp2", -0.05, 0.011, useless=True),
    ),
    True, 0, ("num_stages 1 -> 2", "exp -> exp2"), "minimal = 1\n", 273.0, "avo-kernels 0.1.0, triton 3.6.0",
)  # fmt: skip
"""What the edits of the sample run's best version may be worth."""


def make_evaluation(verdict: Status | float, *, target: str = "h100", suite: str = "quick") -> Evaluation:
    """Return an evaluation with this geometric mean, or this fault."""
    if isinstance(verdict, Status):
        wrong = (CaseResult("ragged", False, 0.41, 0.3, _MESSAGES[verdict]),) if verdict is Status.INCORRECT else ()
        return Evaluation(verdict, _MESSAGES[verdict], target, suite, seconds=2.5, cases=wrong)
    names = [case.name for case in get_suite(get_problem("mha"), suite)]
    spread = [1.1 ** (2 * index / max(len(names) - 1, 1) - 1) for index in range(len(names))]
    cases = tuple(
        CaseScore(name, verdict * factor, 1e6 / (verdict * factor), "exp", {"tensor": 0.41, "exp": 0.93, "issue": 0.7})
        for name, factor in zip(names, spread, strict=True)
    )
    return Evaluation(
        Status.CORRECT,
        "",
        target,
        suite,
        seconds=4.25,
        score=Score(ScoreKind.PREDICTED, target, cases),
        cases=(CaseResult("square", True, 0.0021, 1e-6), CaseResult("ragged", True, 0.0023, 2e-6)),
        resources=(Resources("attention_kernel", 168, 0, 65536, 0, 4, 3),),
        plan_digest=f"{verdict:064.0f}",
    )


def make_measured(tflops: float) -> Evaluation:
    """Return a correct evaluation that was measured, with what only a measured one has."""
    case = CaseScore("8k-full", tflops, 1e6 / tflops, "", low_tflops=tflops - 5, high_tflops=tflops + 5)
    configured = replace(case, configurations=("attention_kernel: BLOCK_M=128, num_warps=8",))
    comparison = Comparison("f" * 64, 0.0025, (0.01, 0.03), Verdict.FASTER)
    conditions = "driver 570.86, clocks 1590 to 1755 MHz"
    score = Score(ScoreKind.MEASURED, "cuda", (configured,), comparison, "NVIDIA H100 80GB HBM3", conditions)
    return Evaluation(Status.CORRECT, "", "cuda", "quick", 30.0, score, plan_digest=f"{tflops:064.0f}")


def make_sample_run(url: str, attempts: int = 8) -> str:
    """Record a run of ``attempts`` attempts, the seed among them, in the database at ``url``; return its name.

    The first eight are 4 accepted, 1 correct but slower and 3 faulty; later rounds repeat them, 1 percent faster each.
    """
    with Store.open(url) as store:
        name = store.free_run_name("mha-h100")
        run = store.create_run(
            name=name,
            problem="mha",
            target="h100",
            suite="quick",
            operator="mutate",
            seed=0,
            config={"max_attempts": attempts},
            now=START,
        )
        now = START
        best = 0
        for number in range(attempts):
            round_, index = divmod(number, len(_TRIES))
            change, old, new, verdict = _TRIES[index]
            if isinstance(verdict, float):
                verdict = verdict * (1 + 0.01 * round_) if number else verdict
            source = seed_source("mha").replace(old, new) if old else seed_source("mha")
            if round_:
                source += f"\nROUND = {round_}\n"
            parents = () if number == 0 else (best,)
            operator = "seed" if number == 0 else "mutate"
            step = store.claims.claim(run.id, worker="worker-0", operator=operator, now=now)
            evaluation = make_evaluation(verdict)
            attempt = store.results.record_attempt(
                step_id=step.id,
                candidate=Candidate("mha", source),
                change=change if not round_ else f"{change} (round {round_ + 1})",
                parents=parents,
                evaluation=evaluation,
                started=now,
                finished=now + timedelta(seconds=5),
                decision=decide(store.versions(run.id), evaluation, _THRESHOLDS),
            )
            now += timedelta(seconds=6)
            version = store.results.conclude(
                step.id, attempt_id=attempt.id, parents=parents, reason=change, now=now, decide=_decide
            )
            best = version.number if version else best
        store.set_run_state(run.id, RunState.FINISHED, now=now)
    return name


def _decide(versions: Sequence[Version], attempt: Attempt) -> Decision | None:
    """Decide as acceptance does, without a closer look."""
    decision = decide(versions, attempt.evaluation, _THRESHOLDS)
    return replace(decision, ruling=Ruling.ACCEPTED) if decision and not decision.refused else decision
