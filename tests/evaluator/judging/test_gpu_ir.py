"""Kernels in Triton GPU IR are rewritten as Triton IR that does the same work; what cannot be counted is said."""

from string import Template

import pytest
import torch

from avo.evaluator import executor
from avo.evaluator.executor import Allocation, UnsupportedOperation
from avo.evaluator.judging.gpu_ir import rewrite, without_layouts
from avo.evaluator.plan import Argument, Pointer, Scalar

TYPES = {
    "A": "!ttg.memdesc<64x16xbf16, #shared, #smem, mutable>",
    "B": "!ttg.memdesc<16x32xbf16, #shared, #smem, mutable>",
    "C": "!ttg.memdesc<64x32xf32, #tmem, #ttng.tensor_memory, mutable>",
    "D": "tensor<64x32xf32, #mma>",
    "Tensor": "!tt.tensordesc<16x32xbf16, #shared>",
    "Barrier": "!ttg.memdesc<1xi64, #shared, #smem, mutable>",
}
HEAD = """\
#blocked = #ttg.blocked<{sizePerThread = [1], threadsPerWarp = [32], warpsPerCTA = [4], order = [0]}>
#mma = #ttg.nvidia_mma<{versionMajor = 3, versionMinor = 0, warpsPerCTA = [4, 1], instrShape = [16, 32, 16]}>
#shared = #ttg.nvmma_shared<{swizzlingByteWidth = 128, transposed = false, elementBitWidth = 16}>
#smem = #ttg.shared_memory
module attributes {"ttg.num-warps" = 4 : i32, ttg.target = "cuda:90"} {
  tt.func public @k(%n: i32 {tt.divisibility = 1 : i32}, %p: !tt.ptr<i32>) attributes {noinline = false} {
    %c0 = arith.constant 0 : i32
    %c1 = arith.constant 1 : i32
    %cst = arith.constant dense<0.000000e+00> : tensor<64x32xf32, #mma>
    %a = ttg.local_alloc : () -> $A
    %b = ttg.local_alloc : () -> $B
    %bar = ttg.local_alloc : () -> $Barrier
    %true = arith.constant true
"""
TAIL = """\
    tt.return
  }
}
"""
DOT = "ttng.warp_group_dot %a, %b, {acc}, %true {{inputPrecision = 0 : i32}} : $A * $B -> tensor<64x32xf32, #mma>"
FLOPS = 2 * 64 * 16 * 32


def kernel(body: str, tail: str = TAIL) -> str:
    """A kernel with a body in which ``$A`` and the like stand for ``TYPES``."""
    return Template(HEAD + body + tail).substitute(TYPES)


def counted(body: str, n: int = 5, programs: int = 2) -> list[tuple[list[int], float, float, float]]:
    """Trips of each program, and product FLOPs, bytes loaded and bytes stored of a pass, of each loop of a kernel."""
    rewritten = executor.load(rewrite(kernel(body)).text)
    memory = [
        Allocation("p", torch.tensor([n], dtype=torch.int32), None, True),
        Allocation("open", torch.zeros(64), None, True),
    ]
    args: list[Argument] = [Scalar(n), Pointer(0, 0), Pointer(1, 0)]
    work = rewritten.count(executor.Launch(memory, args, (programs, 1, 1)))
    assert work.outside.dot_flops == 0
    return [
        (trips.tolist(), body.dot_flops, body.load_bytes, body.store_bytes)
        for body, trips in zip(work.bodies, work.trips, strict=True)
    ]


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("tensor<64x32xf32, #mma>", "tensor<64x32xf32>"),
        (
            "tensor<64xi32, #ttg.slice<{dim = 1, parent = #ttg.slice<{dim = 0, parent = #mma}>}>> -> i1",
            "tensor<64xi32> -> i1",
        ),
        ("!ttg.memdesc<1xi64, #shared, #smem, mutable>, i32", "!ttg.memdesc<1xi64, mutable>, i32"),
        ("!tt.tensordesc<tensor<64x64xbf16, #shared>>", "!tt.tensordesc<tensor<64x64xbf16>>"),
        ("%acc#1, %acc#2 : i32", "%acc#1, %acc#2 : i32"),
    ],
)
def test_types_lose_their_layouts(text: str, bare: str) -> None:
    assert without_layouts(text) == bare


def test_products_and_copies_in_a_loop_are_counted_for_each_program() -> None:
    body = f"""
    %pid = tt.get_program_id x : i32
    %hi = arith.addi %n, %pid : i32
    %acc:2 = scf.for %i = %c0 to %hi step %c1 iter_args(%t = %cst, %buffer = %a) -> ($D, $A)  : i32 {{
      %tile = ttg.async_copy_global_to_local %ptrs, %a : tensor<64x16x!tt.ptr<bf16>, #blocked> -> $A
      ttng.async_tma_copy_global_to_local %p[%i, %c0] %b, %bar, %true : $Tensor, $Barrier -> $B
      ttng.wait_barrier %bar, %i, %true : $Barrier
      %d = {DOT.format(acc="%t")}
      %w = ttng.warp_group_dot_wait %d {{pendings = 0 : i32}} : $D
      %e = math.exp2 %w : $D
      scf.yield %e, %buffer : $D, $A
    }}
    %out = math.exp2 %acc#0 : $D
"""
    assert counted(body) == [([5, 6], FLOPS, 2 * (64 * 16 + 16 * 32), 0)]


def test_products_into_tensor_memory_are_counted() -> None:
    body = """
    %d = ttng.tmem_alloc : () -> $C
    scf.for %i = %c0 to %n step %c1  : i32 {
      %more = arith.cmpi sgt, %i, %c0 : i32
      %token = ttng.tc_gen5_mma %a, %b, %d[], %more, %true : $A, $B, $C
      ttng.async_tma_copy_local_to_global %p[%i] %a : !tt.tensordesc<64x16xbf16, #shared>, $A
    }
"""
    assert counted(body) == [([5, 5], FLOPS, 0, 2 * 64 * 16)]


def test_a_while_loop_and_a_branch_are_followed() -> None:
    body = f"""
    %end:2 = scf.while (%i = %c0, %m = %a) : (i32, $A) -> (i32, $A) {{
      %go = arith.cmpi slt, %i, %n : i32
      scf.condition(%go) %i, %m : i32, $A
    }} do {{
    ^bb0(%j: i32, %mj: $A):
      %pid = tt.get_program_id x : i32
      %first = arith.cmpi eq, %pid, %c0 : i32
      %next = scf.if %first -> (i32) {{
        %one = arith.addi %j, %c1 : i32
        scf.yield %one : i32
      }} else {{
        %d = {DOT.format(acc="%cst")}
        %c2 = arith.constant 2 : i32
        %two = arith.addi %j, %c2 : i32
        scf.yield %two : i32
      }}
      scf.yield %next, %mj : i32, $A
    }}
"""
    ((trips, flops, _, _),) = counted(body)
    assert trips == [5, 3]
    assert flops == pytest.approx(FLOPS * 3 / 8)


def test_what_a_loop_reads_from_global_memory_decides_as_it_does_on_a_gpu() -> None:
    body = "%hi = tt.load %p : !tt.ptr<i32>\nscf.for %i = %c0 to %hi step %c1  : i32 {\n}\n"
    assert counted(body, n=7) == [([7, 7], 0, 0, 0)]


PARTITIONS = """
    %kept:2 = ttg.warp_specialize(%n, %a, %b) attributes {requestedRegisters = array<i32: 24>}
    default {
      %8 = arith.addi %n, %c1 : i32
      scf.for %i = %c0 to %n step %c1  : i32 {
        %e = math.exp2 %cst : $D
      }
      ttg.warp_yield %a, %8 : $A, i32
    }
    partition0(%m: i32, %left: $A, %right: $B) num_warps(1) {
      %8 = arith.constant 0 : i32
      %9 = arith.constant 1 : i32
      scf.for %i = %8 to %m step %9  : i32 {
        ttng.tc_gen5_mma %left, %right, %left, %9, %9 : $A, $B, $C
      }
      ttg.warp_return
    } : (i32, !ttg.memdesc<64x16xbf16>, !ttg.memdesc<16x32xbf16>) -> (!ttg.memdesc<64x16xbf16>, i32)
    scf.for %i = %c0 to %kept#1 step %c1  : i32 {
    }
"""


def test_partitions_of_warps_are_told_apart_and_their_names_do_not_mix() -> None:
    assert rewrite(kernel(PARTITIONS)).roles == (0, 1, 0)
    assert [(trips, flops) for trips, flops, _, _ in counted(PARTITIONS)] == [([5, 5], 0), ([5, 5], FLOPS), ([6, 6], 0)]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("%x = ttg.strange %a : () -> i32 {\n}\n", "ttg.strange"),
        ("cf.br ^bb1\n", "cf.br"),
        ("%x = tt.call @f(%n) : (i32) -> i32\n", "tt.call"),
        ("%x = ttng.tc_gen5_mma_scaled %a, %b : i32\n", "tc_gen5_mma_scaled"),
        ("%x = arith.addi %a, %n : i32\n", "arithmetic on %a"),
        ("scf.for %i = %c0 to %n step %c1  : i32 {\n", "never closed"),
    ],
)
def test_what_has_no_counterpart_is_named(body: str, what: str) -> None:
    with pytest.raises(UnsupportedOperation, match=what):
        rewrite(kernel(body, TAIL if what != "never closed" else ""))


def test_a_module_that_is_not_one_function_is_refused() -> None:
    with pytest.raises(UnsupportedOperation, match="not one public function"):
        rewrite("module {\n}\n")
