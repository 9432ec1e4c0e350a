"""Packages with kernels for layers, quantisation and clustering, against torch."""

# mypy: disable-error-code="import-not-found,misc,no-any-return"
# The packages are not installed where types are checked.

import torch
import torch.nn.functional as F

from bench.packages.harness import Trial, gradients

Tensor = torch.Tensor


def conch(trial: Trial) -> None:
    """conch-triton-kernels: activations, norms, rotary embeddings, quantisation, paged attention, suppression."""
    from conch.ops.activation.gelu_tanh_and_mul import gelu_tanh_and_mul
    from conch.ops.activation.silu_and_mul import silu_and_mul
    from conch.ops.attention.paged_attention import paged_attention
    from conch.ops.normalization.gemma_rms_norm import gemma_rms_norm
    from conch.ops.normalization.rms_norm import fused_add_rms_norm, rms_norm
    from conch.ops.quantization.fp8 import scaled_fp8_quant
    from conch.ops.quantization.int8 import scaled_int8_quant
    from conch.ops.vision.nms import nms
    from conch.reference.vision.nms import nms as exact_nms

    for dtype in (torch.float16, torch.bfloat16):
        for rows, columns in ((7, 64), (33, 200)):
            title = f"{str(dtype)[6:]} {rows}x{columns}"
            x, y, w = torch.randn(rows, 2 * columns), torch.randn(rows, columns), torch.rand(columns)
            x, y, w = x.to(dtype), y.to(dtype), w.to(dtype)
            half, other = x.float().chunk(2, -1)
            norm = F.rms_norm(y.float(), (columns,), None, 1e-6)
            trial.case(
                f"silu_and_mul {title}",
                lambda x=x: silu_and_mul(x),
                lambda a=half, b=other, dtype=dtype: (F.silu(a) * b).to(dtype),
            )
            trial.case(
                f"gelu_tanh_and_mul {title}",
                lambda x=x: gelu_tanh_and_mul(x),
                lambda a=half, b=other, dtype=dtype: (F.gelu(a, approximate="tanh") * b).to(dtype),
            )
            trial.case(
                f"rms_norm {title}",
                lambda y=y, w=w: rms_norm(y, w, 1e-6),
                lambda norm=norm, w=w, dtype=dtype: (norm * w.float()).to(dtype),
            )
            trial.case(
                f"gemma_rms_norm {title}",
                lambda y=y, w=w: gemma_rms_norm(y, w, 1e-6),
                lambda norm=norm, w=w, dtype=dtype: (norm * (1 + w.float())).to(dtype),
            )
            trial.case(
                f"fused_add_rms_norm {title}",
                lambda y=y, w=w: fused_add_rms_norm(y.clone(), y.clone(), w, 1e-6)[0],
                lambda y=y, w=w, c=columns, dtype=dtype: F.rms_norm(2 * y.float(), (c,), w.float(), 1e-6).to(dtype),
            )
            scale = torch.tensor([0.05])
            trial.case(
                f"scaled_fp8_quant {title}",
                lambda y=y, s=scale: scaled_fp8_quant(y, s)[0].float(),
                lambda y=y, s=scale: (y.float() / s).clamp(-448, 448).to(torch.float8_e4m3fn).float(),
                rtol=0.13,
                atol=1e-3,
            )
            trial.case(
                f"scaled_int8_quant {title}",
                lambda y=y, s=scale: scaled_int8_quant(y, s)[0].int(),
                lambda y=y, s=scale: (y.float() / s).round().clamp(-128, 127).int(),
                rtol=0,
                atol=1,
            )
        for heads, keys, dim, block in ((4, 2, 64, 16), (8, 8, 128, 32)):
            _paged(trial, paged_attention, heads, keys, dim, block, dtype)
    boxes = torch.rand(60, 2) * 10
    boxes, scores = torch.cat((boxes, boxes + torch.rand(60, 2) * 6), 1), torch.rand(60)
    trial.case("nms", lambda: nms(boxes, scores, 0.4), lambda: exact_nms(boxes, scores, 0.4))


def _paged(trial: Trial, function: object, heads: int, keys: int, dim: int, block: int, dtype: torch.dtype) -> None:
    lengths = torch.tensor([5, 40, 64], dtype=torch.int32)
    blocks = -(-64 // block)
    table = torch.randperm(3 * blocks).view(3, blocks).int()
    cache_k, cache_v = (torch.randn(3 * blocks, block, keys, dim).to(dtype) for _ in range(2))
    q = torch.randn(3, heads, dim).to(dtype)

    def exact() -> Tensor:
        out = []
        for i, length in enumerate(lengths):
            k, v = (c[table[i]].flatten(0, 1)[:length].float() for c in (cache_k, cache_v))
            k, v = (t.repeat_interleave(heads // keys, 1) for t in (k, v))
            p = (torch.einsum("hd,jhd->hj", q[i].float(), k) * dim**-0.5).softmax(-1)
            out.append(torch.einsum("hj,jhd->hd", p, v))
        return torch.stack(out).to(dtype)

    trial.case(
        f"paged_attention {str(dtype)[6:]} {heads}x{keys}x{dim}x{block}",
        lambda: function(q, cache_k, cache_v, table, lengths),  # type: ignore[operator]
        exact,
        rtol=2e-2,
        atol=2e-2,
    )


def bitsandbytes(trial: Trial) -> None:
    """bitsandbytes' Triton backend: blockwise quantisation there and back, optimisers, 4-bit products."""
    from bitsandbytes.backends.triton import ops
    from bitsandbytes.functional import create_dynamic_map, get_4bit_type

    code = create_dynamic_map()
    for block in (64, 256):
        x = torch.randn(20, 128)
        _, scales = ops.quantize_blockwise(x, code, block)
        peaks = x.view(-1, block).abs().amax(1)
        trial.case(f"quantize_blockwise {block}", lambda s=scales: s, lambda p=peaks: p)
        trial.case(
            f"dequantize_blockwise {block}",
            lambda x=x, b=block: ops.dequantize_blockwise(*ops.quantize_blockwise(x, code, b), code, b, x.dtype),
            lambda x=x: x,
            rtol=0.05,
            atol=0.05,
        )
        for kind in ("nf4", "fp4"):
            levels = get_4bit_type(kind, device="cpu")
            trial.case(
                f"dequantize_4bit {kind} {block}",
                lambda x=x, b=block, kind=kind: ops.dequantize_4bit(
                    *ops.quantize_4bit(x, b, kind, torch.uint8), b, kind, x.shape, x.dtype
                ),
                lambda x=x, b=block, levels=levels: _nearest(x, levels, b),
                rtol=1e-3,
                atol=1e-2,
            )
    for name in ("adam", "lion", "momentum", "rmsprop"):
        p, g, m, v = torch.randn(1000), torch.randn(1000), torch.zeros(1000), torch.zeros(1000)
        after = p.clone()
        trial.case(
            f"optimizer_update_32bit {name}",
            lambda name=name, after=after, g=g, m=m, v=v: (
                ops.optimizer_update_32bit(
                    name, g, after, m, v, None, 0.0, 0.0, 0.9, 0.99, 0.0, 0.0, 1e-8, 0.0, 1, 0.01, 1.0
                ),
                after,
            )[1],
            lambda name=name, p=p, g=g: p - 0.01 * _step(name, g),
            rtol=1e-3,
            atol=1e-3,
        )


def _nearest(x: Tensor, levels: Tensor, block: int) -> Tensor:
    rows = x.view(-1, block)
    peaks = rows.abs().amax(1, keepdim=True)
    chosen = ((rows / peaks)[..., None] - levels).abs().argmin(-1)
    return (levels[chosen] * peaks).view(x.shape)


def _step(name: str, g: Tensor) -> Tensor:
    if name == "lion":
        return g.sign()
    if name == "momentum":
        return g
    if name == "rmsprop":
        return g / (0.1**0.5 * g.abs() + 1e-8)
    return g.sign()  # Adam's first step


def xformers(trial: Trial) -> None:
    """xformers' Triton operators."""
    from xformers.ops._triton.k_index_select_cat import index_select_cat_fwd
    from xformers.ops._triton.k_scaled_index_add import scaled_index_add_fwd
    from xformers.ops.rmsnorm import rms_norm, rms_norm_add
    from xformers.ops.tiled_matmul import tiled_matmul

    rows = torch.tensor([4, 1, 7])
    for dtype in (torch.float32, torch.float16):
        x, w = torch.randn(9, 5, 64).to(dtype), torch.rand(64).to(dtype)
        name = str(dtype)[6:]
        trial.case(
            f"rms_norm {name}",
            lambda x=x, w=w: rms_norm(x, w),
            lambda x=x, w=w: F.rms_norm(x.float(), (64,), w.float(), 1e-6).to(x.dtype),
        )
        trial.case(
            f"rms_norm_add {name}",
            lambda x=x, w=w: rms_norm_add(x.clone(), x, w),
            lambda x=x, w=w: F.rms_norm(2 * x.float(), (64,), w.float(), 1e-6).to(x.dtype),
        )
        out = torch.empty(3, 64, dtype=dtype)
        flat = x[:, 0].contiguous()
        trial.case(
            f"index_select_cat {name}",
            lambda o=out, f=flat: (index_select_cat_fwd(o, f, rows), o)[1],
            lambda f=flat: f[rows],
        )
        source = torch.randn(3, 5, 64).to(dtype)
        trial.case(
            f"scaled_index_add {name}",
            lambda x=x, s=source: (y := x.clone(), scaled_index_add_fwd(y, rows, s, None, 0.5))[0],
            lambda x=x, s=source: x.index_add(0, rows, s, alpha=0.5),
        )
    a = [[torch.randn(m, k).half() for k in (32, 64)] for m in (48, 16)]
    b = [[torch.randn(k, n).half() for n in (32, 80)] for k in (32, 64)]
    trial.case(
        "tiled_matmul",
        lambda: tiled_matmul(a, b),
        lambda: [
            [sum(a[i][k].float() @ b[k][j].float() for k in range(2)).half() for j in range(2)]  # type: ignore
            for i in range(2)
        ],
        rtol=2e-2,
        atol=5e-2,
    )


def ao(trial: Trial) -> None:
    """torchao: fp8 and int8 products, block-sparse products, microscaling formats."""
    from torchao.kernel import blockwise_quantization as blocks
    from torchao.kernel import intmm_triton
    from torchao.kernel.bsr_triton_ops import bsr_dense_addmm
    from torchao.prototype.mx_formats.kernels import triton_to_mxfp8_dim1, triton_to_mxfp8_dim1_reference

    fp8 = torch.float8_e4m3fn
    intmm_triton.int8_mm_kernel_configs = intmm_triton.int8_mm_kernel_configs[:2]  # it times hundreds
    x, w = torch.randn(64, 256).bfloat16(), torch.randn(128, 256).bfloat16()

    def dequantised(q: Tensor, s: Tensor) -> Tensor:
        return (q.float().view(q.shape[0], -1, 128) * s[..., None]).view(q.shape)

    quantised, scales = blocks.fp8_blockwise_act_quant(x)
    trial.case(
        "fp8_blockwise_act_quant", lambda: dequantised(*blocks.fp8_blockwise_act_quant(x)), x.float, rtol=0.1, atol=0.1
    )
    wq, ws = blocks.fp8_blockwise_weight_quant(w)
    trial.case(
        "fp8_blockwise_weight_dequant", lambda: blocks.fp8_blockwise_weight_dequant(wq, ws), w.float, rtol=0.1, atol=0.1
    )
    trial.case(
        "blockwise_fp8_gemm",
        lambda: blocks.blockwise_fp8_gemm(quantised, scales, wq, ws).float(),
        lambda: dequantised(quantised, scales) @ blocks.fp8_blockwise_weight_dequant(wq, ws).float().T,
        rtol=2e-2,
        atol=0.5,
    )
    a, b = (torch.randint(-128, 128, shape, dtype=torch.int8) for shape in ((64, 128), (128, 96)))
    trial.case("int_matmul", lambda: intmm_triton.int_matmul_cuda(a, b), lambda: a.int() @ b.int())
    rows = torch.rand(64, 1).bfloat16()
    trial.case(
        "int_scaled_matmul",
        lambda: intmm_triton.int_scaled_matmul_cuda(a, b, rows),
        lambda: ((a.int() @ b.int()) * rows.float()).bfloat16(),
    )
    dense = torch.randn(64, 128).half() * (torch.rand(4, 8).repeat_interleave(16, 0).repeat_interleave(16, 1) > 0.5)
    right, more = torch.randn(128, 32).half(), torch.randn(64, 32).half()
    bsr = dense.to_sparse_bsr((16, 16))
    trial.case(
        "bsr_dense_addmm",
        lambda: bsr_dense_addmm(more, bsr, right),
        lambda: (more.float() + dense.float() @ right.float()).half(),
        rtol=2e-2,
        atol=5e-2,
    )
    for mode in ("rceil", "floor"):
        y = torch.randn(128, 256).bfloat16()
        trial.case(
            f"to_mxfp8_dim1 {mode}",
            lambda y=y, mode=mode: [t.view(torch.uint8) for t in triton_to_mxfp8_dim1(y, 32, mode)],
            lambda y=y, mode=mode: [t.view(torch.uint8) for t in triton_to_mxfp8_dim1_reference(y, 32, _mode(mode))],
        )
    assert quantised.dtype is fp8


def _mode(name: str) -> object:
    from torchao.prototype.mx_formats.config import ScaleCalculationMode

    return ScaleCalculationMode(name)


def entropy(trial: Trial) -> None:
    """crossentropy-triton: every token's logits are for the next token."""
    from crossentropy_triton import CrossEntropyFunction

    for rows, classes in ((7, 100), (20, 5000)):
        x, y = torch.randn(rows, classes), torch.randint(0, classes, (rows,))
        y[2] = -100
        trial.case(
            f"cross_entropy {rows}x{classes}",
            lambda x=x, y=y: gradients(lambda x: CrossEntropyFunction.apply(x, y, -100), (x,)),
            lambda x=x, y=y: gradients(lambda x: F.cross_entropy(x[:-1], y[1:]), (x,)),
            rtol=1e-3,
            atol=1e-4,
        )


def transport(trial: Trial) -> None:
    """flash-sinkhorn: the c-transform and its cost."""
    import flash_sinkhorn as sinkhorn

    for n, m, dim in ((100, 70, 3), (64, 128, 16)):
        x, y, psi = torch.randn(n, dim), torch.randn(m, dim), torch.randn(m)
        distances = (x[:, None] - y[None]).pow(2).sum(-1) - psi
        trial.case(
            f"c_transform_fwd {n}x{m}x{dim}",
            lambda x=x, y=y, p=psi: sinkhorn.c_transform_fwd(x, y, p, allow_tf32=False, autotune=False)[0],
            lambda d=distances: d.amin(1),
            rtol=1e-3,
            atol=1e-3,
        )
        loss = sinkhorn.SamplesLoss("sinkhorn", p=2, blur=0.5)
        trial.case(
            f"SamplesLoss is symmetric {n}x{m}x{dim}",
            lambda x=x, y=y, loss=loss: loss(x, y),
            lambda x=x, y=y, loss=loss: loss(y, x),
            rtol=1e-2,
            atol=1e-2,
        )


def means(trial: Trial) -> None:
    """flash-kmeans: one step against the plain one."""
    from flash_kmeans.assign_euclid_triton import euclid_assign_triton

    for batch, n, k, dim in ((2, 300, 10, 16), (1, 129, 33, 64)):
        x, c = torch.randn(batch, n, dim).half(), torch.randn(batch, k, dim).half()
        distances = (x.float()[:, :, None] - c.float()[:, None]).pow(2).sum(-1)
        trial.case(
            f"assign {batch}x{n}x{k}x{dim}",
            lambda x=x, c=c, d=distances: d.gather(
                2, euclid_assign_triton(x, c, x.float().pow(2).sum(-1)).long()[..., None]
            )[..., 0],
            lambda d=distances: d.amin(-1),
            rtol=1e-2,
            atol=5e-2,
        )


def experts(trial: Trial) -> None:
    """moe-ops: routing and grouped products."""
    import moe_ops

    for tokens, count, k in ((50, 8, 2), (33, 16, 4)):
        logits = torch.randn(tokens, count)
        trial.case(
            f"fused_topk_softmax {tokens}x{count}x{k}",
            lambda x=logits, k=k: moe_ops.fused_topk_softmax(x, k)[0].float().sort(-1).values,
            lambda x=logits, k=k: x.topk(k).values.softmax(-1).sort(-1).values,
            rtol=2e-2,
            atol=2e-2,
        )
        x = torch.randn(tokens, 64).bfloat16()
        indices = torch.stack([torch.randperm(count)[:k] for _ in range(tokens)]).int()
        trial.case(
            f"permute {tokens}x{count}x{k}",
            lambda x=x, i=indices: moe_ops.permute(x, i)[0],
            lambda x=x, i=indices, k=k: x[i.flatten().sort(stable=True).indices // k],
        )
        a, b = torch.randn(tokens, 64).bfloat16(), torch.randn(count, 32, 64).bfloat16()
        ends = torch.linspace(0, tokens, count + 1).int()[1:]
        starts = [0, *ends[:-1].tolist()]
        trial.case(
            f"grouped_gemm {tokens}x{count}",
            lambda a=a, b=b, e=ends: moe_ops.grouped_gemm(a, b, e),
            lambda a=a, b=b, e=ends, s=starts: torch.cat(
                [a[i:j].float() @ b[n].float().T for n, (i, j) in enumerate(zip(s, e.tolist(), strict=True))]
            ).bfloat16(),
            rtol=2e-2,
            atol=0.1,
        )
