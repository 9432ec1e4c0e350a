"""Workers as Ray actors: operators, and the evaluators that they share. The only module that knows Ray."""

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property, partial
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from agents.errors import AgentError
from agents.operator import VariationOperator
from agents.registry import asks_models, get_operator
from avo.config import LOCAL, RunConfig
from avo.errors import ConfigError, RunFailed
from avo.search.budget import Allowance
from avo.search.evaluators import Pool, judge_process
from avo.search.population import population
from avo.search.run import Report, utc_now, worker_name
from avo.search.step import SeedOperator, StepOutcome, perform_step
from evaluator.errors import EvaluatorError, EvaluatorUnavailable
from evaluator.evaluators import AnyRequest, Evaluator, suite_of
from evaluator.target import Target
from knowledge_base.library import Library
from lineage_db.errors import StoreError
from lineage_db.store import Store

START_S = 600.0
"""Longest wait for an evaluator to start: on a cluster a node may have to come up for it first."""
_LOOK_S = 5.0
"""Between looks whether Ray is still there."""
_GONE_S = 20.0
"""How long Ray may be out of sight. It would end this process by itself a minute after its head was lost."""
_HERE = "auto"
"""The address of the cluster that this machine is a node of."""
_OUTSIDE = "ray://"
"""How addresses of clusters begin that are reached from outside, by Ray Client."""
_OBJECT_STORE_BYTES = 80 * 2**20
"""Ray's minimum is 75 MiB; what passes through is sources and evaluations, a few kilobytes each."""


class EvaluatorWorker:
    """Owns one evaluator."""

    def __init__(self, make_evaluator: Callable[[], Evaluator]) -> None:
        self._evaluator = make_evaluator()

    def ask(self, request: AnyRequest) -> Any:
        """Return the answer; raises ``EvaluatorUnavailable``."""
        return self._evaluator.ask(request)

    def target(self) -> Target:
        """Return what is judged for; raises ``EvaluatorUnavailable``."""
        return self._evaluator.target


class EvaluatorPool:
    """Owns the evaluator workers, which all operator workers share."""

    def __init__(self, make_evaluator: Callable[[], Evaluator], evaluator_actor: Any, count: int) -> None:
        self._make_evaluator = make_evaluator
        self._actor = evaluator_actor
        self._count = count
        self._pool: Pool[Any] | None = None

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Return what the method of the next free evaluator worker does; raises ``EvaluatorUnavailable``."""
        if self._pool is None:
            self._pool = Pool(self._start, ray.kill, self._count)
        return await self._pool.ask(lambda evaluator: _answer(getattr(evaluator, method).remote(*arguments)))

    async def _start(self) -> Any:
        evaluator = self._actor.remote(self._make_evaluator)
        try:
            await asyncio.wait_for(_answer(evaluator.target.remote()), START_S)
        except TimeoutError:
            ray.kill(evaluator)
            raise EvaluatorUnavailable(
                f"no evaluator starts within {START_S:.0f} s: look at ray status for the resources it waits for"
            ) from None
        return evaluator


class RemoteEvaluator(Evaluator):
    """The evaluators of the pool, seen from an operator worker."""

    def __init__(self, pool: Any, suite: str) -> None:
        self._pool = pool
        self._suite = suite

    @cached_property
    def target(self) -> Target:
        """What the evaluators judge for; raises ``EvaluatorUnavailable``."""
        target: Target = self._call("target")
        return target

    def ask(self, request: AnyRequest) -> Any:
        """Return the answer; raises ``EvaluatorUnavailable`` also when the evaluator worker is gone."""
        suite_of(request, self._suite)  # so that a name that does not exist is an error here
        return self._call("ask", request)

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return ray.get(self._pool.ask.remote(method, *arguments))
        except RayError as error:
            raise EvaluatorUnavailable(_reason("evaluator", error)) from error


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
        deadline: datetime | None = None,
    ) -> None:
        self._store = Store.open(store_url, create=False)
        self._run = self._store.run(run_name)
        self._worker = worker
        self._config = config
        self._operator = make_operator()
        self._evaluator = RemoteEvaluator(evaluator, self._run.suite)
        self._knowledge = Library.load()
        self._allowance = Allowance.of(config, deadline)

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
                allowance=self._allowance,
                adviser=self._config.settings if asks_models(self._config.operator) else None,
            )
        except (EvaluatorError, StoreError, AgentError) as error:
            return str(error)


class RayCrew:
    """Operator workers, each replaced when it fails."""

    def __init__(self, hire_operator: Callable[[int], Any], count: int, head: str | None) -> None:
        """``head`` is the ``HOST:PORT`` at which Ray's head can be reached from here, if it can."""
        self._head = head
        self._hire = hire_operator
        self._operators = [hire_operator(worker) for worker in range(count)]
        self._steps: dict[Any, int] = {}
        self._looked = self._seen = time.monotonic()

    def start(self, worker: int, seed_source: str | None) -> None:
        """Begin a step."""
        with _in_reach():
            self._steps[self._operators[worker].step.remote(seed_source)] = worker

    def wait(self, timeout_s: float) -> list[Report]:
        """Return the steps that ended, waiting up to ``timeout_s`` for the first."""
        with _in_reach():
            self._look()
            ended, _ = ray.wait(list(self._steps), timeout=timeout_s)
            return [self._report(step, self._steps.pop(step)) for step in ended]

    def replace(self, worker: int) -> None:
        """Put another worker in the place of one, whatever it is doing."""
        with _in_reach():
            ray.kill(self._operators[worker])
            self._steps = {step: other for step, other in self._steps.items() if other != worker}
            self._operators[worker] = self._hire(worker)

    def _look(self) -> None:
        """Raise ``RunFailed`` where Ray is gone: neither steps nor new workers would ever come."""
        now = time.monotonic()
        if now < self._looked + _LOOK_S:
            return
        self._looked = now
        if self._head is not None and not _answers(self._head):  # asked for its nodes it would not return
            if now > self._seen + _GONE_S:
                raise RunFailed(f"Ray's head does not answer for {now - self._seen:.0f} s: resume the run")
            return
        self._seen = now
        if not any(node["Alive"] for node in ray.nodes()):  # type: ignore[no-untyped-call]
            raise RunFailed("Ray has no node left, its processes were killed: resume the run")

    def _report(self, step: Any, worker: int) -> Report:
        try:
            outcome: StepOutcome | str = ray.get(step)
        except RayError as error:
            outcome = _reason("operator", error)
        if isinstance(outcome, StepOutcome):
            return Report(worker, outcome)
        self.replace(worker)
        return Report(worker, None, outcome)


@contextmanager
def hire(
    store_url: str,
    run_name: str,
    config: RunConfig,
    *,
    make_operator: Callable[[], VariationOperator] | None = None,
    make_evaluator: Callable[[], Evaluator] | None = None,
    deadline: datetime | None = None,
) -> Iterator[RayCrew]:
    """Start Ray on this machine or join a cluster, yield a crew for the run, and end what was started again.

    ``deadline`` is the end of the sitting, at which steps end in order. The factories are called in the workers; by
    default they make the configured operator and an evaluator process. Raises ``RunFailed`` where Ray does not start,
    and ``ConfigError`` where the database cannot serve the cluster.
    """
    make_operator = make_operator or partial(get_operator, config.operator, config.settings)
    make_evaluator = make_evaluator or partial(judge_process, config)
    count, gpus = config.evaluators or config.workers, _gpus_per_evaluator(config)
    evaluator_actor: Any = ray.remote(
        num_cpus=1,
        num_gpus=gpus,
        resources=config.evaluator_resources,
        max_restarts=0,
        scheduling_strategy="SPREAD",
    )(EvaluatorWorker)
    pool_actor: Any = ray.remote(num_cpus=0, max_restarts=-1)(EvaluatorPool)
    operator_actor: Any = ray.remote(num_cpus=0, max_restarts=0, scheduling_strategy="SPREAD")(OperatorWorker)

    def hire_operator(worker: int) -> Any:
        return operator_actor.remote(store_url, run_name, worker_name(worker), config, make_operator, pool, deadline)

    if config.ray_address == LOCAL:
        house = _local_ray(
            count, count * gpus, {name: count * each for name, each in config.evaluator_resources.items()}
        )
    else:
        house = _cluster(config.ray_address, store_url)
    with house:
        outside = config.ray_address.startswith(_OUTSIDE)
        head = None if outside else ray.get_runtime_context().gcs_address
        pool = pool_actor.remote(make_evaluator, evaluator_actor, count)
        yield RayCrew(hire_operator, config.workers, head)


def _gpus_per_evaluator(config: RunConfig) -> int:
    """Return how many of this machine's GPUs an evaluator takes: one to measure on, none to predict or to ask another
    machine.
    """
    return int(config.measured and config.evaluator_command is None)


@contextmanager
def _cluster(address: str, store_url: str) -> Iterator[None]:
    """Join the cluster at ``address``, whose nodes all have AVO installed, as one of its jobs."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Ray itself would go on trying for many minutes, without a word.
    if address != _HERE and not _answers(address.removeprefix(_OUTSIDE)):
        raise ConfigError(
            f"--ray-address: nobody answers at {address}: give auto, HOST:PORT or ray://HOST:PORT of a running cluster"
        )
    try:
        with _start_failures(), _own_signals():
            ray.init(
                address=address,
                logging_level=logging.ERROR,
                log_to_driver=False,
                runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
            )
        nodes = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
        if nodes > 1 and store_url.startswith("sqlite"):
            raise ConfigError(
                f"--db: an SQLite file serves one machine, and the cluster at {address} has {nodes} nodes: "
                "use PostgreSQL, e.g. --db postgresql://USER@HOST/NAME"
            )
        yield
    finally:
        ray.shutdown()


@contextmanager
def _local_ray(cpus: int, gpus: int, resources: dict[str, float]) -> Iterator[None]:
    """Start Ray for this process alone: on the loopback interface, with a token and a folder of its own."""
    # Below /tmp, whatever TMPDIR says: Ray's sockets get paths below this one, and a socket's path may have 107 bytes.
    folder = tempfile.mkdtemp(prefix="avo-", dir="/tmp")
    # For Ray's processes; what the judges leave behind in their temporary folder goes with ours.
    environment = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "TMPDIR": folder}
    # Ray asks for a token by default; without this it would keep one in the home folder. It reads it once a process.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        # Ray puts the current folder first on the workers' import path, where a folder may be called like one of ours.
        with contextlib.chdir(folder), _environment(environment), _start_failures(), _own_signals():
            ray.init(
                address="local",
                num_cpus=cpus,
                num_gpus=gpus,
                resources=resources,
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                _node_ip_address="127.0.0.1",
                _temp_dir=folder,
            )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Put back the handler of SIGTERM: Ray installs its own, which ends the process without a word."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


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


@contextmanager
def _in_reach() -> Iterator[None]:
    """Raise ``RunFailed`` where Ray cannot be asked any more; from outside a cluster that may be any error of gRPC."""
    try:
        yield
    except RunFailed:
        raise
    except Exception as error:
        raise RunFailed(f"Ray cannot be reached any more ({type(error).__name__}): resume the run") from error


def _answers(address: str) -> bool:
    """Whether somebody listens at ``HOST:PORT``."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LOOK_S).close()
    except (OSError, ValueError):
        return False
    return True


async def _answer(call: Any) -> Any:
    """Wait for what an evaluator worker returns; raise ``EvaluatorUnavailable`` when that fails."""
    try:
        return await call
    except RayError as error:
        raise EvaluatorUnavailable(_reason("evaluator", error)) from None


def _reason(who: str, error: RayError) -> str:
    """Return in one line why a call to a worker failed."""
    why = str(error).strip().splitlines()[-1]  # of a traceback: the exception
    if isinstance(error, RayActorError):
        return f"the {who} does not start: {why}" if error.actor_init_failed else f"the {who}'s process died"
    if isinstance(cause := getattr(error, "cause", None), EvaluatorUnavailable):
        return str(cause)
    return f"the {who}'s process failed: {why}"
