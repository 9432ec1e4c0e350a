"""The judge: the trusted side. It never imports a candidate; it runs the candidate's launch plans and decides."""

import random
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from avo.evaluator import capture
from avo.evaluator.candidate import Candidate, Incumbent
from avo.evaluator.capture import Capturer
from avo.evaluator.capture.scripts import JOB_MODULE as SCRIPT_MODULE
from avo.evaluator.capture.scripts import run_script
from avo.evaluator.catalogue import get_cases, get_problem, get_suite
from avo.evaluator.compiling import compiler
from avo.evaluator.compiling.compiler import Compiler
from avo.evaluator.evaluation import Evaluation, Fault, Score
from avo.evaluator.evaluators import AnyRequest, EvaluateRequest, Evaluator, ProfileRequest, Tell, VerifyRequest
from avo.evaluator.inspection import Findings, Inspection, Look
from avo.evaluator.judging.buffers import InputCache
from avo.evaluator.judging.cases import Cases, Tools
from avo.evaluator.judging.examination import Examination
from avo.evaluator.judging.planning import Planner
from avo.evaluator.judging.refusal import Refused, outcome
from avo.evaluator.judging.speed import CompiledPlan, Instruments, Predicted, Speed
from avo.evaluator.performance.profiling import MOST_COSTS
from avo.evaluator.problem import HELD_OUT, Case, smallest_of_each
from avo.evaluator.sandbox.isolation import Sandbox
from avo.evaluator.sandbox.jobs import ForkServer
from avo.evaluator.target import ScoreKind, Target
from avo.evaluator.temporary import TemporaryFolder

JOB_MODULES = (capture.CHILD_MODULE, compiler.JOB_MODULE, SCRIPT_MODULE)
"""Modules whose jobs a judge's fork server runs."""
_MOST_KEPT = 10_000
"""Most verdicts that are kept, and most predictions."""
_MOST_BINARIES = 500
"""Most binaries that are kept, of about half a megabyte: in a week a judge compiles hundreds of thousands."""
_Key = TypeVar("_Key")
_Kept = TypeVar("_Kept")


class Judge(Evaluator):
    """Judges candidates for one target and suite. Not thread-safe; ``close`` when done."""

    def __init__(
        self,
        target: Target,
        suite: str,
        *,
        sandbox: Sandbox = Sandbox.AUTO,
        server: ForkServer | None = None,
        speed: Speed | None = None,
        instruments: Instruments | None = None,
    ) -> None:
        """``speed`` tells how fast correct candidates are; by default the performance model does, without
        ``instruments``.

        Several judges may share a ``server``, which must serve ``JOB_MODULES`` and is left running. Without one the
        judge starts its own, under ``sandbox``.
        """
        self.suite = suite
        self._private = TemporaryFolder("judge")
        self._shared = server is not None
        self._server = server = server or ForkServer(JOB_MODULES, sandbox=sandbox)
        cached = Compiler(Path(self._private.name), server=server, most_kept=_MOST_BINARIES)
        capturer = Capturer(server)
        # Seeds are this process's secret; and as candidates never meet data, inputs may serve many of them.
        chance = random.Random(secrets.randbits(64))
        self._tools = Tools(
            target=target,
            planner=Planner(capturer, cached, target),
            compiler=cached,
            speed=speed or Predicted(target),
            inputs=InputCache(chance.getrandbits(62)),
            chance=chance,
            instruments=instruments or Instruments(),
        )
        self._judged: dict[tuple[str, str, Incumbent | None], tuple[Evaluation, int]] = {}
        """Verdicts by suite, digest of the plans and incumbent, each with the hash of the source."""
        self._predicted: dict[tuple[Look, str, str], Findings] = {}
        """What looks at the speed found, by suite and digest of the plans."""

    def close(self) -> None:
        """End the child processes and remove temporary files."""
        if not self._shared:
            self._server.close()
        self._private.cleanup()

    @property
    def target(self) -> Target:
        """What it judges for."""
        return self._tools.target

    @property
    def compiler(self) -> Compiler:
        """What it compiles kernels with."""
        return self._tools.compiler

    def planned(self, candidate: Candidate) -> tuple[CompiledPlan, ...]:
        """Return the fastest plan for each case of the suite; its numbers are not checked. Raises ``Refused``."""
        return self._captured(candidate, (), get_suite(get_problem(candidate.problem), self.suite)).planned()

    def ask(self, request: AnyRequest) -> Any:
        """Return the answer, see ``follow``."""
        return self.follow(request, lambda progress: None)

    def follow(self, request: AnyRequest, tell: Tell) -> Any:
        """Return the answer; if it is a verdict, ``tell`` hears how many checks are done.

        Raises ``EvaluatorUnavailable`` when a child process does not start, or when the incumbent can no longer be
        timed.
        """
        match request:
            case EvaluateRequest(candidate, incumbent):
                against = incumbent if self.target.kind is ScoreKind.MEASURED else None
                return self._evaluate(candidate, self.suite, against, tell)
            case VerifyRequest(candidate, plan_digest):
                return self._verify(candidate, plan_digest, tell)
            case ProfileRequest(candidate, case):
                cases = get_cases(get_problem(candidate.problem), self.suite, case)
                return outcome(lambda: self._captured(candidate, (), cases).profiles(MOST_COSTS, counted=True))
            case Inspection():
                return self._inspect(request)

    def _verify(self, candidate: Candidate, plan_digest: str | None, tell: Tell) -> Evaluation:
        """Return the verdict at the suite's cases and the held-out ones in larger samples, at the small cases and one
        of the large ones at newly drawn lengths, and wherever ``closely`` looks.
        """
        problem, chance = get_problem(candidate.problem), self._tools.chance
        suite = get_suite(problem, self.suite)
        name = HELD_OUT if HELD_OUT in problem.suites else self.suite
        scored = get_suite(problem, name)
        shown = () if name == self.suite else suite
        small = tuple(_sized(problem.at_other_lengths(case, chance)) for case in problem.correctness_cases)
        drawn = _sized(problem.at_other_lengths(chance.choice((*scored, *shown)), chance))
        with self._tools.inputs.passing():
            cases = Cases(name, small, scored, (*shown, drawn), suite, plan_digest)
            return self._verdict(candidate, cases, None, tell)

    def _inspect(self, inspection: Inspection) -> Findings:
        if inspection.look is Look.SCRIPT:
            return run_script(self._server, inspection.source)
        candidate = Candidate(inspection.problem, inspection.source)
        if inspection.look is Look.SCORE:
            evaluation = self._evaluate(candidate, inspection.suite or self.suite, None)
            fault = None if evaluation.correct else Fault(evaluation.status, evaluation.message)
            return Findings(fault, evaluation=evaluation)
        problem = get_problem(inspection.problem)
        try:
            if inspection.look is Look.CHECK:
                small = smallest_of_each(problem.correctness_cases)
                return self._captured(candidate, small, get_suite(problem, self.suite)).check()
            if inspection.look in (Look.SPEED, Look.RANK):
                return self._look(self._captured(candidate, (), get_suite(problem, self.suite)), inspection.look)
            first, *_ = get_cases(problem, self.suite, inspection.case)
            captured = self._captured(candidate, (), (first,))
            if inspection.look is Look.IR:
                return Findings(text=captured.ir(inspection.before))
            return Findings(text=captured.code(inspection.look))
        except Refused as refused:
            return Findings(refused.fault)

    def _look(self, examination: Examination, look: Look) -> Findings:
        """Return the predicted speed; different sources with the same launch plans are played once."""
        assert examination.plan_digest is not None
        known = self._predicted.get(key := (look, self.suite, examination.plan_digest))
        found = known or examination.speed(ranked=look is Look.RANK)
        if found.score is not None:
            _keep(self._predicted, key, found)
        return found

    def _captured(self, candidate: Candidate, small: tuple[Case, ...], large: tuple[Case, ...]) -> Examination:
        examination = Examination(self._tools, candidate, Cases(self.suite, small, large))
        examination.capture()
        return examination

    def _evaluate(
        self, candidate: Candidate, suite: str, incumbent: Incumbent | None, tell: Tell | None = None
    ) -> Evaluation:
        problem = get_problem(candidate.problem)
        cases = Cases(suite, problem.correctness_cases, get_suite(problem, suite))
        return self._verdict(candidate, cases, incumbent, tell)

    def _verdict(
        self, candidate: Candidate, cases: Cases, incumbent: Incumbent | None, tell: Tell | None
    ) -> Evaluation:
        examination = Examination(self._tools, candidate, cases, tell)
        digest = outcome(examination.capture)
        if isinstance(digest, Fault):
            return examination.evaluation(digest)
        known = self._judged.get((cases.suite, digest, incumbent))
        if known is not None:
            fickle = outcome(examination.repeat) if known[0].correct else None
            if fickle:
                return examination.evaluation(fickle)
            return replace(_of_another(*known, candidate), seconds=examination.seconds)
        found: Score | Fault = outcome(lambda: examination.score(incumbent))
        evaluation = examination.evaluation(found)
        if evaluation.correct or evaluation.refused:
            _keep(self._judged, (cases.suite, digest, incumbent), (evaluation, hash(candidate.source)))
        return evaluation


def _keep(kept: dict[_Key, _Kept], key: _Key, value: _Kept) -> None:
    """Add an entry, and drop the oldest where there are too many."""
    kept[key] = value
    if len(kept) > _MOST_KEPT:
        del kept[next(iter(kept))]


def _sized(case: Case) -> Case:
    """Return a drawn case with its size in its name, so that the verdict tells what was drawn."""
    size = f"batch {case.batch}, {case.heads} heads, {case.q_len} queries, {case.kv_len} keys"
    return replace(case, name=f"{case.name} at {size}")


def _of_another(evaluation: Evaluation, judged: int, candidate: Candidate) -> Evaluation:
    """Return the evaluation of a source with hash ``judged`` as that of a candidate with the same plans."""
    if evaluation.correct or judged == hash(candidate.source):
        return evaluation
    message = f"{evaluation.message}; seen in another source with the same launch plans, whose lines may be elsewhere"
    return replace(evaluation, message=message)
