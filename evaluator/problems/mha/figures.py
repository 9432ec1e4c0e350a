"""Figures of multi-head attention in other settings than the paper's: see ``avo.evaluator.problems.figures``."""

from avo.evaluator.problems.figures import DIMS, PULLS, Figures, Shape, latent

_D64 = f"{PULLS} 2605: B200, clocks locked; 32 heads follow from times and TFLOPS"
_FA3 = "FlashAttention-3, arXiv 2407.08608, figure 5: H100 SXM5, float16, heads of 2048 elements together, 16k tokens"


def _d64(batch: int, causal: bool) -> Shape:
    return Shape(batch * 32, 1, 32768 // batch, 64, causal)


def _of_fa3(head_dim: int, causal: bool, at_4k_8k_16k: tuple[float, float, float]) -> dict[Shape, float]:
    """Return figures in float16, and in bfloat16, whose products take tensor cores as long."""
    return {
        Shape(16384 // length * (2048 // head_dim), 1, length, head_dim, causal, dtype=dtype): tflops
        for length, tflops in zip((4096, 8192, 16384), at_4k_8k_16k, strict=True)
        for dtype in ("float16", "bfloat16")
    }


FIGURES = (
    Figures("FlashAttention-4", "b200", DIMS, {latent(False): 1.767, latent(True): 0.920}, milliseconds=True),
    Figures(
        "FlashAttention-4",
        "b200",
        _D64,
        {
            **{_d64(batch, False): tflops for batch, tflops in ((8, 749.0), (4, 758.0), (2, 762.0))},
            **{_d64(batch, True): tflops for batch, tflops in ((8, 713.0), (4, 792.0), (2, 834.0))},
        },
    ),
    Figures(
        "cuDNN",
        "h100",
        _FA3,
        _of_fa3(64, False, (408, 412, 413)) | _of_fa3(64, True, (363, 379, 388)) | _of_fa3(256, True, (483, 497, 509)),
    ),
    Figures(
        "FlashAttention-3",
        "h100",
        _FA3,
        _of_fa3(64, False, (476, 496, 497)) | _of_fa3(64, True, (420, 460, 473)) | _of_fa3(256, True, (612, 628, 642)),
    ),
)
