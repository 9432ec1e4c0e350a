"""Workers as Ray actors on this machine: pairs of an operator and its evaluator. The only module that knows Ray."""

import contextlib
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError, RayError

from agents.errors import AgentError
from agents.operator import VariationOperator
from agents.registry import get_operator
from avo.config import RunConfig
from avo.errors import RunFailed
from avo.population import population
from avo.run import Report, utc_now, worker_name
from avo.step import SeedOperator, StepOutcome, perform_step
from evaluator.candidate import Candidate, Incumbent
from evaluator.errors import EvaluatorError, EvaluatorUnavailable
from evaluator.evaluation import Evaluation, Fault
from evaluator.evaluators import Judging
from evaluator.problem import get_cases, get_problem
from evaluator.process import ProcessEvaluator
from evaluator.sandbox import Sandbox
from evaluator.target import Target
from knowledge_base.library import Library
from lineage_db.errors import StoreError
from lineage_db.store import Store

if TYPE_CHECKING:
    from evaluator.performance import Profile

_OBJECT_STORE_BYTES = 80 * 2**20
"""Ray's minimum is 75 MiB; what passes through is sources and evaluations, a few kilobytes each."""


class EvaluatorWorker:
    """Owns one evaluator."""

    def __init__(self, make_evaluator: Callable[[], Judging]) -> None:
        self._evaluator = make_evaluator()

    def evaluate(self, candidate: Candidate, incumbent: Incumbent | None) -> Evaluation:
        """Return the verdict; raises ``EvaluatorUnavailable``."""
        return self._evaluator.evaluate(candidate, incumbent)

    def verify(self, candidate: Candidate) -> Evaluation:
        """Return the verdict on held-out shapes; raises ``EvaluatorUnavailable``."""
        return self._evaluator.verify(candidate)

    def profile(self, candidate: Candidate, case: str | None) -> "tuple[Profile, ...] | Fault":
        """Return the explanation; raises ``EvaluatorUnavailable``."""
        return self._evaluator.profile(candidate, case)

    def target(self) -> Target:
        """Return what is judged for; raises ``EvaluatorUnavailable``."""
        return self._evaluator.target


class RemoteEvaluator:
    """The evaluator that an evaluator worker owns, seen from an operator worker."""

    def __init__(self, actor: Any, suite: str) -> None:
        self._actor = actor
        self._suite = suite

    @cached_property
    def target(self) -> Target:
        """What the evaluator judges for; raises ``EvaluatorUnavailable``."""
        target: Target = _result(self._actor.target.remote())
        return target

    def evaluate(self, candidate: Candidate, incumbent: Incumbent | None = None) -> Evaluation:
        """Return the verdict; raises ``EvaluatorUnavailable``, also when the evaluator worker is gone."""
        evaluation: Evaluation = _result(self._actor.evaluate.remote(candidate, incumbent))
        return evaluation

    def verify(self, candidate: Candidate) -> Evaluation:
        """Return the verdict on held-out shapes; raises like ``evaluate``."""
        evaluation: Evaluation = _result(self._actor.verify.remote(candidate))
        return evaluation

    def profile(self, candidate: Candidate, case: str | None = None) -> "tuple[Profile, ...] | Fault":
        """Return the explanation; raises ``UnknownProblem`` for a case that is none, else like ``evaluate``."""
        get_cases(get_problem(candidate.problem), self._suite, case)
        profiles: tuple[Profile, ...] | Fault = _result(self._actor.profile.remote(candidate, case))
        return profiles


class OperatorWorker:
    """Performs steps of one run with one operator."""

    def __init__(
        self,
        store_url: str,
        run_name: str,
        worker: str,
        config: RunConfig,
        make_operator: Callable[[], VariationOperator],
        evaluator: Any,
    ) -> None:
        self._store = Store.open(store_url, create=False)
        self._run = self._store.run(run_name)
        self._worker = worker
        self._config = config
        self._operator = make_operator()
        self._evaluator = RemoteEvaluator(evaluator, self._run.suite)
        self._knowledge = Library.load()

    def step(self, seed_source: str | None) -> StepOutcome | str:
        """Perform one step. Text instead of an outcome says which part of the house failed."""
        operator = self._operator if seed_source is None else SeedOperator(seed_source)
        try:
            return perform_step(
                self._store,
                self._run,
                operator,
                self._evaluator,
                worker=self._worker,
                min_gain=self._config.min_gain,
                alpha=self._config.alpha,
                patience=self._config.patience,
                population=population(self._config),
                clock=utc_now,
                knowledge=self._knowledge,
            )
        except (EvaluatorError, StoreError, AgentError) as error:
            return str(error)


class RayCrew:
    """Pairs of an operator worker and an evaluator worker; a pair is replaced as a whole when either fails."""

    def __init__(self, hire_pair: Callable[[int], tuple[Any, Any]], count: int) -> None:
        self._hire_pair = hire_pair
        self._pairs = [hire_pair(worker) for worker in range(count)]
        self._steps: dict[Any, int] = {}

    def start(self, worker: int, seed_source: str | None) -> None:
        """Begin a step."""
        operator, _ = self._pairs[worker]
        self._steps[operator.step.remote(seed_source)] = worker

    def wait(self, timeout_s: float) -> list[Report]:
        """Return the steps that ended, waiting up to ``timeout_s`` for the first."""
        ended, _ = ray.wait(list(self._steps), timeout=timeout_s)
        return [self._report(step, self._steps.pop(step)) for step in ended]

    def _report(self, step: Any, worker: int) -> Report:
        try:
            outcome: StepOutcome | str = ray.get(step)
        except RayError as error:
            outcome = _reason("operator", error)
        if isinstance(outcome, StepOutcome):
            return Report(worker, outcome)
        for actor in self._pairs[worker]:
            ray.kill(actor)
        self._pairs[worker] = self._hire_pair(worker)
        return Report(worker, None, outcome)


@contextmanager
def hire(
    store_url: str,
    run_name: str,
    config: RunConfig,
    *,
    make_operator: Callable[[], VariationOperator] | None = None,
    make_evaluator: Callable[[], Judging] | None = None,
) -> Iterator[RayCrew]:
    """Start Ray on this machine, yield a crew for the run, and end every process again.

    The factories are called in the workers; by default they make the configured operator and an evaluator process.
    """
    make_operator = make_operator or partial(get_operator, config.operator)
    make_evaluator = make_evaluator or partial(
        ProcessEvaluator,
        config.target,
        config.suite,
        config.evaluation_wall_s,
        sandbox=Sandbox(config.sandbox),
        command=config.evaluator_command,
        options=_measuring(config),
    )
    gpus = _gpus_per_evaluator(config)
    operator_actor: Any = ray.remote(num_cpus=0, max_restarts=0)(OperatorWorker)
    evaluator_actor: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0)(EvaluatorWorker)

    def hire_pair(worker: int) -> tuple[Any, Any]:
        evaluator = evaluator_actor.remote(make_evaluator)
        operator = operator_actor.remote(store_url, run_name, worker_name(worker), config, make_operator, evaluator)
        return operator, evaluator

    with _local_ray(config.workers, gpus * config.workers):
        yield RayCrew(hire_pair, config.workers)


def _gpus_per_evaluator(config: RunConfig) -> int:
    """Return how many of this machine's GPUs an evaluator takes: one to measure on, none to predict or to ask another
    machine.
    """
    return int(config.measured and config.evaluator_command is None)


def _measuring(config: RunConfig) -> tuple[str, ...]:
    """Return the judge's arguments that matter where speed is measured."""
    if not config.measured:
        return ()
    return ("--equivalence-margin", str(config.equivalence_margin), "--cascade", str(config.cascade))


@contextmanager
def _local_ray(cpus: int, gpus: int) -> Iterator[None]:
    """Start Ray for this process alone: on the loopback interface, with a token and a folder of its own."""
    # Below /tmp, whatever TMPDIR says: Ray's sockets get paths below this one, and a socket's path may have 107 bytes.
    folder = tempfile.mkdtemp(prefix="avo-", dir="/tmp")
    # For Ray's processes; what the judges leave behind in their temporary folder goes with ours.
    environment = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "TMPDIR": folder}
    # Ray asks for a token by default; without this it would keep one in the home folder. It reads it once a process.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    logging.getLogger("ray").setLevel(logging.ERROR)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        # Ray puts the current folder first on the workers' import path, where a folder may be called like one of ours.
        with contextlib.chdir(folder), _environment(environment), _start_failures():
            ray.init(
                address="local",
                num_cpus=cpus,
                num_gpus=gpus,
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                _node_ip_address="127.0.0.1",
                _temp_dir=folder,
            )
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray installs its own, which ends the process without a word
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for as long as the context lasts."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


@contextmanager
def _start_failures() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Ray starts several processes and has no error class for what may go wrong there
        raise RunFailed(f"Ray does not start ({error}): look at avo doctor") from error


def _result(call: Any) -> Any:
    """Wait for what an evaluator worker returns; raise ``EvaluatorUnavailable`` when that fails."""
    try:
        return ray.get(call)
    except RayError as error:
        raise EvaluatorUnavailable(_reason("evaluator", error)) from error


def _reason(who: str, error: RayError) -> str:
    """Return in one line why a call to a worker failed."""
    if isinstance(error, RayActorError):
        return f"the {who}'s process died"
    return f"the {who}'s process failed: {str(error).strip().splitlines()[-1]}"
