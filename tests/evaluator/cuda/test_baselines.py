"""Libraries are called by our conventions, and timed and checked like candidates."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend

from avo.evaluator.catalogue import get_problem
from avo.evaluator.cuda import called, libraries
from avo.evaluator.cuda.baselines import Found, measure
from avo.evaluator.cuda.contender import Contender
from avo.evaluator.cuda.device import Enqueue, NotRecorded
from avo.evaluator.cuda.libraries import Library
from avo.evaluator.evaluators import Progress
from avo.evaluator.problem import Case
from avo.evaluator.problems.backward import BackwardCase
from tests import forward
from tests.evaluator.cuda.fake_device import CASE, MHA, OTHER, Broken, FakeDevice, Loopback, forever

GROUPED = Case("grouped", 1, 4, 2, 48, 48, 128, True)
CASES = (CASE, OTHER, GROUPED)
MATH = Library("math", "torch", libraries._sdpa(SDPBackend.MATH))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Found]:
    """Times a library on cases, in workers on the next of ``devices``."""

    def measured(
        library: Library, *cases: Case, problem: Any = MHA, devices: Sequence[FakeDevice] = (), **how: Any
    ) -> Found:
        monkeypatch.setattr(libraries, "LIBRARIES", (library,))
        waiting = list(devices) or [FakeDevice(forever(1e-3))]
        return measure(lambda: Contender(Loopback(waiting.pop(0))), problem, cases, library, random.Random(1), **how)

    return measured


Run = Callable[..., Found]
(FLASH,) = (each for each in libraries.LIBRARIES if each.name == "SDPA, FlashAttention")
FLEX = Library("FlexAttention", "torch", lambda case, place: libraries.flex(case, place, backend=None))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    ("library", "case"),
    [
        *((library, case) for library in (MATH, FLASH) for case in CASES),
        pytest.param(FLEX, CASE, marks=pytest.mark.long),
    ],
    ids=lambda value: value.name,
)
def test_a_library_computes_what_the_reference_does(library: Library, case: Case) -> None:
    attend = library.prepare(case, torch.device("cpu"))
    inputs = MHA.make_inputs(case, 3)
    specs = {spec.name: spec for spec in MHA.call(case).tensors}
    q, k, v = (inputs[name].as_strided(specs[name].shape, specs[name].strides) for name in "qkv")
    rows = torch.arange(case.q_len)
    head = case.heads - 1
    out, lse, _ = forward.reference(MHA, case, inputs, 0, head, rows)
    assert (attend(q, k, v)[0, head].double() - out).norm() < 1e-2 * out.norm()
    kv_head = head // (case.heads // case.kv_heads)
    assert (called.lse(q[0, head], k[0, kv_head], case).double() - lse).abs().max() < 1e-3


@pytest.mark.long
def test_a_librarys_results_are_timed_and_verified_as_a_candidates(run: Run) -> None:
    told: list[Progress] = []
    found = run(MATH, CASE, GROUPED, sustained=False, tell=told.append)
    assert told == [Progress(0, 2, "math, small"), Progress(1, 2, "math, grouped")]
    assert found.trouble == ""
    assert [score.case for score in found.cases] == ["small", "grouped"]
    assert found.cases[0].time_us == 1000
    assert found.conditions == (
        "driver 550.54, CUDA 12.8, torch 2.11.0, Triton 3.6.0, ptxas 12.8; burst clock; clocks not readable; "
        "power limit 700 W, 2.5 us of each time is what an empty graph takes"
    )


BACKWARD = BackwardCase("small", 1, 4, 2, 40, 72, 128, True, inputs="dominant", elsewhere=1.0)


@pytest.mark.long
def test_a_librarys_gradients_are_timed_alone_and_verified_as_a_candidates(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def noted(case: Case, place: torch.device) -> libraries.Attend:
        right = FLASH.prepare(case, place)

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            done.append("forward")
            return right(q, k, v)

        return attend

    enqueue = called.GradientsRunning.enqueue
    monkeypatch.setattr(called.GradientsRunning, "enqueue", lambda self: done.append("backward") or enqueue(self))
    problem = get_problem("gqa_backward")
    found = run(Library("noted", "torch", noted), BACKWARD, problem=problem)
    assert found.trouble == ""
    (score,) = found.cases
    assert score.tflops == pytest.approx(problem.flops(BACKWARD) / score.time_us / 1e6)
    assert "stream of its forward pass" in found.conditions
    assert done[0] == "forward"
    assert done.count("forward") < done.count("backward")


def test_a_forward_pass_that_fails_is_the_librarys_fault_in_a_backward_pass_too(run: Run) -> None:
    (cudnn,) = (each for each in libraries.LIBRARIES if each.name == "SDPA, cuDNN")
    found = run(cudnn, BACKWARD, problem=get_problem("gqa_backward"))
    assert found.trouble.startswith("small: RuntimeError: ")


def test_a_library_with_wrong_gradients_gets_no_figures(run: Run) -> None:
    def doubled(case: Case, place: torch.device) -> libraries.Attend:
        right = FLASH.prepare(case, place)
        return lambda q, k, v: 2 * (out := right(q, k, v)) - out.detach()

    library = Library("doubled", "torch", doubled)
    found = run(library, BACKWARD, problem=get_problem("gqa_backward"))
    assert found.cases == ()
    assert found.trouble.startswith("small: rows ")


def test_a_library_that_takes_the_wrong_diagonal_gets_no_figures(run: Run) -> None:
    def upper_left(case: Case, place: torch.device) -> libraries.Attend:
        return lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    found = run(Library("wrong", "torch", upper_left), CASE)
    assert found.cases == ()
    assert found.trouble.startswith("small: rows ")


@pytest.mark.parametrize("name", ["SDPA, cuDNN", "FlashAttention-2", "FlashAttention-3", "FlashAttention-4"])
def test_a_library_that_is_not_there_says_why(name: str, run: Run) -> None:
    (library,) = (each for each in libraries.LIBRARIES if each.name == name)
    if library.package != "torch" and library.release:
        pytest.skip("it is there")
    found = run(library, OTHER)
    assert found.cases == ()
    assert found.trouble


@pytest.mark.long
def test_cases_that_a_library_computes_keep_their_figures_when_it_fails_another(run: Run) -> None:
    def some(case: Case, place: torch.device) -> libraries.Attend:
        right = MATH.prepare(case, place)
        return right if case.name != OTHER.name else lambda q, k, v: torch.zeros_like(q)

    found = run(Library("some", "torch", some), *CASES)
    assert [score.case for score in found.cases] == ["small", "grouped"]
    assert found.trouble.startswith("other: rows ")


@pytest.mark.long
def test_every_shape_is_compiled_and_none_is_computed_eagerly_as_flexattention(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import FailOnRecompileLimitHit

    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        compiled.append(1)
        return graph.forward

    with torch._dynamo.config.patch(recompile_limit=1):
        for length in (8, 16, 24):
            q = torch.randn(1, 1, length, 128)
            libraries.flex(Case("", 1, 1, 1, length, length, 128, False), torch.device("cpu"), backend)(q, q, q)
    assert len(compiled) == 3
    monkeypatch.setattr(libraries, "_SHAPES", 1)
    q = torch.randn(1, 1, 32, 128)
    with pytest.raises(FailOnRecompileLimitHit, match="fullgraph"):
        libraries.flex(Case("", 1, 1, 1, 32, 32, 128, False), torch.device("cpu"), backend)(q, q, q)


def test_after_a_case_that_breaks_the_device_the_next_one_has_a_new_worker(run: Run) -> None:
    found = run(MATH, CASE, OTHER, devices=[Broken(forever(1e-3)), FakeDevice(forever(1e-3))])
    assert found.trouble == "small: the GPU reports: CUDA error: an illegal memory access was encountered"
    assert [score.case for score in found.cases] == ["other"]


def test_after_a_fault_of_the_machine_no_other_case_is_tried(run: Run) -> None:
    device = Broken(forever(1e-3))
    device.told = "Xid 79"
    found = run(MATH, CASE, OTHER, devices=[device])
    assert "Xid 79" in found.trouble
    assert found.trouble.startswith("small: ")
    assert not found.cases


class Unrecording(FakeDevice):
    """A device that records no graph."""

    def record(self, enqueue: Enqueue) -> Enqueue:
        raise NotRecorded("not permitted")


def test_after_a_graph_that_fails_all_cases_are_timed_without_in_a_process_of_its_own(run: Run) -> None:
    devices = [Unrecording(forever(1e-3)) for _ in range(2)]
    found = run(MATH, CASE, OTHER, devices=devices)
    assert [score.case for score in found.cases] == ["small", "other"]
    assert found.conditions.endswith("without a CUDA graph: not permitted")
    assert devices[0].runs == 1, "nothing is timed any more where a capture has failed"
