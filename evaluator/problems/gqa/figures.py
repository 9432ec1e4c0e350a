"""Figures of grouped-query attention in other settings than the paper's: see ``avo.evaluator.problems.figures``."""

from avo.evaluator.problems.figures import WINDOW, WINDOWED, Figures, Shape

_H100 = "mlc-ai/pith-train, pull request 2: H100"


def _qwen(length: int) -> Shape:
    return Shape(4, 8, length, 128, True)


FIGURES = (
    Figures("FlashAttention-4", "b300", WINDOW, {WINDOWED: 2.30}, milliseconds=True),
    Figures("FlashAttention-2", "b300", WINDOW, {WINDOWED: 1.62}, milliseconds=True),
    Figures("FlashAttention-4", "h100", _H100, {_qwen(2048): 459.67, _qwen(4096): 571.68}),
    Figures("FlashAttention-2", "h100", _H100, {_qwen(2048): 225.11}),
)
