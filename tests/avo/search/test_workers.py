"""Real worker processes: nothing is lost when one dies, and none outlives the run."""

import asyncio
import inspect
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private import services
from ray._private.node import Node
from ray.exceptions import LocalRayletDiedError, OutOfMemoryError, RayError

from avo.config import LOCAL, RunConfig
from avo.errors import ConfigError, RunFailed
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.fake import FakeEvaluator
from avo.evaluator.inspection import Inspection, Look
from avo.evaluator.target import Target
from avo.evaluator.targets import get_target
from avo.lineage_db.records import RunState, StepState
from avo.lineage_db.store import Store
from avo.search import cluster, judging, workers
from avo.search.workers import EvaluatorPool, RayCrew, hire
from tests.avo import fakes
from tests.avo.fakes import make_run

PATIENCE_S = 600.0
"""Longest wait for something that takes seconds at most."""


class Drivers:
    """Starts driver processes on one run."""

    def __init__(self, folder: Path) -> None:
        self.db = folder / "runs.db"
        self.store = Store.open(str(self.db))
        self.run = make_run(self.store)
        self.children: list[subprocess.Popen[str]] = []

    def start(self, workers: int, attempts: int, trick: str = "none") -> "subprocess.Popen[str]":
        program = [sys.executable, str(Path(__file__).parents[1] / "driver.py")]
        child = subprocess.Popen(
            [*program, str(self.db), str(workers), str(attempts), trick],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.children.append(child)
        return child

    def attempts(self) -> int:
        return len(self.store.attempt_summaries(self.run.id))

    def doing(self) -> list[tuple[str, int, int]]:
        """Return what the seed's step is doing: the examination, not the test of the judge beside it."""
        first = self.store.steps(self.run.id)[:1]
        found = [each for step in first for each in step.doing or () if each.of]
        return [(each.what, each.done, each.of) for each in found]

    def steps(self) -> list[StepState]:
        return [step.state for step in self.store.steps(self.run.id)]

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.communicate()
        self.store.close()


@pytest.fixture
def drivers(tmp_path: Path) -> Iterator[Drivers]:
    made = Drivers(tmp_path)
    yield made
    made.close()


class FakeRay:
    """Remembers what Ray is told."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}
        self.remote_arguments: list[tuple[Any, ...]] = []

    def init(self, **settings: Any) -> None:
        self.told["machine"] = settings["num_gpus"]

    def get_runtime_context(self) -> SimpleNamespace:
        return SimpleNamespace(gcs_address="127.0.0.1:1")

    def remote(self, **resources: Any) -> Callable[[type], Any]:
        def make(kind: type) -> Any:
            self.told[kind.__name__] = resources.get("num_gpus", 0)
            return SimpleNamespace(remote=lambda *arguments: self.remote_arguments.append(arguments))

        return make

    def shutdown(self) -> None:
        pass


@pytest.mark.parametrize(
    ("target", "command", "given", "gpus", "machine"),
    [
        ("h100", None, {}, 0, 0),
        ("cuda", None, {}, 1, 3),
        ("cuda", None, {"GPU": 0.3333}, 0.3333, 1),
        ("cuda", None, {"GPU": 0.5}, 0.5, 2),
        ("cuda", "ssh gpu-box python -m avo.evaluator", {"GPU": 0.5}, 0, 0),
    ],
)
def test_evaluators_that_measure_here_get_a_gpu_or_their_share_of_one_and_nobody_else_any(
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    command: str | None,
    given: dict[str, float],
    gpus: float,
    machine: int,
) -> None:
    ray = FakeRay()
    monkeypatch.setattr(workers, "ray", ray)
    monkeypatch.setattr(cluster, "ray", ray)
    config = RunConfig(
        target=target,
        workers=3,
        evaluators=3,
        evaluator_command=command,
        evaluator_resources=given,
        cascade=0.1,
        device="1",
        clock="burst",
    )
    with hire("sqlite://", "run", config):
        assert ray.told == {"machine": machine, "EvaluatorWorker": gpus, "EvaluatorPool": 0, "OperatorWorker": 0}
    made: dict[str, object] = {}
    monkeypatch.setattr(judging, "judge_process", lambda *names, **settings: made.update(settings))
    ray.remote_arguments[0][0]()
    device = () if command is None else ("--device", "1")
    measuring = ("--equivalence-margin", "0.005", "--cascade", "0.1", *device, "--clock", "burst")
    options: Any = made["options"]
    assert (made["command"], options[:-2]) == (command, measuring if target == "cuda" else ())
    ray.remote_arguments.pop(0)[0]()
    assert made["options"] == options, "judges of one run take turns"
    with hire("sqlite://", "run", config):
        next(start for start, *_ in ray.remote_arguments if callable(start))()
    assert (made["options"] == options) is (target == "h100"), "those of another are not let in"


def test_what_several_workers_look_at_is_looked_at_once_and_again_where_that_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    async def answer(request: Any) -> str:
        asked.append(request)
        await asyncio.sleep(0)
        if len(asked) == 1:
            raise EvaluatorUnavailable("gone")
        return f"answer {len(asked)}"

    async def ready() -> str:
        return "h100"

    judge = SimpleNamespace(ask=SimpleNamespace(remote=answer), target=SimpleNamespace(remote=ready))
    look = Inspection(Look.SPEED, "mha", "source")

    async def work() -> list[str]:
        pool = EvaluatorPool(lambda: FakeEvaluator(fakes.judge), SimpleNamespace(remote=lambda make: judge), 2)
        with pytest.raises(EvaluatorUnavailable):
            await pool.ask("ask", look)
        together = await asyncio.gather(pool.ask("ask", look), pool.ask("ask", replace(look)))
        return [*together, await pool.ask("ask", look), await pool.ask("ask", replace(look, look=Look.CHECK))]

    monkeypatch.setattr(workers.ray, "kill", lambda actor: None)
    assert asyncio.run(work()) == ["answer 2", "answer 2", "answer 2", "answer 3"]


class OnAGpu(FakeEvaluator):
    """Starts when as many as there are GPUs are starting, and judges for the one that Ray gave it."""

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(lambda candidate: NotImplemented)
        self._folder, self._count = folder, count

    @property
    def target(self) -> Target:  # type: ignore[override]
        (self._folder / f"{os.environ['CUDA_VISIBLE_DEVICES']}, {os.getpid()}").touch()
        while len(list(self._folder.iterdir())) < self._count:
            time.sleep(0.01)
        return get_target("h100")


class Waits:
    """Stands for an operator; its step ends when an evaluator has answered."""

    def __init__(self, *arguments: Any) -> None:
        self._pool = arguments[5]

    def step(self, seeding: bool) -> str:
        return str(ray.get(self._pool.ask.remote("target")).name)


@pytest.mark.long
@pytest.mark.parametrize("each", [1, 2])
def test_a_run_on_several_gpus_has_as_many_evaluators_on_each_of_those_it_may_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, each: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))  # where Ray's workers find these tests
    monkeypatch.setattr(workers, "OperatorWorker", Waits)
    count = 2 * each
    config = judging.on_gpus(RunConfig(target="cuda", workers=1, evaluators=count), lambda: 2)
    with hire("sqlite://", "run", config, make_evaluator=partial(OnAGpu, tmp_path, count)) as crew:
        crew.start(0, False)
        (report,) = crew.wait(PATIENCE_S)
    assert report.trouble == "h100"
    assert Counter(file.name.partition(",")[0] for file in tmp_path.iterdir()) == {"2": each, "5": each}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "head"])
def test_an_address_at_which_there_is_no_cluster_is_said_at_once(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(cluster, "ray", FakeRay())
    there = cluster.joined(address, "postgresql://")
    with pytest.raises(ConfigError, match=f"^--ray-address: nobody answers at {address}: give auto, HOST:PORT"), there:
        pass


def test_what_ray_says_of_a_cluster_that_cannot_be_joined_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Alone(FakeRay):
        def init(self, **settings: Any) -> None:
            raise ConnectionError("no Ray here:\n  start one")

    monkeypatch.setattr(cluster, "ray", Alone())
    words = r"^--ray-address: the cluster at auto cannot be joined \(no Ray here: start one\): give .*_TOKEN .*$"
    with pytest.raises(ConfigError, match=words), cluster.joined("auto", "postgresql://"):
        pass


def test_a_cluster_that_is_out_of_reach_ends_the_run_and_not_with_an_error_of_rays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise ConnectionError("reconnection to the Ray cluster\nfailed")

    monkeypatch.setattr(workers, "ray", SimpleNamespace(wait=lost, kill=lost))
    crew = RayCrew(lambda worker: SimpleNamespace(step=SimpleNamespace(remote=lost)), 1, None)
    for call in (lambda: crew.start(0, False), lambda: crew.wait(1.0), lambda: crew.replace(0)):
        with pytest.raises(RunFailed, match=r"^Ray cannot be reached any more \(ConnectionError\): resume the run$"):
            call()


def test_ray_is_given_minutes_to_start_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([RuntimeError("no such node"), RuntimeError("no such node"), {"labels": {}}])

    def ask(*where: str) -> object:
        if isinstance(answer := next(answers), RuntimeError):
            raise answer
        return where, answer

    monkeypatch.setattr(services, "get_node", ask)
    with cluster._ray_as_we_need_it(300.0):
        assert services.get_node("127.0.0.1:1", "node") == (("127.0.0.1:1", "node"), {"labels": {}})
    assert services.get_node is ask
    assert "ray._private.services.get_node(" in inspect.getsource(Node.__init__), "what waits there for the node"


def test_ray_that_does_not_start_is_started_again_and_given_up_with_load_and_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(FakeRay):
        failures = 2
        ended = 0

        def init(self, **settings: Any) -> None:
            self.failures -= 1
            if self.failures >= 0:
                raise TimeoutError("no node\n in time")

        def shutdown(self) -> None:
            self.ended += 1

    ray = Slow()
    monkeypatch.setattr(cluster, "ray", ray)
    monkeypatch.setattr(cluster, "strain", lambda: "load average 99.0 on 2 cores")
    line = (
        "Ray does not start (no node in time; load average 99.0 on 2 cores): end other programs, or look at avo doctor"
    )
    with cluster.ray_running(LOCAL, cpus=1, gpus=0, resources={}) as head:
        assert head == "127.0.0.1:1"
        assert [record.message for record in caplog.records] == [f"avo: {line}: trying again"] * 2
        assert ray.ended == 2, "what has started of it is ended"
    ray.failures = 3
    with pytest.raises(RunFailed, match=re.escape(line)), cluster.ray_running(LOCAL, cpus=1, gpus=0, resources={}):
        pass


@pytest.mark.parametrize(
    ("fault", "load", "tried"),
    [
        (ValueError("no such resource"), 0.0, 1), (ValueError("it died"), 9e9, 3),
        (Exception("The current node timed out during startup."), 0.0, 3),
    ],
)  # fmt: skip
def test_ray_is_started_again_only_where_time_or_load_explains_that_it_does_not(
    fault: Exception, load: float, tried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Fails(FakeRay):
        def init(self, **settings: Any) -> None:
            asked.append(os.environ[cluster._WAITS[1]])
            raise fault

    monkeypatch.setattr(cluster, "ray", Fails())
    monkeypatch.setattr(cluster.os, "getloadavg", lambda: (load, 0.0, 0.0))
    for tries in (3, 1):
        start = cluster.ray_running(LOCAL, cpus=1, gpus=0, resources={}, tries=tries, start_s=7)
        with pytest.raises(RunFailed, match=re.escape(str(fault))), start:
            pass
    assert asked == ["7"] * (tried + 1)


def test_ray_is_told_to_listen_on_the_loopback_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = services.resolve_ip_for_localhost
    addresses: list[str] = []

    class Listens(FakeRay):
        def init(self, **settings: Any) -> None:
            addresses.append(services.resolve_ip_for_localhost(settings["_node_ip_address"]))

    monkeypatch.setattr(cluster, "ray", Listens())
    with cluster.ray_running(LOCAL, cpus=1, gpus=0, resources={}):
        pass
    assert addresses == ["127.0.0.1"]
    assert services.resolve_ip_for_localhost is resolve
    assert "services.resolve_ip_for_localhost(" in inspect.getsource(inspect.unwrap(ray.init)), "what gives another"


@pytest.mark.long
def test_no_process_of_a_local_run_can_be_reached_from_another_machine(drivers: Drivers) -> None:
    child = drivers.start(workers=2, attempts=1000)
    wait_for(lambda: drivers.attempts() > 3)
    assert listening(descent(child.pid)) == {"127.0.0.1"}
    os.kill(child.pid, signal.SIGINT)
    child.communicate(timeout=PATIENCE_S)


SHORT = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.2) was \
22.91GB used / 23.54GB limit (0.973)
OOM kill reason: Memory usage exceeded threshold
Considered workers: [
Selected to kill: (Actor(97), task name=A.__init__, pid=39, actual memory used=1.38GB, worker ID=7)
]
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/en/latest/"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OutOfMemoryError(SHORT), "the operator's process was killed because its machine ran out of memory: 22.91 of "
         "23.54 GiB were in use, 1.38 GiB by that process: "
         "lower --workers or --evaluators, or run fewer other programs"),
        (OutOfMemoryError("in words of another Ray"), "the operator's process was killed because its machine ran out "
         "of memory: lower --workers or --evaluators, or run fewer other programs"),
        (LocalRayletDiedError(), "the operator's process failed: LocalRayletDiedError"),
    ],
)  # fmt: skip
def test_what_ray_writes_of_a_dead_process_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, error: RayError, said: str
) -> None:
    def get(step: object) -> object:
        raise error

    step, hired = object(), SimpleNamespace(step=SimpleNamespace(remote=lambda seeding: step))
    ray = SimpleNamespace(get=get, wait=lambda steps, timeout: (steps, []), kill=lambda worker: None, nodes=list)
    monkeypatch.setattr(workers, "ray", ray)
    crew = RayCrew(lambda worker: hired, 1, None)
    crew.start(0, False)
    assert [(report.outcome, report.trouble) for report in crew.wait(1.0)] == [(None, said)]


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.05)


def parents() -> dict[int, int]:
    """Return the parent of every process that is not a zombie."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                found[int(entry.name)] = int(parent)
    return found


def descent(pid: int) -> set[int]:
    """Return ``pid`` and its descendants."""
    known, new = parents(), {pid}
    members: set[int] = set()
    while new:
        members |= new
        new = {child for child, parent in known.items() if parent in new} - members
    return members


def command_line(pid: int) -> str:
    """Return what a process was started as, or calls itself; nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def family(pid: int) -> set[int]:
    """Return ``pid`` and its descendants, but for two services of Ray that stay a minute to tell that it died."""
    return {member for member in descent(pid) if "Agent" not in command_line(member)}


def listening(pids: set[int]) -> set[str]:
    """Return the addresses on which processes accept connections: ``0.0.0.0`` stands for all of a machine's."""
    opened = set()
    for pid in pids:
        with suppress(OSError):  # the process ends meanwhile
            for each in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):  # it is closed meanwhile
                    opened.add(os.readlink(each))
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    sockets = {f"socket:[{line[9]}]": line[1].partition(":")[0] for line in lines if line[3] == "0A"}  # TCP_LISTEN
    return {socket.inet_ntoa(bytes.fromhex(sockets[each][-8:])[::-1]) for each in opened & sockets.keys()}


@pytest.mark.long
def test_no_attempt_is_lost_when_workers_die(drivers: Drivers) -> None:
    child = drivers.start(workers=2, attempts=16, trick="deaths")
    output, _ = child.communicate(timeout=PATIENCE_S)
    assert (child.returncode, output.splitlines()[-1]) == (0, "finished"), output
    assert (drivers.db.parent / "operator-died").exists()
    assert (drivers.db.parent / "evaluator-died").exists()
    assert "the operator's process died" in output
    steps = drivers.store.steps(drivers.run.id)
    assert [step.number for step in steps] == list(range(len(steps)))
    # The operator's step is repeated; what the evaluator was at is given to the one that takes its place.
    assert [step.redoes for step in steps if step.redoes is not None] == [
        step.number for step in steps if step.state is StepState.ABANDONED
    ]
    assert [step.state for step in steps].count(StepState.ABANDONED) == 1
    assert {step.worker for step in steps} == {"w0", "w1"}
    attempts = drivers.store.attempt_summaries(drivers.run.id)
    assert len(attempts) == 16
    done = {step.number for step in steps if step.state is StepState.DONE}
    assert {attempt.step_number for attempt in attempts} == done
    assert len({attempt.digest for attempt in attempts}) == 16
    speeds = [version.attempt.evaluation.geomean_tflops for version in drivers.store.versions(drivers.run.id)]
    assert len(speeds) > 1
    assert speeds == sorted(speeds)


@pytest.mark.long
def test_a_killed_pool_costs_no_step_however_long_another_takes_to_start(drivers: Drivers) -> None:
    child = drivers.start(workers=2, attempts=1000, trick="late")
    wait_for(lambda: drivers.attempts() > 3)
    (pool,) = (pid for pid in family(child.pid) if command_line(pid).startswith("ray::EvaluatorPool"))
    os.kill(pool, signal.SIGKILL)
    wait_for(lambda: pool not in parents())
    before = drivers.attempts()
    wait_for(lambda: drivers.attempts() > before + 5)
    os.kill(child.pid, signal.SIGINT)
    output, _ = child.communicate(timeout=PATIENCE_S)
    assert output.splitlines()[-1] == "stopped", output
    assert set(drivers.steps()) == {StepState.DONE}, output


@pytest.mark.long
@pytest.mark.parametrize("who", ["operator", "evaluator"])
def test_a_worker_that_does_not_start_says_why(drivers: Drivers, who: str) -> None:
    child = drivers.start(workers=1, attempts=16, trick=f"no-{who}")
    output, _ = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 1
    last = output.splitlines()[-1]
    assert last.startswith("avo.errors.RunFailed: 2 steps in a row ended without an outcome")
    assert last.endswith(f"the {who} does not start: ValueError: it is Sunday")


@pytest.mark.long
def test_a_killed_run_leaves_neither_a_process_nor_a_file_and_can_be_resumed(drivers: Drivers) -> None:
    child = drivers.start(workers=2, attempts=1000)
    wait_for(lambda: drivers.attempts() > 3)
    members = family(child.pid)
    assert len(members) > 5
    (folder,) = {found for pid in members for found in re.findall(r"/tmp/avo-run-\w+", command_line(pid))}
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    wait_for(lambda: not members & parents().keys())
    assert not Path(folder).exists()

    before = drivers.attempts()
    assert drivers.store.run("fake").state is RunState.RUNNING
    child = drivers.start(workers=1, attempts=before + 3)
    output, _ = child.communicate(timeout=PATIENCE_S)
    assert output.splitlines()[-1] == "finished", output
    assert drivers.attempts() == before + 3
    assert StepState.RUNNING not in drivers.steps()


@pytest.mark.long
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "closed"])
def test_a_terminal_that_says_ctrl_c_or_is_closed_lets_workers_finish_what_they_hold(
    drivers: Drivers, sent: signal.Signals
) -> None:
    child = drivers.start(workers=2, attempts=1000, trick="watched")
    wait_for(lambda: drivers.doing() == [("examining seed 0.py closely", 3, 7)])
    (drivers.db.parent / "seen").touch()
    wait_for(lambda: drivers.attempts() > 3)
    assert drivers.doing() == []
    members = family(child.pid)
    os.killpg(child.pid, sent)  # as a terminal does: the whole foreground group
    output, _ = child.communicate(timeout=PATIENCE_S)
    assert output.splitlines()[-1] == "stopped", output
    assert set(drivers.steps()) == {StepState.DONE}
    wait_for(lambda: not members & parents().keys())


@pytest.mark.long
def test_ctrl_c_twice_abandons_what_they_hold(drivers: Drivers) -> None:
    child = drivers.start(workers=2, attempts=1000, trick="slow")
    wait_for(lambda: len(drivers.steps()) == 3)
    members = family(child.pid)
    os.kill(child.pid, signal.SIGTERM)
    os.kill(child.pid, signal.SIGINT)
    output, _ = child.communicate(timeout=PATIENCE_S)
    assert output.splitlines()[-1] == "stopped", output
    assert drivers.steps() == [StepState.DONE, StepState.ABANDONED, StepState.ABANDONED]
    wait_for(lambda: not members & parents().keys())
