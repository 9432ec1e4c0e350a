"""Launches that are counted and not executed: tensors without contents, what is refused, and predicted times."""

import resource
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.offline import OfflineError, offline
from avo.evaluator.offline.contents import LARGE
from avo.evaluator.performance import ModelError

GIB = 2**30


@triton.jit
def product(a, b, c, m, n, k, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inner = tl.arange(0, BLOCK).to(tl.int64)
    a += i[:, None] * k + inner[None, :]
    b += inner[:, None] * n + j[None, :]
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for _ in range(0, k, BLOCK):
        total = tl.dot(tl.load(a), tl.load(b), total)
        a += BLOCK
        b += BLOCK * n
    tl.store(c + i[:, None] * n + j[None, :], total.to(tl.float16))


@triton.jit
def add_up(x, starts, out, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    total = tl.zeros((BLOCK,), tl.float32)
    for at in range(tl.load(starts + row), tl.load(starts + row + 1), BLOCK):
        total += tl.load(x + at + tl.arange(0, BLOCK))
    tl.store(out + row, tl.sum(total))


@triton.jit
def cumulate(lengths, starts, n):
    total = 0
    tl.store(starts, 0)
    for i in range(n):
        total += tl.load(lengths + i)
        tl.store(starts + i + 1, total)


def multiply(n: int) -> torch.Tensor:
    a = torch.randn(n, n, dtype=torch.float16, device="cuda")
    b = (torch.rand(n, n, device="cuda") - 0.5).half().t().contiguous()
    c = torch.empty_like(a)
    product[n // 128, n // 128](a, b, c, n, n, n, BLOCK=128)
    return c


def resident() -> int:
    """The bytes of memory that this process occupies."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_tensors_as_large_as_real_ones_take_no_memory() -> None:
    before = resident()
    with offline(execute=False) as session:
        c = multiply(131072)  # 32 GiB each, and the steps to b as many again
        assert resident() - before < GIB // 2
    (launch,) = session.launches
    assert c.numel() * c.element_size() == 32 * GIB
    assert (launch.readable_bytes, launch.writable_bytes) == (64 * GIB, 32 * GIB)


def test_operators_in_place_take_no_memory_either() -> None:
    before = resident()
    with offline(execute=False):
        x = torch.empty(GIB, dtype=torch.float16, device="cuda").normal_()
        x.mul_(2)[: GIB // 2] = 1
        x.view(-1, 2).add_(torch.ones(2, device="cuda"))
        assert resident() - before < GIB // 2


def test_a_launch_that_is_counted_has_the_work_of_one_that_is_executed() -> None:
    found = []
    for execute in (True, False):
        with offline(execute=execute) as session:
            multiply(256)
        (launch,) = session.launches
        found.append((launch.work, launch.predict()))
        assert (launch.execution is not None) == execute
    (executed, time), (counted, same_time) = found
    assert (
        [loop.trips.tolist() for loop in executed.loops] == [loop.trips.tolist() for loop in counted.loops] == [[2] * 4]
    )
    assert [loop.body for loop in executed.loops] == [loop.body for loop in counted.loops]
    assert executed.outside == counted.outside
    assert executed.loops[0].body.dot_flops == 2 * 128**3
    assert time.us == same_time.us


def test_a_launch_has_a_predicted_time_with_range_limiter_and_doubts() -> None:
    with offline(target="a100", execute=False) as session:
        multiply(4096)
    time = session.launches[0].predict(cold=True, graph=False)
    assert time.low_us <= time.us <= time.high_us
    assert time.us > 2 * 4096**3 / 312e12 * 1e6  # the product of an A100's peak
    assert time.limiter
    assert isinstance(time.doubts, tuple)
    warm, replayed = (session.launches[0].predict(cold=False, graph=graph) for graph in (False, True))
    assert replayed.us < warm.us < time.us


def test_sequence_lengths_are_real() -> None:
    with offline(execute=False) as session:
        x = torch.randn(2**20, device="cuda")
        lengths = torch.tensor([100, 28, 1000], dtype=torch.int32, device="cuda")
        starts = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        add_up[(3,)](x, starts, torch.empty(3, device="cuda"), BLOCK=4)
        assert starts.tolist() == [0, 100, 128, 1128]
    (loop,) = session.launches[0].work.loops
    assert loop.trips.tolist() == [25, 7, 250]


def test_kernels_that_write_integers_are_executed_since_they_may_decide_what_others_do() -> None:
    with offline(execute=False) as session:
        lengths = torch.tensor([8, 4], dtype=torch.int32, device="cuda")
        starts = torch.empty(3, dtype=torch.int32, device="cuda")
        cumulate[(1,)](lengths, starts, 2)
        add_up[(2,)](torch.randn(2**20, device="cuda"), starts, torch.empty(2, device="cuda"), BLOCK=4)
    first, second = session.launches
    assert (first.execution is not None, second.execution is not None) == (True, False)
    assert second.work.loops[0].trips.tolist() == [2, 1]


def test_a_loop_that_depends_on_what_was_not_computed_is_refused() -> None:
    with offline(execute=False):
        x = torch.randn(LARGE + 1, device="cuda")
        starts = (x[:3] * 100).int()
        with pytest.raises(OfflineError, match="how often kernel add_up loops depends on starts, whose contents"):
            add_up[(2,)](x, starts, torch.empty(2, device="cuda"), BLOCK=4)
        starts.zero_()  # now it has contents
        add_up[(2,)](x, starts, torch.empty(2, device="cuda"), BLOCK=4)


READS: dict[str, Any] = {
    "item": lambda x: x.sum().item(),
    "condition": lambda x: bool(x[0] > 0),
    "text": lambda x: str(x),
    "list": lambda x: x[:2].tolist(),
    "numpy": lambda x: x.numpy(),
    "comparison": lambda x: torch.equal(x, x),
    "shape": lambda x: x[x > 0],
    "places": lambda x: (x > 0).nonzero(),
}


@pytest.mark.parametrize("read", READS)
def test_host_code_that_reads_what_was_never_made_is_refused_in_one_line(read: str) -> None:
    with offline(execute=False):
        x = torch.randn(LARGE + 1, device="cuda")
        with pytest.raises(
            OfflineError, match=r"^test_offline_unexecuted.py:\d+ reads contents that were never made"
        ) as told:
            READS[read](x)
    assert "\n" not in str(told.value)
    # while the error and its frames live, torch works as before
    rows = torch.vmap(lambda row, column: row <= column + 1, in_dims=(0, None))
    assert torch.vmap(rows, in_dims=(None, 0))(torch.arange(3), torch.arange(2)).sum() == 5


def test_host_code_may_read_what_was_made() -> None:
    with offline(execute=False):
        small = torch.arange(LARGE, dtype=torch.float32, device="cuda")
        assert (small + 1).amax().item() == LARGE
        many = torch.arange(4 * LARGE, device="cuda")
        assert int(many.max()) == 4 * LARGE - 1
        picked = torch.randn(3, LARGE, device="cuda")[torch.tensor([True, False, True])]
        assert picked.shape == (2, LARGE)


def test_results_have_the_shape_type_and_layout_that_they_would_have() -> None:
    with offline(execute=False):
        x = torch.randn(512, 1024, dtype=torch.bfloat16, device="cuda", requires_grad=True)
        y = torch.nn.functional.softmax(x.t() @ x, -1).to(torch.float8_e4m3fn)
        assert (y.shape, y.dtype, y.is_contiguous()) == ((1024, 1024), torch.float8_e4m3fn, True)
        assert y.device.type == "cuda"
        values, places = x.float().topk(4, dim=1)
        assert (values.shape, places.dtype) == ((512, 4), torch.int64)
        (x * 2).sum().backward()
        assert x.grad is not None
        assert (x.grad.shape, x.grad.dtype) == (x.shape, x.dtype)
        with torch.no_grad():
            assert x.mul_(2) is x
            assert torch.add(x, x, out=torch.empty_like(x)).shape == x.shape
        assert torch.empty(2**20, device="meta").is_meta


def test_after_a_launch_its_results_have_no_contents() -> None:
    with offline(execute=False):
        starts = torch.zeros(3, dtype=torch.int32, device="cuda")
        out = torch.zeros(2, device="cuda")
        add_up[(2,)](torch.randn(2**20, device="cuda"), starts, out, BLOCK=4)
        assert starts.tolist() == [0, 0, 0]
        with pytest.raises(OfflineError, match="never made"):
            out.tolist()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sanitize": True}, "sanitize=True"),
        ({"on_fault": "raise"}, "on_fault='raise'"),
        ({"check_order": True}, "check_order=True"),
        ({"count": True}, "count=True"),
    ],
)
def test_options_about_execution_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(OfflineError) as told:
        offline(execute=False, **options)
    assert str(told.value) == f"{named} needs kernels to be executed, and execute=False only counts their work"


def test_the_report_says_that_nothing_was_executed() -> None:
    with offline(execute=False) as session:
        multiply(256)
    report = session.report()
    assert str(report) == "1 launch of 1 kernel, 4 programs, for h100, not executed"
    assert report.as_json()["executed"] is False
    assert report.as_json()["launches"][0]["loop_trips"] == [8]


@triton.jit
def gather(x, index, out, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + tl.load(index + i)))


def test_what_passes_through_memory_is_what_is_read_where_it_is_known_where_that_is() -> None:
    with offline(execute=False) as session:
        x = torch.randn(2**30, device="cuda")
        out = torch.empty(2**20, device="cuda")
        index = torch.arange(2**20, device="cuda")
        gather[(2**10,)](x, index, out, BLOCK=1024)
        gather[(2**10,)](x, (torch.randn(2**23, device="cuda") * 100).long()[: 2**20], out, BLOCK=1024)
    known, unknown = session.launches
    assert known.work.accesses
    assert unknown.work.accesses == ()
    least = 16 * 2**20 / session.target.hbm_bytes_per_s * 1e6
    assert known.predict().us > least
    assert unknown.predict().us > least


@triton.jit
def strided(x, out, BLOCK: tl.constexpr, LOADS: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for k in tl.static_range(LOADS):
        total += tl.load(x + i * 2 + k * 2**16)
    tl.store(out + i, total)


@pytest.mark.parametrize(
    "size", [pytest.param(2**22, marks=pytest.mark.long), 64]
)  # without a mask: the short one ends before what is read
def test_launches_with_many_loads_and_out_of_bounds_are_predicted(size: int) -> None:
    with offline(execute=False) as session:
        strided[(256,)](torch.randn(size, device="cuda"), torch.empty(2**20, device="cuda"), BLOCK=2048, LOADS=16)
    assert session.launches[0].predict().us > 0


def test_a_cooperative_grid_that_no_driver_launches_has_no_time() -> None:
    with offline(execute=False) as session:
        x, out = torch.randn(2**16, device="cuda"), torch.empty(2**15, device="cuda")
        for programs in (132, 2**14):
            strided[(programs,)](x, out, BLOCK=2, LOADS=1, launch_cooperative_grid=True)
    resident, many = session.launches
    assert resident.misfit == ""
    assert resident.predict().us > 0
    assert "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE" in many.misfit
    with pytest.raises(ModelError, match="launched cooperatively with 16384 CTAs"):
        many.predict()


@triton.jit
def queue(ticket, x, out, n):
    tile = tl.atomic_add(ticket, 1)
    while tile < n:
        tl.store(out + tile, tl.load(x + tile) * 2)
        tile = tl.atomic_add(ticket, 1)


@pytest.mark.parametrize("execute", [False, True])
def test_launches_that_draw_tickets_are_counted(execute: bool) -> None:
    with offline(execute=execute) as session:
        ticket = torch.zeros(1, dtype=torch.int32, device="cuda")
        queue[(4,)](ticket, torch.randn(64, device="cuda"), torch.empty(64, device="cuda"), 64)
    (loop,) = session.launches[0].work.loops
    assert loop.trips.sum() == 64
    assert session.launches[0].predict().us > 0
