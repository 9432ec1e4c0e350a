"""A session verifies each entrant, gives up those that are wrong or fail, and times the others in turn."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avo.evaluator.cuda.device import Clocks, Enqueue, MachineFault, NotRecorded
from avo.evaluator.cuda.libraries import LIBRARIES
from avo.evaluator.cuda.shortlist import session
from avo.evaluator.cuda.shortlist.session import Orders, Session
from avo.evaluator.problem import Case
from avo.evaluator.problems import PROBLEMS
from avo.evaluator.problems.mha import MHA
from tests.evaluator.cuda.fake_device import FakeDevice, forever

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
    monkeypatch.setattr(session, "LIBRARIES", ())


def found(
    tmp_path: Path,
    *names: str,
    device: FakeDevice | None = None,
    rounds: int = 4,
    said: list[Mapping[str, Any]] | None = None,
    **orders: Any,
) -> list[Mapping[str, Any]]:
    """Return what a session of some kernels says in so many rounds."""
    files = {name: tmp_path / f"{name}.py" for name in names}
    for name, file in files.items():
        file.write_text(KERNELS[name])
    said = [] if said is None else said
    given = {"seconds": 1200.0, **orders}
    asked = Orders("mha", "quick", {name: str(file) for name, file in files.items()}, 1, **given)
    with pytest.MonkeyPatch.context() as patch:
        made = Session(device or FakeDevice(forever(1e-3), Clocks(1700, 4, 60, 650.0)), asked, said.append)
        ended = iter([False] * (rounds - 1))
        patch.setattr(Session, "_over", lambda self: next(ended, True))
        made.run()
    return said


def verdicts(said: list[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Return the last word on each entrant."""
    return {each["entrant"]: (each["status"], each["message"]) for each in said if "status" in each}


def samples(said: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the timed runs."""
    return [each["sample"] for each in said if "sample" in each]


def test_the_card_and_its_cases_are_told_first(tmp_path: Path) -> None:
    first = found(tmp_path, "v0", rounds=1)[0]["ready"]
    assert first["card"]["name"] == "Fake H100"
    assert [case["name"] for case in first["cases"]] == ["one", "two"]
    assert first["cases"][0]["flops"] == MHA.flops(ONE)


def test_every_entrant_runs_every_case_once_in_a_round(tmp_path: Path) -> None:
    runs = samples(found(tmp_path, "v0", "v1", rounds=3))
    assert len(runs) == 3 * 2 * 2
    assert len({(run["round"], run["entrant"], run["case"]) for run in runs}) == len(runs)
    assert runs[0]["us"] == pytest.approx(1000.0)
    assert (runs[0]["sm_mhz"], runs[0]["watts"]) == (1700, 650.0)


def test_every_other_round_goes_the_other_way(tmp_path: Path) -> None:
    runs = samples(found(tmp_path, "v0", "v1", rounds=4))
    orders = [tuple(dict.fromkeys(run["entrant"] for run in runs if run["round"] == n)) for n in (1, 2, 3, 4)]
    assert orders[0] == orders[1][::-1]
    assert orders[2] == orders[3][::-1]


@pytest.mark.parametrize(
    ("name", "status", "why"),
    [
        ("wrong", "incorrect", "rows"),
        ("nothing", "unwritten", "never written"),
        ("other", "no_entry", "no function attention"),
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
    assert sum(run["entrant"] == "v0" for run in samples(said)) == 12 * 2


def test_a_library_that_is_not_there_is_unmeasured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(case: Case, place: torch.device) -> Any:
        raise ImportError("No module named 'flash_attn'")

    monkeypatch.setattr(session, "LIBRARIES", (LIBRARIES[0], replace(LIBRARIES[4], prepare=missing)))
    told = verdicts(found(tmp_path, "v0", rounds=1))
    assert told[LIBRARIES[0].name] == ("correct", "")
    assert told["FlashAttention-2"] == ("unmeasured", "ImportError: No module named 'flash_attn'")


def test_one_that_was_left_out_is_not_opened(tmp_path: Path) -> None:
    assert set(verdicts(found(tmp_path, "v0", "v1", without=("v1",), rounds=1))) == {"v0"}


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


def test_a_graph_that_fails_ends_the_process_and_the_next_one_runs_that_entrant_without(tmp_path: Path) -> None:
    said: list[Mapping[str, Any]] = []
    with pytest.raises(NotRecorded):
        found(tmp_path, "v1", device=Unrecording(forever(1e-3)), said=said)
    assert said[-1] == {"ungraphed": "not permitted", "entrant": "v1"}
    assert not verdicts(said)
    # All kernels are timed alike: none is recorded.
    device = Unrecording(forever(1e-3))
    told = found(tmp_path, "v0", "v1", device=device, rounds=2, ungraphed={"v0": "not permitted"})
    assert verdicts(told) == {"v0": ("correct", "without a graph: not permitted"), "v1": ("correct", "")}
    assert len(samples(told)) == 2 * 2 * 2


def test_a_launch_that_fails_alone_costs_its_entrant_only(tmp_path: Path) -> None:
    told = verdicts(found(tmp_path, "v0", "fails", "v1", rounds=1))
    assert told["fails"] == ("crashed", "the GPU reports: CUDA error: invalid argument")
    assert told["v1"] == ("correct", "")


class Broken(FakeDevice):
    """A device on which nothing runs; ``told``: what it says of itself."""

    told = ""

    def synchronize(self) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def trouble(self) -> str:
        return self.told


def test_a_broken_device_ends_the_process(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="illegal memory access"):
        found(tmp_path, "v0", device=Broken(forever(1e-3)))


def test_what_breaks_by_itself_is_no_kernels_fault(tmp_path: Path) -> None:
    device = Broken(forever(1e-3))
    device.told = "Xid 79"
    with pytest.raises(MachineFault, match=r"Xid 79.*: no kernel brings that about"):
        found(tmp_path, "v0", device=device)


def test_who_else_computes_on_the_card_is_told_once(tmp_path: Path) -> None:
    device = FakeDevice(forever(1e-3), Clocks(1700, 4, others=("python (77)",)))
    assert [each["others"] for each in found(tmp_path, "v0", device=device) if "others" in each] == [["python (77)"]]


def test_a_first_launch_that_hangs_leaves_time_for_others(tmp_path: Path) -> None:
    limits = {
        each["limit_s"]
        for each in found(tmp_path, "v0", rounds=1, seconds=480.0)
        if "first time" in each.get("doing", "")
    }
    assert limits == {80.0}
