"""A seed: which settings and cards a kernel to start from is for."""

from collections.abc import Callable
from dataclasses import dataclass

from avo.evaluator.setting import Setting
from avo.evaluator.target import Target


def plain(setting: Setting) -> bool:
    """Whether kernels take the same arguments as without a setting, and values are as long as keys."""
    return setting.plain


def unpadded(setting: Setting) -> bool:
    """Whether a setting is plain with a head dim that is a power of two."""
    return setting.plain and setting.head_dim.bit_count() == 1


def of_the_paper(setting: Setting) -> bool:
    """Whether a setting is plain with the head dim and type of the papers."""
    return (setting.head_dim, setting.dtype) == (128, "bfloat16") and setting.plain


def capped(kernel: str, scores: str, window: str) -> tuple[tuple[str, str], ...]:
    """Return the edits that give a kernel a soft cap, in its expression of scaled ``scores`` and behind the ``window``
    among its arguments; the entry takes it behind the window.
    """
    return (
        (
            f"@triton.jit\ndef {kernel}(",
            "@triton.jit\ndef tanh(x):\n    # The exponential may be infinite.\n"
            f"    return 1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0)\n\n\n@triton.jit\ndef {kernel}(",
        ),
        (f"{scores},", f"softcap * tanh({scores} / softcap),"),
        (window, window.replace("window,", "window, softcap,")),
        ("window: int = 0", "window: int = 0, softcap: float"),
    )


@dataclass(frozen=True, slots=True)
class Seed:
    """A kernel to start from."""

    name: str
    file: str
    """Where it lies below this folder: problems with the same entry function may share it."""
    serves: Callable[[Setting], bool] = lambda setting: True
    """Which settings of its problem it is for."""
    cards: Callable[[Target], bool] | None = None
    """Which cards it is for, if it is in Gluon; seeds in Triton are for all."""
    edits: tuple[tuple[str, str], ...] = ()
    """What is replaced in the text of the file."""
