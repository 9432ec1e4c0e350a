"""A judge whose answers are kept on disk with what they cost, so that runs of several operators share them."""

import hashlib
import os
import pickle
import resource
import time
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from avo.evaluator.evaluators import AnyRequest, EvaluateRequest, Evaluator, VerifyRequest
from avo.evaluator.sandbox.patience import processor_s
from avo.evaluator.target import Target
from avo.evaluator.targets import get_target

ROOT = Path(__file__).parents[2]


@cache
def version_of_the_judge() -> str:
    """Return what identifies the evaluator's sources: an answer holds as long as these are the same."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "evaluator").rglob("*.py")):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class RememberingJudge(Evaluator):
    """A judge in this process that is asked each question once, whoever asked it first.

    ``spent`` is the processor time, in seconds, that all its answers took when they were first given, each counted
    once, and ``worked`` what this process itself took to give the new ones among them.
    """

    def __init__(self, target: str, suite: str, folder: Path, closely_from: float = 0.0) -> None:
        """``folder`` keeps the answers; several processes may share it.

        Candidates below ``closely_from`` TFLOPS are not examined closely; their ordinary verdict is used instead.
        """
        self._target, self._suite = target, suite
        self._folder = folder / version_of_the_judge() / f"{target}-{suite}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._closely_from = closely_from
        self.spent = self.worked = 0.0
        self._counted: set[str] = set()

    @property
    def target(self) -> Target:
        """What it judges for."""
        return get_target(self._target)

    def ask(self, request: AnyRequest) -> Any:
        """Return the answer, as it was given the first time."""
        if isinstance(request, VerifyRequest):
            _, verdict = self._answered(EvaluateRequest(request.candidate))
            if verdict.geomean_tflops < self._closely_from:
                return verdict
        seconds, answer = self._answered(request)
        if (question := repr(request)) not in self._counted:
            self._counted.add(question)
            self.spent += seconds
        return answer

    def _answered(self, request: AnyRequest) -> tuple[float, Any]:
        """Return the processor time in seconds that an answer took when it was first given, and the answer."""
        kept = self._folder / hashlib.sha256(repr(request).encode()).hexdigest()
        if kept.exists():
            found: tuple[float, Any] = pickle.loads(kept.read_bytes())
            return found
        own = time.process_time()  # before the judge is made: that is nobody's work
        started = self._clock()
        answer = self._judge.ask(request)
        seconds = self._clock() - started
        self.worked += time.process_time() - own
        written = kept.with_suffix(f".{os.getpid()}")
        written.write_bytes(pickle.dumps((seconds, answer)))
        written.replace(kept)
        return seconds, answer

    def close(self) -> None:
        """End the judge, if one was needed."""
        if "_judge" in vars(self):
            self._judge.close()

    @cached_property
    def _judge(self) -> Any:
        import torch

        from avo.evaluator.judging.judge import Judge
        from avo.evaluator.serving.memory import collect_seldom, keep_freed_memory

        keep_freed_memory()
        torch.set_num_threads(1)
        collect_seldom()
        return Judge(self.target, self._suite)

    def _clock(self) -> float:
        """Return the seconds of processor time of this process, of the judge's jobs, and of servers that ended."""
        server, ended = self._judge._server.pid, resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + ended.ru_utime + ended.ru_stime + (processor_s(server) if server else 0.0)
