"""A world where speed is measured: a source says how fast it is and which plan it lowers to; every time is noisy."""

from typing import Any

import numpy as np

from avo.config import RunConfig
from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.cuda.sequential import ROUNDS, decide
from avo.evaluator.evaluation import CaseScore, Comparison, Evaluation, Score, Status, Verdict
from avo.evaluator.evaluators import AnyRequest, EvaluateRequest, Evaluator, VerifyRequest
from avo.evaluator.target import ScoreKind, Target
from avo.evaluator.targets import get_target

NOISE = 0.01
CARD = "A Card"


def kernel(tflops: float, plan: str = "") -> str:
    """Return a source that is so fast; equally fast ones have one plan unless ``plan`` says otherwise."""
    return f"tflops = {tflops}" + (f"; plan = {plan!r}" if plan else "")


class MeasuringEvaluator(Evaluator):
    """A judge with a GPU: ``calls`` has each pair of candidate and incumbent in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Incumbent | None]] = []
        self.card = CARD
        self.faults: dict[str, Status] = {}
        """Statuses to answer with, by source."""
        self.before_answering = lambda source: None
        self._random = np.random.default_rng(0)

    @property
    def target(self) -> Target:
        """Some GPU."""
        return get_target("h100")

    def ask(self, request: AnyRequest) -> Any:
        """Return a verdict; nothing else is asked for."""
        match request:
            case EvaluateRequest(candidate, incumbent):
                return self._evaluate(candidate, incumbent)
            case VerifyRequest(candidate):
                return self._verify(candidate)
        raise NotImplementedError

    def _verify(self, candidate: Candidate) -> Evaluation:
        """Time the candidate alone; what is compared is not disturbed."""
        case = CaseScore("held out", _read(candidate.source)[0], 1.0, "")
        return Evaluation(
            Status.CORRECT, "", "cuda", "held_out", 0.1, Score(ScoreKind.MEASURED, "cuda", (case,), card=self.card)
        )

    def _evaluate(self, candidate: Candidate, incumbent: Incumbent | None) -> Evaluation:
        """Time the candidate, and compare it with the incumbent as a judge would."""
        self.calls.append((candidate.source, incumbent))
        self.before_answering(candidate.source)
        if status := self.faults.get(
            candidate.source, Status.INCORRECT if "canary_kernel" in candidate.source else None
        ):
            return Evaluation(status, "told to", "cuda", "quick", 0.1, plan_digest=_read(candidate.source)[1])
        speed, plan = _read(candidate.source)
        case = CaseScore("one", speed * float(np.exp(0.003 * self._random.normal())), 1.0, "")
        score = Score(ScoreKind.MEASURED, "cuda", (case,), incumbent and self.compare(speed, incumbent), self.card)
        return Evaluation(Status.CORRECT, "", "cuda", "quick", 0.1, score, plan_digest=plan)

    def compare(self, speed: float, incumbent: Incumbent) -> Comparison:
        """Draw rounds until they decide."""
        former, plan = _read(incumbent.candidate.source)
        ratios = tuple(float(np.log(speed / former) + NOISE * self._random.normal()) for _ in range(ROUNDS[-1]))
        margin = RunConfig().equivalence_margin
        for count in ROUNDS:
            verdict = decide(ratios[:count], incumbent.alpha, margin)
            if verdict is not Verdict.UNDECIDED:
                break
        return Comparison(plan, incumbent.alpha, ratios[:count], verdict)


def _read(source: str) -> tuple[float, str]:
    """Return speed and plan digest."""
    line, _, more = source.partition("\n")
    names: dict[str, object] = {}
    exec(line, names)
    speed = float(str(names["tflops"])) * (0.5 if "canary" in more else 1.0)
    return speed, str(names.get("plan", f"plan of {speed}"))
