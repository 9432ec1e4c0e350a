"""Kernels of the package liger-kernel, as their published benchmark calls them."""

from collections.abc import Callable

import numpy as np
import torch

from bench.measured.capture import empty

Sizes = dict[str, int]
Call = tuple[Callable[[], object], int]
"""A function to call, and the bytes of its inputs and outputs, each once."""
_EPS = 1e-6


def call(kernel: str, mode: str, sizes: Sizes, dtype: str) -> Call:
    """Return the call of a kernel that was measured. Raises ``ImportError`` without the package."""
    return _CALLS[kernel, mode](sizes, dtype or "float32")


def _relu_squared(sizes: Sizes, dtype: str) -> Call:
    from liger_kernel.ops.relu_squared import relu_squared_forward

    x = empty((sizes["M"], sizes["N"]), dtype)
    return lambda: relu_squared_forward(x), 2 * x.nbytes


def _relu_squared_backward(sizes: Sizes, dtype: str) -> Call:
    from liger_kernel.ops.relu_squared import relu_squared_backward

    x, dy = (empty((sizes["M"], sizes["N"]), dtype) for _ in range(2))
    return lambda: relu_squared_backward(x, dy), 3 * x.nbytes


def _tvd(sizes: Sizes, dtype: str) -> Call:
    from liger_kernel.ops.tvd import tv_distance_forward_triton

    p, q = (empty((sizes["B"] * sizes["T"], sizes["V"]), dtype) for _ in range(2))
    return lambda: tv_distance_forward_triton(p, q, None, "batchmean", -100, False), 3 * p.nbytes


def _layer_norm(sizes: Sizes, dtype: str) -> Call:
    from liger_kernel.ops.layer_norm import layer_norm_forward

    x = empty((sizes["M"], sizes["N"]), dtype)
    weight, bias = (empty((sizes["N"],), "float32") for _ in range(2))
    return lambda: layer_norm_forward(x, weight, bias, _EPS), 2 * x.nbytes + 2 * weight.nbytes


def _rms_norm(sizes: Sizes, dtype: str) -> Call:
    return _rms(empty((sizes["M"], sizes["H"]), dtype), empty((sizes["H"],), "float32"))


def _megatron_rms_norm(sizes: Sizes, dtype: str) -> Call:
    return _rms(empty((sizes["S"], sizes["B"], sizes["H"]), "bfloat16"), empty((sizes["H"],), "bfloat16"))


def _rms(x: torch.Tensor, weight: torch.Tensor) -> Call:
    from liger_kernel.ops.rms_norm import rms_norm_forward

    return lambda: rms_norm_forward(x, weight, _EPS, 0.0, "llama", None), 2 * x.nbytes + weight.nbytes


def _fused_add_rms_norm(sizes: Sizes, dtype: str) -> Call:
    from liger_kernel.ops.fused_add_rms_norm import fused_add_rms_norm_forward

    x, residual = (empty((sizes["M"], sizes["H"]), dtype) for _ in range(2))
    weight = empty((sizes["H"],), "float32")
    return lambda: fused_add_rms_norm_forward(x, residual, weight, _EPS, 0.0, "llama"), 4 * x.nbytes + weight.nbytes


def _group_norm(sizes: Sizes, dtype: str) -> Call:
    from liger_kernel.ops.group_norm import group_norm_forward

    channels = sizes["C"]
    groups = channels // sizes["channels_per_group"]
    x = empty((sizes["M"], channels, sizes["H"]), dtype)
    weight, bias = (empty((channels,), "float32") for _ in range(2))
    return lambda: group_norm_forward(x, channels, groups, weight, bias, _EPS), 2 * x.nbytes + 2 * weight.nbytes


def _megatron_swiglu(sizes: Sizes, dtype: str) -> Call:
    from liger_kernel.ops.swiglu import swiglu_fused_gate_up_forward

    x = empty((sizes["S"], sizes["B"], 2 * sizes["ffn_local"]), "bfloat16")
    return lambda: swiglu_fused_gate_up_forward(x), x.nbytes + x.nbytes // 2


def _rope(sizes: Sizes, dtype: str) -> Call:
    from liger_kernel.ops.rope import rope_forward

    length = sizes.get("seq_len", sizes.get("T", 0))
    dim = sizes.get("hidden_size", sizes.get("H", 0)) // sizes["num_q_heads"]
    q, k = (empty((1, length, sizes[heads], dim), dtype).transpose(1, 2) for heads in ("num_q_heads", "num_kv_heads"))
    cos, sin = (empty((1, length, dim), dtype) for _ in range(2))
    return lambda: rope_forward(q, k, cos, sin), 2 * (q.nbytes + k.nbytes) + cos.nbytes + sin.nbytes


def _llama4_rope(sizes: Sizes, dtype: str) -> Call:
    from liger_kernel.ops.llama4_rope import llama4_rope_forward

    length, dim = sizes["T"], sizes["hidden_size"] // sizes["num_q_heads"]
    q, k = (empty((1, length, sizes[heads], dim), dtype) for heads in ("num_q_heads", "num_kv_heads"))
    factors = empty((length, dim // 2, 2), dtype)
    return lambda: llama4_rope_forward(q, k, factors), 2 * (q.nbytes + k.nbytes) + factors.nbytes


def _cross_entropy(sizes: Sizes, dtype: str) -> Call:
    from liger_kernel.ops.cross_entropy import cross_entropy_forward

    rows = sizes["B"] * sizes["T"]
    scores = empty((rows, sizes["V"]), dtype).requires_grad_()
    target = torch.from_numpy(np.random.default_rng(0).integers(0, sizes["V"], rows))
    return lambda: cross_entropy_forward(scores, target, None, -100, 0.0, 0.0, "mean", None, False), 2 * scores.nbytes


def _embedding(sizes: Sizes, dtype: str) -> Call:
    from liger_kernel.ops.experimental.embedding import LigerEmbeddingFunction

    count, dim = sizes["B"] * sizes["T"], sizes["D"]
    table = empty((sizes["V"], dim), dtype)
    ids = np.random.default_rng(0).integers(0, sizes["V"], count)
    indices = torch.from_numpy(ids)
    moved = (len(np.unique(ids)) + count) * dim * table.element_size()
    return lambda: LigerEmbeddingFunction.apply(table, indices), moved + indices.nbytes


_CALLS: dict[tuple[str, str], Callable[[Sizes, str], Call]] = {
    ("relu_squared", "forward"): _relu_squared,
    ("relu_squared", "backward"): _relu_squared_backward,
    ("tvd", "forward"): _tvd,
    ("layer_norm", "forward"): _layer_norm,
    ("rms_norm", "forward"): _rms_norm,
    ("megatron_rms_norm", "forward"): _megatron_rms_norm,
    ("fused_add_rms_norm", "forward"): _fused_add_rms_norm,
    ("group_norm", "forward"): _group_norm,
    ("megatron_swiglu", "forward"): _megatron_swiglu,
    ("rope", "forward"): _rope,
    ("llama4_rope", "forward"): _llama4_rope,
    ("cross_entropy", "forward"): _cross_entropy,
    ("embedding", "forward"): _embedding,
}


def parse(sizes: str) -> Sizes:
    """Return the sizes in a text such as ``M=4096 N=256``."""
    return {name: int(value) for name, value in (pair.split("=") for pair in sizes.split())}
