"""Copies follow the descriptors that a kernel writes to its scratch memory, as they are when copies begin."""

import math

import pytest
import torch

from avo.evaluator.executor import Allocation, Launch, UnsupportedOperation, load
from avo.evaluator.plan import Pointer, Scalar

ORACLE = "the definition"

MAKE = """%two = arith.constant 2 : i32
    %bytes = arith.constant 16 : i64
    ttng.tensormap_create %at, %from, [%four, %two], [%four, %rows], [%bytes], [%one, %one] \
{elem_type = 7 : i32, fill_mode = FILL : i32, interleave_layout = 0 : i32, swizzle_mode = 0 : i32} : \
(!tt.ptr<i8>, !tt.ptr<f32>, i32, i32, i32, i32, i64, i32, i32) -> ()"""
FENCE = "ttng.tensormap_fenceproxy_acquire %at : !tt.ptr<i8>"
KERNEL = """#flat = #ttg.swizzled_shared<{vec = 1, perPhase = 1, maxPhase = 1, order = [1, 0]}>
#bar = #ttg.swizzled_shared<{vec = 1, perPhase = 1, maxPhase = 1, order = [0]}>
#smem = #ttg.shared_memory
module attributes {"ttg.num-ctas" = 1 : i32, "ttg.num-warps" = 4 : i32} {
  tt.func public @k(%x: !tt.ptr<f32>, %y: !tt.ptr<f32>, %rows: i32) {
    %zero = arith.constant 0 : i32
    %one = arith.constant 1 : i32
    %four = arith.constant 4 : i32
    %eight = arith.constant 8 : i32
    %true = arith.constant true
    %me = tt.get_program_id x : i32
    %scratch = ttg.global_scratch_alloc {alignment = 128 : i32, nbytes = 256 : i32} : !tt.ptr<i8>
    %at = tt.addptr %scratch, %zero : !tt.ptr<i8>, i32
    %skip = arith.muli %me, %eight : i32
    %from = tt.addptr %x, %skip : !tt.ptr<f32>, i32
    DESCRIBE
    %desc = ttng.reinterpret_tensor_descriptor %at : !tt.ptr<i8> to !tt.tensordesc<2x4xf32, #flat>
    %tile = ttg.local_alloc : () -> !ttg.memdesc<2x4xf32, #flat, #smem, mutable>
    %ready = ttg.local_alloc : () -> !ttg.memdesc<1xi64, #bar, #smem, mutable>
    ttng.init_barrier %ready, 1 : !ttg.memdesc<1xi64, #bar, #smem, mutable>
    ttng.barrier_expect %ready, 32, %true : !ttg.memdesc<1xi64, #bar, #smem, mutable>
    ttng.async_tma_copy_global_to_local %desc[%zero, %zero] %tile, %ready, %true : !tt.tensordesc<2x4xf32, #flat>, \
!ttg.memdesc<1xi64, #bar, #smem, mutable> -> !ttg.memdesc<2x4xf32, #flat, #smem, mutable>
    ttng.wait_barrier %ready, %zero : !ttg.memdesc<1xi64, #bar, #smem, mutable>
    %value = ttg.local_load %tile : !ttg.memdesc<2x4xf32, #flat, #smem, mutable> -> tensor<2x4xf32>
    %i = tt.make_range {end = 8 : i32, start = 0 : i32} : tensor<8xi32>
    %offset = tt.splat %skip : i32 -> tensor<8xi32>
    %place = arith.addi %i, %offset : tensor<8xi32>
    %flat = tt.reshape %value : tensor<2x4xf32> -> tensor<8xf32>
    %base = tt.splat %y : !tt.ptr<f32> -> tensor<8x!tt.ptr<f32>>
    %to = tt.addptr %base, %place : tensor<8x!tt.ptr<f32>>, tensor<8xi32>
    tt.store %to, %flat : tensor<8x!tt.ptr<f32>>
    tt.return
  }
}"""


def copied(describe: str, rows: int = 2, fill: int = 0) -> tuple[torch.Tensor, list[tuple[str, str]]]:
    """Return what two programs copy, by descriptors of tensors of so many rows, and the kinds and texts of faults."""
    x, y = torch.arange(16.0), torch.zeros(16)
    memory = [
        Allocation("x", x),
        Allocation("y", y, torch.zeros(16, dtype=torch.bool)),
    ]
    kernel = load(KERNEL.replace("DESCRIBE", describe).replace("FILL", str(fill)))
    done = kernel.run(Launch(memory, [Pointer(0, 0), Pointer(1, 0), Scalar(rows)], (2, 1, 1)), sanitize=True)
    return y, [(fault.kind, fault.message) for fault in done.faults]


def test_each_program_copies_by_its_own_descriptor() -> None:
    made, faults = copied(f"{MAKE}\n    {FENCE}")
    assert torch.equal(made, torch.arange(16.0))
    assert not faults


@pytest.mark.parametrize(("fill", "outside"), [(0, 0.0), (1, math.nan)])
def test_what_lies_outside_of_the_described_tensor_is_filled_as_the_descriptor_says(fill: int, outside: float) -> None:
    made, _ = copied(f"{MAKE}\n    {FENCE}", rows=1, fill=fill)
    expected = torch.arange(16.0).view(2, 2, 4)
    expected[:, 1] = outside
    assert torch.equal(made.nan_to_num(-1), expected.flatten().nan_to_num(-1))


def test_a_descriptor_that_is_made_again_needs_another_fence() -> None:
    _, ((kind, message),) = copied(f"{FENCE}\n    {MAKE}\n    {FENCE}\n    {MAKE.partition('i64')[2].strip()}")
    assert kind == "missing fence"
    assert "the program uses a descriptor that it has made with no fence since" in message


def test_a_descriptor_that_was_never_made_is_found() -> None:
    _, ((kind, message), *_) = copied(FENCE)
    assert kind == "invalid descriptor"
    assert "the program uses a descriptor that it has not made" in message


@pytest.mark.parametrize(
    ("said", "instead", "refusal"),
    [
        ("interleave_layout = 0", "interleave_layout = 1", "tensormap_create of 9 operands"),
        ("elem_type = 7", "elem_type = 13", "items of less than a byte"),
        ("[%one, %one]", "[%two, %one]", "steps between elements"),
    ],
)
def test_descriptors_that_are_not_followed_are_refused(said: str, instead: str, refusal: str) -> None:
    with pytest.raises(UnsupportedOperation, match=refusal):
        copied(f"{MAKE.replace(said, instead)}\n    {FENCE}")
