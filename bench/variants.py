"""Attention kernels whose order in speed is known, compiled for a target, to check the performance model with."""

import math
import re
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend

from avo.evaluator import executor
from avo.evaluator.binary import Binary
from avo.evaluator.compiling.compile_job import listing
from avo.evaluator.compiling.frontend import lower
from avo.evaluator.evaluation import CaseScore
from avo.evaluator.locations import without_locations
from avo.evaluator.performance import predict
from avo.evaluator.plan import Pointer, Scalar
from avo.evaluator.targets import get_target
from avo.evaluator.work import LaunchWork

TOKENS, HEADS, HEAD_DIM = 32768, 16, 128
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def forward(
    Q, K, V, Out, Lse, scale,
    stride_qb, stride_qh, stride_qm, stride_kb, stride_kh, stride_kn,
    stride_vb, stride_vh, stride_vn, stride_ob, stride_oh, stride_om,
    heads, q_len, kv_len,
    SCHEDULE: tl.constexpr, EXP2: tl.constexpr, TENSOR_CORES: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Forward attention.

    SCHEDULE: ``full``; ``all`` (causal, every block visited and masked); ``stop`` (causal, masked, stops at the
    diagonal); ``split`` (causal, blocks below the diagonal without masks).
    """
    block_m = tl.program_id(0)
    batch = tl.program_id(1) // heads
    head = tl.program_id(1) % heads
    offs_m = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.arange(0, BLOCK_N)
    offs_d = tl.arange(0, HEAD_DIM)
    q_base = Q + batch.to(tl.int64) * stride_qb + head.to(tl.int64) * stride_qh
    k_base = K + batch.to(tl.int64) * stride_kb + head.to(tl.int64) * stride_kh
    v_base = V + batch.to(tl.int64) * stride_vb + head.to(tl.int64) * stride_vh
    o_base = Out + batch.to(tl.int64) * stride_ob + head.to(tl.int64) * stride_oh
    q = tl.load(q_base + offs_m[:, None] * stride_qm + offs_d[None, :])
    m = tl.full([BLOCK_M], float("-inf"), tl.float32)
    l = tl.zeros([BLOCK_M], tl.float32)  # noqa: E741
    acc = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    if EXP2:
        scale *= LOG2_E
    for stage in tl.static_range(2 if SCHEDULE == "split" else 1):
        lo = 0
        hi = kv_len
        if SCHEDULE == "stop":
            hi = (block_m + 1) * BLOCK_M
        elif SCHEDULE == "split":
            lo = stage * block_m * BLOCK_M
            hi = (block_m + stage) * BLOCK_M
        for start_n in range(lo, hi, BLOCK_N):
            n = start_n + offs_n
            k = tl.load(k_base + n[None, :] * stride_kn + offs_d[:, None])
            if TENSOR_CORES:  # noqa: SIM108
                s = tl.dot(q, k)
            else:
                s = tl.dot(q.to(tl.float32), k.to(tl.float32), input_precision="ieee")
            if SCHEDULE == "all" or SCHEDULE == "stop" or stage == 1:
                s = tl.where(n[None, :] <= offs_m[:, None] + (kv_len - q_len), s, float("-inf"))
            if EXP2:
                m_new = tl.maximum(m, tl.max(s, 1) * scale)
                p = tl.exp2(s * scale - m_new[:, None])
                rescale = tl.exp2(m - m_new)
            else:
                s = s * scale
                m_new = tl.maximum(m, tl.max(s, 1))
                p = tl.exp(s - m_new[:, None])
                rescale = tl.exp(m - m_new)
            l = l * rescale + tl.sum(p, 1)  # noqa: E741
            acc = acc * rescale[:, None]
            v = tl.load(v_base + n[:, None] * stride_vn + offs_d[None, :])
            if TENSOR_CORES:
                acc = tl.dot(p.to(v.dtype), v, acc)
            else:
                acc = tl.dot(p, v.to(tl.float32), acc, input_precision="ieee")
            m = m_new
    tl.store(o_base + offs_m[:, None] * stride_om + offs_d[None, :], (acc / l[:, None]).to(Out.dtype.element_ty))
    tl.store(Lse + tl.program_id(1).to(tl.int64) * q_len + offs_m, m + tl.log(l))


@triton.jit
def forward_descriptors(
    Q, K, V, Out, Lse, scale, q_len, kv_len,
    SPECIALISED: tl.constexpr, HALVES: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Forward attention without masks on tensor descriptors.

    SPECIALISED: with roles for its warps. HALVES: the accumulator is rescaled in two halves, which takes fewer
    registers where it lies in tensor memory.
    """
    block_m = tl.program_id(0)
    row = tl.program_id(1)
    rows = tl.num_programs(1)
    q_desc = tl.make_tensor_descriptor(Q, [rows * q_len, HEAD_DIM], [HEAD_DIM, 1], [BLOCK_M, HEAD_DIM])
    k_desc = tl.make_tensor_descriptor(K, [rows * kv_len, HEAD_DIM], [HEAD_DIM, 1], [BLOCK_N, HEAD_DIM])
    v_desc = tl.make_tensor_descriptor(V, [rows * kv_len, HEAD_DIM], [HEAD_DIM, 1], [BLOCK_N, HEAD_DIM])
    o_desc = tl.make_tensor_descriptor(Out, [rows * q_len, HEAD_DIM], [HEAD_DIM, 1], [BLOCK_M, HEAD_DIM])
    q = q_desc.load([row * q_len + block_m * BLOCK_M, 0])
    m = tl.full([BLOCK_M], float("-inf"), tl.float32)
    l = tl.zeros([BLOCK_M], tl.float32)  # noqa: E741
    acc = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    scale *= LOG2_E
    for start_n in tl.range(0, kv_len, BLOCK_N, warp_specialize=SPECIALISED):
        s = tl.dot(q, k_desc.load([row * kv_len + start_n, 0]).T)
        m_new = tl.maximum(m, tl.max(s, 1) * scale)
        p = tl.exp2(s * scale - m_new[:, None])
        rescale = tl.exp2(m - m_new)
        l = l * rescale + tl.sum(p, 1)  # noqa: E741
        if HALVES:
            left, right = acc.reshape([BLOCK_M, 2, HEAD_DIM // 2]).permute(0, 2, 1).split()
            scaled = tl.join(left * rescale[:, None], right * rescale[:, None])
            acc = scaled.permute(0, 2, 1).reshape([BLOCK_M, HEAD_DIM])
        else:
            acc = acc * rescale[:, None]
        v = v_desc.load([row * kv_len + start_n, 0])
        acc = tl.dot(p.to(v.dtype), v, acc)
        m = m_new
    o_desc.store([row * q_len + block_m * BLOCK_M, 0], (acc / l[:, None]).to(Out.dtype.element_ty))
    tl.store(Lse + row.to(tl.int64) * q_len + block_m * BLOCK_M + tl.arange(0, BLOCK_M), m + tl.log(l))


@dataclass(frozen=True)
class Variant:
    """One choice of kernel and parameters."""

    block_m: int
    block_n: int
    warps: int
    stages: int
    schedule: str = "full"
    exp2: bool = True
    tensor_cores: bool = True
    descriptors: bool = False
    specialised: bool = False
    halves: bool = False
    registers: int | None = None
    """Most registers a thread, where the launch says so."""

    @property
    def causal(self) -> bool:
        """Whether half of the scores count as useful work."""
        return self.schedule != "full"


@lru_cache(maxsize=128)
def ir_of(variant: Variant, arch: int) -> str:
    """Return a variant's IR for an architecture, the way a launch with aligned pointers and strides would have it."""
    kernel = forward_descriptors if variant.descriptors else forward
    constants: dict[str, Any] = {
        "SCHEDULE": variant.schedule,
        "EXP2": variant.exp2,
        "TENSOR_CORES": variant.tensor_cores,
        "SPECIALISED": variant.specialised,
        "HALVES": variant.halves,
        "HEAD_DIM": HEAD_DIM,
        "BLOCK_M": variant.block_m,
        "BLOCK_N": variant.block_n,
    }
    types = {"Q": "*bf16", "K": "*bf16", "V": "*bf16", "Out": "*bf16", "Lse": "*fp32", "scale": "fp32"}
    names = kernel.arg_names
    source = ASTSource(
        kernel,
        {name: "constexpr" if name in constants else types.get(name, "i32") for name in names},
        {(i,): constants[name] for i, name in enumerate(names) if name in constants},
        {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name not in constants and name != "scale"},
    )
    backend = make_backend(GPUTarget("cuda", arch, 32))
    return lower(source, backend, backend.parse_options(_options(variant))).kernel.ttir


def _options(variant: Variant) -> dict[str, int | bool]:
    limit = {} if variant.registers is None else {"maxnreg": variant.registers}
    return {"num_warps": variant.warps, "num_stages": variant.stages, "enable_fp_fusion": True, **limit}


@lru_cache(maxsize=128)
def compile_variant(variant: Variant, arch: int) -> Binary:
    """Compile for an architecture."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.ttir")
        path.write_text(without_locations(ir_of(variant, arch)))
        compiled = triton.compile(str(path), target=GPUTarget("cuda", arch, 32), options=_options(variant))
    registers, stack, disassembly = _inspect(compiled.asm["cubin"], compiled.asm["ptx"])
    threads = re.search(r"\.reqntid (\d+)", compiled.asm["ptx"])
    return Binary(
        compiled.metadata.name, f"sm_{arch}", compiled.asm["cubin"], compiled.asm["ptx"],
        int(threads[1]) if threads else 32 * variant.warps, registers, stack, compiled.metadata.shared,
        compiled.metadata.tmem_size, disassembly,
    )  # fmt: skip


def _inspect(cubin: bytes, ptx: str) -> tuple[int, int, str]:
    """Return registers and stack bytes per thread, and the disassembly."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        disassembly = listing(path, ptx)
    usage = re.search(r"REG:(\d+) STACK:(\d+)", text)
    assert usage is not None
    return int(usage[1]), int(usage[2]), disassembly


@lru_cache(maxsize=256)
def launch_work(variant: Variant, arch: int, length: int, rows: int | None = None) -> LaunchWork:
    """Count one launch on ``rows`` sequences of ``length`` tokens, all heads of a batch together, of dimension 128.

    By default these are 32768 tokens and 16 heads.
    """
    binary, kernel = compile_variant(variant, arch), executor.load(ir_of(variant, arch))
    rows = rows or _rows(length)
    elements = rows * length * HEAD_DIM
    buffers = {name: torch.empty(elements, dtype=torch.bfloat16) for name in ("Q", "K", "V", "Out")}
    buffers["Lse"] = torch.empty(rows * length)
    strides = {"b": HEADS * length * HEAD_DIM, "h": length * HEAD_DIM, "m": HEAD_DIM, "n": HEAD_DIM}
    values = {"scale": 0.1, "heads": HEADS, "q_len": length, "kv_len": length}
    values |= {f"stride_{tensor}{dim}": stride for tensor in "qkvo" for dim, stride in strides.items()}
    names = (forward_descriptors if variant.descriptors else forward).arg_names
    args = [
        Pointer(list(buffers).index(name), 0) if name in buffers else Scalar(values[name])
        for name in names
        if not name.isupper() or name in buffers
    ]
    memory = [executor.Allocation(name, data) for name, data in buffers.items()]
    grid = (length // variant.block_m, rows, 1)
    return kernel.count(executor.Launch(memory, args, grid)).of(binary, math.prod(grid))


def case_of(variant: Variant, target: str, length: int, rows: int | None = None) -> tuple[int, int, list[LaunchWork]]:
    """Return useful FLOPs, least bytes and launches of the case that ``launch_work`` describes."""
    elements = (rows or _rows(length)) * length * HEAD_DIM
    flops = 4 * elements * length // (2 if variant.causal else 1)
    return flops, 4 * elements * 2, [launch_work(variant, get_target(target).arch, length, rows)]


def predict_variant(variant: Variant, target: str, length: int = 16384, rows: int | None = None) -> CaseScore:
    """Predict a variant's speed on the case ``launch_work`` describes."""
    return predict(f"{length}", *case_of(variant, target, length, rows), get_target(target))


def _rows(length: int) -> int:
    return TOKENS // length * HEADS
