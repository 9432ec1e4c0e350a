"""liger-kernel: losses, norms, activations and rotary embeddings, forward and backward, against torch."""

# mypy: disable-error-code="import-not-found,misc,no-any-return"
# The packages are not installed where types are checked.

from collections.abc import Callable

import torch
import torch.nn.functional as F

from bench.packages.harness import Trial, gradients

Tensor = torch.Tensor


def run(trial: Trial) -> None:
    """Call what ``liger_kernel.transformers.functional`` has, at several sizes."""
    for dtype in (torch.float32, torch.bfloat16):
        for rows, columns in ((7, 64), (33, 100), (4, 1000)):
            _rows(trial, dtype, rows, columns)
        for batch, tokens, heads, dim in ((1, 5, 2, 64), (2, 9, 3, 32)):
            _rope(trial, dtype, batch, tokens, heads, dim)


def _rows(trial: Trial, dtype: torch.dtype, rows: int, columns: int) -> None:
    from liger_kernel.transformers import functional as liger

    x, y, logits = (torch.randn(rows, columns).to(dtype) for _ in range(3))
    w, b = torch.rand(columns).to(dtype) + 0.5, torch.randn(columns).to(dtype)
    target = torch.randint(0, columns, (rows,))
    target[0] = -100
    log_p, q = F.log_softmax(logits.float(), -1), F.softmax(y.float(), -1)

    def pair(name: str, got: Callable[..., Tensor], expected: Callable[..., Tensor], *inputs: Tensor) -> None:
        rough = dtype is torch.bfloat16
        trial.case(
            f"{name} {str(dtype)[6:]} {rows}x{columns}",
            lambda: gradients(got, inputs),
            lambda: gradients(lambda *args: expected(*(arg.float() for arg in args)).to(dtype), inputs),
            rtol=5e-2 if rough else 1e-3,
            atol=5e-2 if rough else 1e-4,
        )

    def norm(x: Tensor, w: Tensor) -> Tensor:
        return F.rms_norm(x, w.shape, w, 1e-6)

    def jsd(log_q: Tensor, log_p: Tensor) -> Tensor:
        mixture = torch.log((log_q.exp() + log_p.exp()) / 2)
        divergence = F.kl_div(mixture, log_p, log_target=True, reduction="sum")
        return (divergence + F.kl_div(mixture, log_q, log_target=True, reduction="sum")) / (2 * len(log_q))

    pair("rms_norm", lambda x, w: liger.liger_rms_norm(x, w, 1e-6, in_place=False), norm, x, w)
    pair(
        "layer_norm",
        lambda x, w, b: liger.liger_layer_norm(x, w, b, 1e-6),
        lambda x, w, b: F.layer_norm(x, w.shape, w, b, 1e-6),
        *(x, w, b),
    )
    pair(
        "fused_add_rms_norm",
        lambda x, r, w: liger.liger_fused_add_rms_norm(x, r, w, 1e-6, in_place=False)[0],
        lambda x, r, w: norm(x + r, w),
        *(x, y, w),
    )
    pair("swiglu", lambda a, b: liger.liger_swiglu(a, b), lambda a, b: F.silu(a) * b, x, y)
    pair("geglu", lambda a, b: liger.liger_geglu(a, b), lambda a, b: F.gelu(a, approximate="tanh") * b, x, y)
    pair("softmax", liger.liger_softmax, lambda x: F.softmax(x, -1), x)
    pair("relu_squared", liger.liger_relu_squared, lambda x: F.relu(x) ** 2, x)
    pair(
        "dyt",
        liger.liger_dyt,
        lambda x, a, g, b: torch.tanh(x * a) * g + b,
        *(x, torch.tensor([0.7]).to(dtype), w, b),
    )
    pair("sparsemax", lambda x: liger.liger_sparsemax(x, -1), _sparsemax, x)
    for smoothing, reduction in ((0.0, "mean"), (0.1, "sum")):
        options = {"label_smoothing": smoothing, "reduction": reduction}
        pair(
            f"cross_entropy {smoothing} {reduction}",
            lambda x, options=options: liger.liger_cross_entropy(x, target, **options),
            lambda x, options=options: F.cross_entropy(x, target, **options),
            logits,
        )
    if dtype is torch.float32:
        pair(
            "kl_div",
            lambda p: liger.liger_kl_div(p, q, reduction="batchmean"),
            lambda p: F.kl_div(p, q, reduction="batchmean"),
            log_p,
        )
        pair("jsd", lambda p: liger.liger_jsd(p, q.log()), lambda p: jsd(p, q.log()), log_p)
        pair(
            "tvd",
            lambda p: liger.liger_tvd(p, q, reduction="batchmean"),
            lambda p: (p - q).abs().sum() / 2 / len(p),
            F.softmax(x, -1),
        )
    weight = torch.randn(50, columns).to(dtype) / 8
    few = torch.randint(0, 50, (rows,))
    pair(
        "fused_linear_cross_entropy",
        lambda x, w: liger.liger_fused_linear_cross_entropy(x, w, few),
        lambda x, w: F.cross_entropy(x @ w.T, few),
        *(x, weight),
    )
    if columns % 4 == 0:
        pair(
            "group_norm",
            lambda x, w, b: liger.liger_group_norm(x.view(rows, 4, -1), w, b, 4, 2, 1e-5),
            lambda x, w, b: F.group_norm(x.view(rows, 4, -1), 2, w, b),
            *(x, w[:4], b[:4]),
        )


def _sparsemax(x: Tensor) -> Tensor:
    """Martins and Astudillo, From Softmax to Sparsemax, 2016."""
    ordered = x.sort(-1, descending=True).values
    counts = torch.arange(1, x.shape[-1] + 1)
    sums = ordered.cumsum(-1)
    size = (1 + counts * ordered > sums).sum(-1, keepdim=True)
    return F.relu(x - (sums.gather(-1, size - 1) - 1) / size)


def _rope(trial: Trial, dtype: torch.dtype, batch: int, tokens: int, heads: int, dim: int) -> None:
    from liger_kernel.transformers import functional as liger

    q, k = torch.randn(batch, heads, tokens, dim).to(dtype), torch.randn(batch, 1, tokens, dim).to(dtype)
    angles = torch.outer(torch.arange(tokens).float(), 10000 ** (-torch.arange(0, dim, 2) / dim))
    cos, sin = (torch.cat((t, t), -1)[None].to(dtype) for t in (angles.cos(), angles.sin()))

    def rotate(x: Tensor) -> Tensor:
        a, b = x.float().chunk(2, -1)
        return (x.float() * cos.float()[:, None] + torch.cat((-b, a), -1) * sin.float()[:, None]).to(dtype)

    trial.case(
        f"rope {str(dtype)[6:]} {batch}x{tokens}x{heads}x{dim}",
        lambda: gradients(lambda q, k: liger.liger_rope(q, k, cos, sin)[0], (q, k))[:1],
        lambda: (rotate(q),),
    )
