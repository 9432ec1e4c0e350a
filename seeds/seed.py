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
