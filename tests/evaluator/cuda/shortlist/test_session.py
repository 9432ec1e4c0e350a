"""A session verifies each entrant, gives up those that are wrong or fail, and times the others in turn."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avo.evaluator.cuda import libraries
from avo.evaluator.cuda.device import Clocks, Enqueue, NotRecorded
from avo.evaluator.cuda.libraries import LIBRARIES
from avo.evaluator.cuda.shortlist import session
from avo.evaluator.cuda.shortlist.book import Book
from avo.evaluator.cuda.shortlist.session import Session
from avo.evaluator.errors import EvaluatorUnavailable
from avo.evaluator.measurement import SHORTLIST, UNMEASURED, Entrant, Measurement, Sample
from avo.evaluator.problem import Case
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.problems.mha import MHA
from tests.evaluator.cuda.fake_device import Broken, FakeDevice, Loopback, forever

ONE, TWO = Case("one", 1, 2, 2, 64, 64, 128, True), Case("two", 1, 2, 2, 96, 96, 128, False)
RIGHT = """
import torch
import torch.nn.functional as F

def attention(q, k, v, out, lse, causal, scale, **others):
    scores = (q.double() @ k.double().transpose(-1, -2)) * scale
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    lse.copy_(scores.logsumexp(-1))
    out.copy_(scores.softmax(-1) @ v.double())
"""
KERNELS = {
    "v0": RIGHT,
    "v1": RIGHT + "# the same\n",
    "wrong": RIGHT.replace("v.double()", "v.double() * 1.5"),
    "nothing": "def attention(*tensors, **scalars): pass",
    "other": "def another(): pass",
    "unread": "def attention(:",
    "raises": "def attention(*tensors, **scalars): raise ValueError('no such tile')",
    "later": RIGHT.replace("def attention", "calls = []\ndef attention").replace(
        "    scores =", "    calls.append(0)\n    if len(calls) > 20: scale = 2.0\n    scores =", 1
    ),
    "compiles": "def attention(*tensors, **scalars): raise RuntimeError('PassManager::run failed')",
    "fails": "def attention(*tensors, **scalars): raise RuntimeError('CUDA error: invalid argument')",
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A problem of two small cases, and no library."""
    problem = replace(MHA, correctness_cases=(ONE,), suites={"quick": (ONE, TWO)})
    monkeypatch.setitem(PROBLEMS, "mha", problem)
    monkeypatch.setattr(session, "STRETCH_S", 0.0)
    monkeypatch.setattr(libraries, "LIBRARIES", ())


class Dying(Loopback):
    """A worker that is killed by ``signal``, or ends by itself with that code, when it is to time a run."""

    dies: int | None = None

    def ask(self, line: str, wall_s: float) -> str:
        if self.dies is not None and line.startswith('{"time"'):
            return ""
        return super().ask(line, wall_s)

    def code(self, wall_s: float) -> int | None:  # type: ignore[override]
        return self.dies


def found(
    tmp_path: Path,
    *names: str,
    device: FakeDevice | None = None,
    rounds: int = 4,
    seconds: float = 1200.0,
    ungraphed: Mapping[str, str] | None = None,
    dies: int | None = None,
) -> tuple[Book, bool]:
    """Return what a session of some kernels finds in so many rounds, and whether nothing has ended it before."""
    files = {name: tmp_path / f"{name}.py" for name in names}
    for name, file in files.items():
        file.write_text(KERNELS[name])
    entrants = tuple(Entrant(name, UNMEASURED, attempt=i, predicted={}) for i, name in enumerate(names))
    begun = Measurement("ab", "mine", "mha", "quick", "h100", names[0], {}, {}, "", 0.0, (), entrants, ())
    (tmp_path / SHORTLIST).write_text(json.dumps(asdict(begun)))
    made = Book(tmp_path)
    made.ungraphed.update(ungraphed or {})
    link = Dying(device or FakeDevice(forever(1e-3), Clocks(1700, 4, 60, 650.0)))
    link.dies = dies
    with pytest.MonkeyPatch.context() as patch:
        ended = iter([False] * (rounds - 1))
        patch.setattr(Session, "_over", lambda self: next(ended, True))
        begun_session = Session(link, made, files, 1, seconds)
        begun_session.begin()
        whole = begun_session.run()
    made.write()
    return made, whole


def verdicts(found: tuple[Book, bool]) -> dict[str, tuple[str, str]]:
    """Return the last word on each entrant."""
    return {each.name: (each.status, each.message) for each in found[0].found.entrants}


def samples(found: tuple[Book, bool]) -> tuple[Sample, ...]:
    """Return the timed runs."""
    return found[0].found.samples


def test_the_card_and_its_cases_are_kept(tmp_path: Path) -> None:
    first = found(tmp_path, "v0", rounds=1)[0].found
    assert first.card_name == "Fake H100"
    assert [(case.name, case.flops) for case in first.cases] == [("one", MHA.flops(ONE)), ("two", MHA.flops(TWO))]


def test_every_entrant_runs_every_case_once_in_a_round(tmp_path: Path) -> None:
    runs = samples(found(tmp_path, "v0", "v1", rounds=3))
    assert len(runs) == 3 * 2 * 2
    assert len({(run.round, run.entrant, run.case) for run in runs}) == len(runs)
    assert runs[0].us == pytest.approx(1000.0)
    assert (runs[0].sm_mhz, runs[0].watts) == (1700, 650.0)


def test_every_other_round_goes_the_other_way(tmp_path: Path) -> None:
    runs = samples(found(tmp_path, "v0", "v1", rounds=4))
    orders = [tuple(dict.fromkeys(run.entrant for run in runs if run.round == n)) for n in (1, 2, 3, 4)]
    assert orders[0] == orders[1][::-1]
    assert orders[2] == orders[3][::-1]


@pytest.mark.parametrize(
    ("name", "status", "why"),
    [
        ("wrong", "incorrect", "rows"),
        ("nothing", "unwritten", "never written"),
        ("other", "unmeasured", "no attribute 'attention'"),
        ("unread", "unmeasured", "SyntaxError"),
        ("raises", "unmeasured", "ValueError: no such tile"),
        ("compiles", "unmeasured", "PassManager::run failed"),
        ("later", "incorrect", "rows"),
    ],
)
def test_what_fails_is_given_up_and_the_others_are_timed(tmp_path: Path, name: str, status: str, why: str) -> None:
    said = found(tmp_path, "v0", name, rounds=12)
    assert verdicts(said)["v0"] == ("correct", "")
    assert verdicts(said)[name][0] == status
    assert why in verdicts(said)[name][1]
    assert sum(run.entrant == "v0" for run in samples(said)) == 12 * 2


def test_a_library_that_is_not_there_is_unmeasured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(case: Case, place: torch.device) -> Any:
        raise ImportError("No module named 'flash_attn'")

    monkeypatch.setattr(libraries, "LIBRARIES", (LIBRARIES[0], replace(LIBRARIES[4], prepare=missing)))
    told = verdicts(found(tmp_path, "v0", rounds=1))
    assert told[LIBRARIES[0].name] == ("correct", "")
    assert told["FlashAttention-2"] == ("unmeasured", "ImportError: No module named 'flash_attn'")


def test_what_there_is_no_time_to_open_is_told(tmp_path: Path) -> None:
    told = verdicts(found(tmp_path, "v0", "v1", seconds=0.0, rounds=1))
    assert told["v0"][0] == "correct", "the first is opened in any case"
    assert told["v1"] == ("unmeasured", "no time was left to open it")


def test_a_run_faster_than_the_roofline_is_refused(tmp_path: Path) -> None:
    status, why = verdicts(found(tmp_path, "v0", device=FakeDevice(forever(1e-12)), rounds=1))["v0"]
    assert status == "incorrect"
    assert "less than the" in why


class Unrecording(FakeDevice):
    """A device that records the work of the first entrant alone."""

    def record(self, enqueue: Enqueue) -> Enqueue:
        self._captures, first = False, self._captures
        if not first:
            raise NotRecorded("not permitted")
        return enqueue


def test_a_graph_that_fails_ends_the_session_and_the_next_one_runs_that_entrant_without(tmp_path: Path) -> None:
    made, whole = found(tmp_path, "v1", device=Unrecording(forever(1e-3)))
    assert (made.ungraphed, whole) == ({"v1": "not permitted"}, False)
    assert verdicts((made, whole)) == {"v1": ("unmeasured", "")}
    # All kernels are timed alike: none is recorded.
    device = Unrecording(forever(1e-3))
    told = found(tmp_path, "v0", "v1", device=device, rounds=2, ungraphed={"v0": "not permitted"})
    assert verdicts(told) == {"v0": ("correct", "without a graph: not permitted"), "v1": ("correct", "")}
    assert len(samples(told)) == 2 * 2 * 2


def test_a_launch_that_fails_alone_costs_its_entrant_only(tmp_path: Path) -> None:
    told = verdicts(found(tmp_path, "v0", "fails", "v1", rounds=1))
    assert told["fails"] == ("crashed", "the GPU reports: CUDA error: invalid argument")
    assert told["v1"] == ("correct", "")


def test_a_kernel_that_breaks_the_device_ends_the_session(tmp_path: Path) -> None:
    made, whole = found(tmp_path, "v0", "v1", device=Broken(forever(1e-3)))
    assert not whole
    assert verdicts((made, whole)) == {
        "v0": ("crashed", "the GPU reports: CUDA error: an illegal memory access was encountered"),
        "v1": ("unmeasured", ""),
    }
    assert made.left_out("v0")
    assert not made.left_out("v1")


def test_what_breaks_by_itself_is_no_kernels_fault(tmp_path: Path) -> None:
    device = Broken(forever(1e-3))
    device.told = "Xid 79"
    with pytest.raises(EvaluatorUnavailable, match=r"Xid 79.*: no kernel brings that about"):
        found(tmp_path, "v0", device=device)


@pytest.mark.parametrize(
    ("code", "status"), [(-9, "unmeasured"), (-15, "unmeasured"), (-11, "crashed"), (7, "crashed")]
)
def test_a_worker_that_others_kill_is_nobodys_fault(tmp_path: Path, code: int, status: str) -> None:
    made, whole = found(tmp_path, "v0", dies=code)
    assert (verdicts((made, whole))["v0"][0], whole) == (status, False)


class Full(FakeDevice):
    """A device without memory for the inputs of the second case."""

    @property
    def place(self) -> torch.device:  # type: ignore[override]
        if self.runs == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB")
        return torch.device("cpu")


def test_want_of_memory_for_a_case_is_no_kernels_fault(tmp_path: Path) -> None:
    made, _ = found(tmp_path, "v0", device=Full(forever(1e-3)), rounds=1)
    assert verdicts((made, True))["v0"] == (
        "unmeasured",
        "out of memory on the GPU: CUDA out of memory. Tried to allocate 8 GiB",
    )


def test_who_else_computes_on_the_card_is_kept(tmp_path: Path) -> None:
    device = FakeDevice(forever(1e-3), Clocks(1700, 4, others=("python (77)",)))
    assert found(tmp_path, "v0", device=device)[0].found.others == ("python (77)",)


def test_a_first_launch_that_hangs_leaves_time_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = list[float]()
    time = session.Contender.time

    def noted(self: Any, case: str, seeds: Any, limit_s: float, stretch_s: float, graph: bool) -> Any:
        limits.append(limit_s)
        return time(self, case, seeds, limit_s, stretch_s, graph)

    monkeypatch.setattr(session.Contender, "time", noted)
    found(tmp_path, "v0", rounds=1, seconds=480.0)
    assert limits == [80.0, 80.0, 0.5, 0.5]
