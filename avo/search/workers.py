"""Workers as Ray actors: operators, and the evaluators that they share."""

import asyncio
import math
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property, partial
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from avo.agents.errors import AgentError
from avo.agents.operator import VariationOperator
from avo.agents.registry import asks_models, get_operator
from avo.config import RunConfig
from avo.errors import RayGone
from avo.evaluator.errors import EvaluatorError, EvaluatorUnavailable
from avo.evaluator.evaluators import AnyRequest, Evaluator, Progress, Tell, suite_of
from avo.evaluator.inspection import Findings, Inspection, Look
from avo.evaluator.target import Target
from avo.knowledge_base.library import Library
from avo.lineage_db.errors import StoreError
from avo.lineage_db.store import Store
from avo.search.budget import Allowance
from avo.search.cluster import answers, ray_running
from avo.search.evaluators import Pool
from avo.search.judging import GPU, Judging
from avo.search.run import WorkerReport, utc_now, worker_name
from avo.search.seeding import seed_operator
from avo.search.step import StepOutcome, Work
from avo.search.transfer import timing_first

START_S = 600.0
"""Longest wait for an evaluator to start: on a cluster a node may have to come up for it first."""
_TELL_S = 1.0
"""Seconds between questions how far an answer is."""
_LOOKS_KEPT = 1000
"""Most looks at candidates whose findings the pool keeps."""
_LOOK_S = 5.0
"""Seconds between checks that Ray is still there."""
_GONE_S = 20.0
"""How long Ray may not answer, in seconds. Ray itself ends this process a minute after it loses its head."""


class EvaluatorWorker:
    """Owns one evaluator."""

    def __init__(self, make_evaluator: Callable[[], Evaluator]) -> None:
        self._evaluator = make_evaluator()

    def ask(self, request: AnyRequest) -> Any:
        """Return the answer; raises ``EvaluatorUnavailable``."""
        return self._evaluator.ask(request)

    def follow(self, request: AnyRequest, pool: Any, key: str) -> Any:
        """Return the answer like ``ask``; the actor ``pool`` hears how far it is, under ``key``."""
        return self._evaluator.follow(request, lambda progress: pool.hear.remote(key, progress))

    def target(self) -> Target:
        """Return what is judged for; raises ``EvaluatorUnavailable``."""
        return self._evaluator.target


class EvaluatorPool:
    """Owns the evaluator workers, which all operator workers share."""

    def __init__(
        self, make_evaluator: Callable[[], Evaluator], evaluator_actor: Any, count: int, spare: int = 0
    ) -> None:
        """The ``spare`` ones of ``count`` evaluators are started when they are needed."""
        self._make_evaluator = make_evaluator
        self._actor = evaluator_actor
        self._count = count
        self._spare = spare
        self._pool: Pool[Any] | None = None
        self._heard: dict[str, Progress] = {}
        self._looks: dict[Inspection, asyncio.Future[Any]] = {}

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Return what the method of the next free evaluator worker does; raises ``EvaluatorUnavailable``.

        Workers that see the same record look at the same candidates: each is looked at once.
        """
        if self._pool is None:
            self._pool = Pool(self._start, ray.kill, self._count, self._spare)
        ask = partial(self._pool.ask, lambda evaluator: _answer(getattr(evaluator, method).remote(*arguments)))
        look = next((each for each in arguments if isinstance(each, Inspection) and each.look is Look.SPEED), None)
        if look is None:
            return await ask()
        known = self._looks.get(look)
        if known is None or (known.done() and (known.cancelled() or known.exception())):
            known = self._looks[look] = asyncio.ensure_future(ask())
            if len(self._looks) > _LOOKS_KEPT:
                del self._looks[next(iter(self._looks))]
        return await asyncio.shield(known)

    async def follow(self, request: AnyRequest, key: str) -> Any:
        """Return the answer like ``ask``; meanwhile ``heard`` returns how far it is."""
        self._heard[key] = Progress()
        try:
            return await self.ask("follow", request, ray.get_runtime_context().current_actor, key)
        finally:
            self._heard.pop(key, None)  # Ray may ask twice

    async def hear(self, key: str, progress: Progress) -> None:
        """Note how far an answer is."""
        if key in self._heard:
            self._heard[key] = progress

    async def heard(self, key: str) -> Progress:
        """Return how far an answer is, as far as is known."""
        return self._heard.get(key, Progress())

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

    def __init__(self, pool: Any, suite: str, count: int) -> None:
        """``count`` evaluators are in the pool."""
        self._pool = pool
        self._suite = suite
        self._count = count

    @cached_property
    def target(self) -> Target:
        """What the evaluators judge for; raises ``EvaluatorUnavailable``."""
        target: Target = self._call("target")
        return target

    @property
    def at_once(self) -> int:
        """How many evaluators are in the pool."""
        return self._count

    def ask(self, request: AnyRequest) -> Any:
        """Return the answer; raises ``EvaluatorUnavailable`` also when the evaluator worker is gone."""
        suite_of(request, self._suite)  # so that a name that does not exist is an error here
        return self._call("ask", request)

    def follow(self, request: AnyRequest, tell: Tell) -> Any:
        """Return the answer like ``ask``; ``tell`` hears every second how far it is."""
        suite_of(request, self._suite)
        key, told = secrets.token_hex(8), Progress()
        try:
            answer = self._pool.follow.remote(request, key)
            while not ray.wait([answer], timeout=_TELL_S)[0]:
                if (heard := ray.get(self._pool.heard.remote(key))) != told:
                    told = heard
                    tell(heard)
            return ray.get(answer)
        except RayError as error:
            raise EvaluatorUnavailable(_reason("evaluator", error)) from error

    def inspect_all(self, inspections: Sequence[Inspection]) -> list[Findings]:
        """Return what is seen of each.

        No more wait at a time than there are evaluators, so that a long batch does not keep other workers waiting.
        """
        for each in inspections:
            suite_of(each, self._suite)
        with ThreadPoolExecutor(min(self._count, len(inspections)) or 1) as threads:
            return list(threads.map(lambda each: self._call("ask", each), inspections))

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
        store = Store.open(store_url, create=False)
        run = store.run(run_name)
        self._worker = worker
        self._operator = timing_first(make_operator(), run)
        judges = Judging.of(config).count
        self._seeding = seed_operator(run, judges=judges)
        self._work = Work(
            store,
            run,
            config,
            RemoteEvaluator(evaluator, run.suite, judges),
            Library.load(),
            utc_now,
            Allowance.of(config, deadline),
            adviser=config.settings if asks_models(config.operator) else None,
        )

    def step(self, seeding: bool) -> StepOutcome | str:
        """Perform one step, that of the seeds or one of the operator. A text instead of an outcome says why there is
        none.
        """
        operator = self._seeding if seeding else self._operator
        try:
            return self._work.perform(operator, self._worker)
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

    def start(self, worker: int, seeding: bool) -> None:
        """Begin a step."""
        with _in_reach():
            self._steps[self._operators[worker].step.remote(seeding)] = worker

    def wait(self, timeout_s: float) -> list[WorkerReport]:
        """Return the steps that ended, waiting up to ``timeout_s`` for the first."""
        with _in_reach():
            self._look()
            ended, _ = ray.wait(list(self._steps), timeout=timeout_s)
            return [self._report(step, self._steps.pop(step)) for step in ended]

    def replace(self, worker: int) -> None:
        """Replace a worker, whatever it is doing."""
        with _in_reach():
            ray.kill(self._operators[worker])
            self._steps = {step: other for step, other in self._steps.items() if other != worker}
            self._operators[worker] = self._hire(worker)

    def _look(self) -> None:
        """Raise ``RayGone`` where it is."""
        now = time.monotonic()
        if now < self._looked + _LOOK_S:
            return
        self._looked = now
        if self._head is not None and not answers(self._head):  # asking such a head for its nodes would never return
            if now > self._seen + _GONE_S:
                raise RayGone(f"Ray's head does not answer for {now - self._seen:.0f} s: resume the run")
            return
        self._seen = now
        if not any(node["Alive"] for node in ray.nodes()):  # type: ignore[no-untyped-call]
            raise RayGone("Ray has no node left, its processes were killed: resume the run")

    def _report(self, step: Any, worker: int) -> WorkerReport:
        try:
            outcome: StepOutcome | str = ray.get(step)
        except RayError as error:
            outcome = _reason("operator", error)
        if isinstance(outcome, StepOutcome):
            return WorkerReport(worker, outcome)
        self.replace(worker)
        return WorkerReport(worker, None, outcome)


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
    """Start Ray on this machine or use the joined cluster, yield a crew for the run, and end what was started again.

    ``deadline`` is the end of the session, at which steps end in order. The factories are called in the workers; by
    default they make the configured operator and an evaluator process. Raises as ``ray_running`` does.
    """
    make_operator = make_operator or partial(get_operator, config.operator, config.settings)
    judging = Judging.of(config)
    if judging.gpus:  # each judge sees the GPU that Ray gives it, of those that this process sees
        judging = Judging.of(config.model_copy(update={"device": None}))
    count, gpus = judging.count, judging.gpus
    taken = {name: each for name, each in config.evaluator_resources.items() if name != GPU}
    evaluator_actor: Any = ray.remote(
        num_cpus=1,
        num_gpus=gpus,
        resources=taken,
        max_restarts=0,
        scheduling_strategy="SPREAD",
    )(EvaluatorWorker)
    # Calls wait for a pool that is started again: without retries they would fail until it is, and with them the steps.
    pool_actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(EvaluatorPool)
    operator_actor: Any = ray.remote(num_cpus=0, max_restarts=0, scheduling_strategy="SPREAD")(OperatorWorker)

    def hire_operator(worker: int) -> Any:
        return operator_actor.remote(store_url, run_name, worker_name(worker), config, make_operator, pool, deadline)

    resources = {name: count * each for name, each in taken.items()}
    with ray_running(config.ray_address, cpus=count, gpus=math.ceil(count * gpus), resources=resources) as head:
        pool = pool_actor.remote(make_evaluator or judging.start, evaluator_actor, count, judging.spares)
        yield RayCrew(hire_operator, config.workers, head)


@contextmanager
def _in_reach() -> Iterator[None]:
    """Raise ``RayGone`` where Ray can no longer be reached; from outside a cluster that may be any error of gRPC."""
    try:
        yield
    except RayGone:
        raise
    except Exception as error:
        raise RayGone(f"Ray cannot be reached any more ({type(error).__name__}): resume the run") from error


async def _answer(call: Any) -> Any:
    """Wait for what an evaluator worker returns; raise ``EvaluatorUnavailable`` when that fails."""
    try:
        return await call
    except RayError as error:
        raise EvaluatorUnavailable(_reason("evaluator", error)) from None


_USED = re.compile(r"was (?P<used>[\d.]+)GB used / (?P<limit>[\d.]+)GB limit")
_OWN = re.compile(r"actual memory used=(?P<own>[\d.]+)GB")
"""What Ray writes of a machine short of memory, and of the process that it killed there. Its GB are GiB."""


def _reason(who: str, error: RayError) -> str:
    """Return in one line why a call to a worker failed."""
    if isinstance(error, OutOfMemoryError):
        return _short_of_memory(who, str(error))
    why = str(error).strip().splitlines()[-1]  # of a traceback: the exception
    if isinstance(error, RayActorError):
        return f"the {who} does not start: {why}" if error.actor_init_failed else f"the {who}'s process died"
    if isinstance(cause := getattr(error, "cause", None), EvaluatorUnavailable):
        return str(cause)
    said = why if isinstance(error, RayTaskError) else type(error).__name__  # others end with advice about Ray
    return f"the {who}'s process failed: {said}"


def _short_of_memory(who: str, said: str) -> str:
    """Return what Ray says in two dozen lines of a worker that it killed for its machine's memory."""
    used, own = _USED.search(said), _OWN.search(said)
    figures = f": {used['used']} of {used['limit']} GiB were in use" if used else ""
    its = f", {own['own']} GiB by that process" if own else ""
    killed = f"the {who}'s process was killed because its machine ran out of memory{figures}{its}"
    return f"{killed}: lower --workers or --evaluators, or run fewer other programs"
