"""Launches as authors write them: every kind of argument, grid and decorator, executed in place on CPU tensors."""

import threading
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from avo.evaluator.executor import ExecutionTimeout, UnsupportedOperation
from avo.evaluator.offline import OfflineError, offline
from tests.oldest_triton import newer_triton

ORACLE = "torch"


@triton.jit
def scale(x, y, n, factor, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.load(x + i, mask=i < n) * factor, mask=i < n)


@triton.jit
def copy_2d(x, y, rows, x_row, x_column, y_row, y_column, COLUMNS: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, COLUMNS)
    tl.store(y + row * y_row + column * y_column, tl.load(x + row * x_row + column * x_column))


@triton.jit
def increment(x, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + i, tl.load(x + i, mask=i < n) + 1, mask=i < n)


@triton.jit
def shift(x, y):
    i = tl.arange(0, 16)
    value = tl.load(x + i)
    tl.debug_barrier()
    tl.store(y + i, value + 1)


@triton.jit
def spin(x):
    while tl.load(x, volatile=True) == 0:
        pass


def scaled(x: torch.Tensor, factor: float, block: int = 64) -> torch.Tensor:
    y = torch.empty_like(x)
    scale[(triton.cdiv(x.numel(), block),)](x, y, x.numel(), factor, BLOCK=block)
    return y


def test_a_launch_changes_cpu_tensors_in_place() -> None:
    x, y = torch.randn(100), torch.full((100,), 7.0)
    with offline() as session:
        scale[lambda meta: (triton.cdiv(100, meta["BLOCK"]),)](x, y, 100, 2.0, BLOCK=32)
    assert torch.equal(y, 2 * x)
    (launch,) = session.launches
    assert (launch.kernel, launch.grid, launch.programs) == ("scale", (4, 1, 1), 4)
    assert launch.constants["BLOCK"] == 32
    assert "tt.func public @scale" in launch.ir
    assert session.report().clean


def test_views_are_read_and_written_where_they_lie() -> None:
    base = torch.arange(240.0).view(12, 20)
    for x in (base[2:6, 4:12], base.T[4:8, :8], base[::3, ::2][:, :8], base[0, :8].expand(4, 8)):
        whole = torch.zeros(10, 10)
        y = whole[3:7, 1:9]
        with offline() as session:
            copy_2d[(4,)](x, y, 4, *x.stride(), *y.stride(), COLUMNS=8)
        assert torch.equal(y, x)
        assert whole.sum() == x.sum()
        assert session.report().clean


def test_tensors_that_share_storage_alias() -> None:
    x = torch.zeros(32)
    with offline(sanitize=False):
        shift[(1,)](x, x[8:])
        shift[(1,)](x[8:], x[16:])
    assert x.tolist() == [0.0] * 8 + [1.0] * 8 + [2.0] * 16


def test_storages_over_the_same_foreign_memory_alias() -> None:
    array = np.zeros(40, dtype=np.float32)
    with offline(sanitize=False):
        shift[(1,)](torch.from_numpy(array[4:30]), torch.from_numpy(array[13:]))
    assert array[13:29].tolist() == [1.0] * 16
    assert array.sum() == 16


@triton.jit
def tuples(pair, nothing, flag, small, wide, out, N: tl.constexpr):
    i = tl.arange(0, N)
    value = tl.load(pair[0] + i) * pair[1]
    if nothing is not None:
        value += 100.0
    if flag:
        value += small
    tl.store(out + i, value + (wide >> 40).to(tl.float32))


def test_tuples_none_booleans_and_wide_integers_arrive() -> None:
    x, out = torch.randn(16), torch.empty(16)
    with offline() as session:
        tuples[(1,)]((x, 3.0), None, True, -5, 1 << 41, out, N=16)
    torch.testing.assert_close(out, x * 3 - 5 + 2)
    assert session.report().clean


@triton.jit
def invert(flags, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(flags + i) == 0)


@triton.jit
def widen(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i).to(tl.float32))


def test_bool_and_fp8_tensors_are_taken() -> None:
    flags = torch.tensor([True, False] * 8)
    out, wide = torch.empty(16, dtype=torch.bool), torch.empty(16)
    with offline() as session:
        invert[(1,)](flags, out, N=16)
        assert torch.equal(out, ~flags)
        for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            x = torch.randn(16).to(dtype)
            widen[(1,)](x, wide, N=16)
            assert torch.equal(wide, x.float())
        widen[(1,)](triton.reinterpret(x.view(torch.uint8), tl.float8e5), wide, N=16)
        assert torch.equal(wide, x.float())
    assert session.report().clean


@triton.jit
def copy_described(source, target, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    target.store([0, 0], source.load([0, 0]))


@triton.jit
def copy_self_described(x, y, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    source = tl.make_tensor_descriptor(x, [rows, columns], [columns, 1], [ROWS, COLUMNS])
    target = tl.make_tensor_descriptor(y, [rows, columns], [columns, 1], [ROWS, COLUMNS])
    target.store([0, 0], source.load([0, 0]))


@pytest.mark.parametrize("target", ["h100", "a100"])
def test_descriptors_of_host_and_device_stop_at_the_edges(target: str) -> None:
    x, y, z = torch.randn(6, 12), torch.zeros(8, 12), torch.zeros(6, 12)
    with offline(target) as session:
        block = [8, 16]
        copy_described[(1,)](
            TensorDescriptor.from_tensor(x, block), TensorDescriptor.from_tensor(y, block), ROWS=8, COLUMNS=16
        )
        triton.set_allocator(lambda size, alignment, stream: torch.empty(size, dtype=torch.int8))
        copy_self_described[(1,)](x, z, 6, 12, ROWS=8, COLUMNS=16)
    assert torch.equal(y[:6], x)
    assert y[6:].abs().sum() == 0
    assert torch.equal(z, x)
    assert session.report().clean


@newer_triton("its descriptors do not round")
@pytest.mark.parametrize("target", ["h100", "a100"])
def test_a_descriptor_that_rounds_loads_the_nearest_tf32_and_stores_all_bits(target: str) -> None:
    past = torch.tensor([0, 1, 0x0FFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x3001], dtype=torch.int32)
    nearest = torch.tensor([0, 0, 0, 0, 0x2000, 0x2000, 0x4000, 0x4000], dtype=torch.int32)
    starts = torch.tensor([[0x3F800000], [0x00004000], [-0x40000000]], dtype=torch.int32)  # 1, a denormal and -2
    x = (starts + past).view(torch.float32)
    x = torch.cat([x, torch.tensor([[float("inf"), float("nan"), *[0.0] * 6]])])
    y, z = torch.zeros(4, 8), torch.zeros(4, 8)
    with offline(target):
        block = [8, 16]
        rounding = TensorDescriptor.from_tensor(x, block, round_f32_to_tf32=True)
        copy_described[(1,)](rounding, TensorDescriptor.from_tensor(y, block), ROWS=8, COLUMNS=16)
        rounding = TensorDescriptor.from_tensor(z, block, round_f32_to_tf32=True)
        copy_described[(1,)](TensorDescriptor.from_tensor(x, block), rounding, ROWS=8, COLUMNS=16)
    assert torch.equal(y.view(torch.int32)[:3], starts + nearest)
    assert torch.equal(y[3].view(torch.int32), x[3].view(torch.int32))
    assert torch.equal(z.view(torch.int32), x.view(torch.int32))


@triton.jit
def asks(sm, times, N: tl.constexpr):
    tl.store(sm + tl.program_id(0), tl.extra.cuda.smid())
    for i in range(N):
        tl.store(times + tl.program_id(0) * N + i, tl.extra.cuda.globaltimer())


def test_a_kernel_is_told_an_sm_of_the_target_and_a_time_that_goes_on() -> None:
    sm, times = torch.empty(200, dtype=torch.int32), torch.empty(200, 3, dtype=torch.int64)
    with offline("h100") as session:
        asks[(200,)](sm, times, N=3)
    assert sm.tolist() == [program % 132 for program in range(200)]
    assert bool((times.diff(dim=1) > 0).all())
    assert session.report().clean


def test_an_empty_grid_launches_nothing_and_a_huge_one_is_refused() -> None:
    x = torch.zeros(4)
    with offline() as session:
        scale[(0,)](x, x, 0, 1.0, BLOCK=16)
        with pytest.raises(OfflineError, match=r"over \(1, 65536, 1\): a grid has at most .* 65535 in y or z"):
            scale[(1, 65536)](x, x, 0, 1.0, BLOCK=16)
    assert session.launches == []


def test_warmup_lowers_without_running() -> None:
    x = torch.ones(16)
    with offline() as session:
        kernel = increment.warmup(torch.float32, 16, BLOCK=16, grid=(1,))
        assert kernel.name == "increment"
        increment.run(x, 16, BLOCK=16, grid=(1,), warmup=False)
        kernel[(1,)](x, 16, 16)
    assert x.tolist() == [3.0] * 16
    assert len(session.launches) == 2


@triton.heuristics({"EVEN": lambda args: args["n"] % args["BLOCK"] == 0})
@triton.jit
def ones(y, n, BLOCK: tl.constexpr, EVEN: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.where(i >= 0, 1.0, 0.0), mask=(i < n) | EVEN)


def test_heuristics_decide() -> None:
    y = torch.zeros(40)
    with offline() as session:
        ones[(3,)](y, 40, BLOCK=16)
        ones[(2,)](y, 32, BLOCK=16)
    assert y.tolist() == [1.0] * 40
    assert [launch.constants["EVEN"] for launch in session.launches] == [False, True]


class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        ctx.save_for_backward(x)  # so that a checkpoint has something to compute again
        return scaled(x, factor)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        assert len(ctx.saved_tensors) == 1
        return scaled(grad.contiguous(), ctx.factor), None


@torch.library.custom_op("evaluator_offline::scale", mutates_args=())
def scale_op(x: torch.Tensor, factor: float) -> torch.Tensor:
    return scaled(x, factor)


@torch.library.custom_op("evaluator_offline::scale_cuda", mutates_args=(), device_types="cuda")
def scale_cuda_op(x: torch.Tensor, factor: float) -> torch.Tensor:
    return scaled(x, factor)


@torch.library.triton_op("evaluator_offline::scale_triton", mutates_args=())
def scale_triton_op(x: torch.Tensor, factor: float) -> torch.Tensor:
    y = torch.empty_like(x)
    torch.library.wrap_triton(scale)[(1,)](x, y, x.numel(), factor, BLOCK=64)
    return y


def test_autograd_functions_checkpoints_and_operators_launch() -> None:
    x = torch.randn(50, requires_grad=True)
    with offline() as session:
        loss = Scale.apply(x, 3.0).sum()  # type: ignore[no-untyped-call]
        loss = (
            loss
            + torch.utils.checkpoint.checkpoint(
                lambda t: Scale.apply(t, 5.0),  # type: ignore[no-untyped-call]
                x,
                use_reentrant=False,
            ).sum()
        )
        loss.backward()
        for op in (scale_op, scale_cuda_op, scale_triton_op):
            torch.testing.assert_close(op(x.detach(), 2.0), 2 * x.detach())
        compiled = torch.compile(lambda t: scaled(t, 4.0))
        torch.testing.assert_close(compiled(x.detach()), 4 * x.detach())
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.full((50,), 8.0))
    assert len(session.launches) == 9
    assert session.report().clean


def test_threads_may_launch() -> None:
    xs = [torch.full((64,), float(i)) for i in range(4)]
    ys = [torch.zeros(64) for _ in xs]
    with offline() as session:
        threads = [
            threading.Thread(target=lambda x=x, y=y: scale[(1,)](x, y, 64, 2.0, BLOCK=64))
            for x, y in zip(xs, ys, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(torch.equal(y, 2 * x) for x, y in zip(xs, ys, strict=True))
    assert len(session.launches) == 4


def test_torch_may_be_in_any_state() -> None:
    x, y = torch.randn(16, requires_grad=True), torch.zeros(16)
    with offline() as session:
        torch.set_default_dtype(torch.float64)
        try:
            with torch.device("meta"), torch.autocast("cpu"), torch.inference_mode():
                widen[(1,)](x, y, N=16)
            assert torch.get_default_dtype() is torch.float64
        finally:
            torch.set_default_dtype(torch.float32)
        assert torch.equal(y, x)
        with torch.inference_mode():
            z = scaled(x, 2.0)
        assert torch.equal(z, 2 * x)
    assert session.report().clean


def test_what_cannot_be_executed_is_refused_in_one_line() -> None:
    x = torch.zeros(16)
    with offline(deadline_s=0.2) as session:
        with pytest.raises(UnsupportedOperation, match=r"^unsupported operation .*:\d+$"):
            asm[(1,)](x)
        with pytest.raises(ExecutionTimeout, match=r"^kernel spin: "):
            spin[(1,)](x)
    assert session.launches == []
    with offline(unsupported="skip") as session:
        asm[(1,)](x)
    assert x.tolist() == [0.0] * 16
    (reason,) = session.report().unsupported
    assert reason.startswith("unsupported operation ")
    assert reason in str(session.report())


@triton.jit
def asm(x):
    i = tl.arange(0, 16)
    value = tl.inline_asm_elementwise("fancy.f32 $0, $1;", "=r,r", [tl.load(x + i)], tl.float32, True, 1)
    tl.store(x + i, value + 1)


def test_counts_are_kept_on_request() -> None:
    x = torch.zeros(64)
    with offline(count=True) as session:
        increment[(2,)](x, 64, BLOCK=32)
    execution = session.launches[0].execution
    assert execution is not None
    assert execution.counts is not None
    assert execution.counts.traffic["x"].read_bytes.tolist() == [128, 128]
