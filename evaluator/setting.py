"""Settings of the problems: head dims, types and a model's shapes, and how a problem's name says them.

A problem in a setting is called by its kind and the setting's parts, as in ``gqa-d64-fp16``. The name says everything,
so every process and machine makes the same problem of it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from avo.evaluator.problem import Problem

HEAD_DIM = 128
"""The head dim of problems that name none."""
HEAD_DIMS = (64, 96, 128, 192, 256, 512)
"""The head dims that problems are tested with."""
DIFFERENT = ((192, 128),)
"""Head dims of keys and of values that differ: those of DeepSeek-V3 (arXiv 2412.19437) where its latent keys and values
are expanded, as in prefill and training. Decoding from the latent cache itself is another computation.
"""
LONGEST = 2**16
"""The longest sequence of a benchmark case, or packed sequences together: drawn cases have up to twice as many keys."""
MOST_ELEMENTS = 2**28
"""Most elements of q, of k, and of the selected blocks in a benchmark case: half a gigabyte, or one."""

SOFTCAPS = range(20, 1001)
"""Soft caps: below, no key stands out among thousands, and one that is left out would not show."""

BLOCK_SIZES = (16, 32, 64, 128)
"""The sizes of selected blocks that problems are tested with."""
BLOCKS = range(3, 65)
"""How many blocks a query may select at most."""

_DTYPES = {"fp16": "float16"}
"""Types besides bfloat16, by the part of a name."""
_PARTS = (
    r"h(?P<heads>\d{1,9})x(?P<kv_heads>\d{1,9})",
    r"d(?P<head_dim>\d{1,9})(x(?P<head_dim_v>\d{1,9}))?",
    r"(?P<dtype>fp16)",
    r"b(?P<block_size>\d{1,9})x(?P<blocks>\d{1,9})",
    r"(?P<local>local)",
    r"w(?P<window>\d{1,9})",
    r"(?P<everywhere>global)",
    r"c(?P<softcap>\d{1,9})",
    r"(?P<sinks>sinks)",
    r"(?P<packed>packed)",
    r"(?P<length>\d{1,9})x(?P<batch>\d{1,9})",
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What the cases of a problem have in common, where it is not that of the paper."""

    head_dim: int = HEAD_DIM
    head_dim_v: int = 0
    """Elements of a value; 0 stands for ``head_dim``."""
    dtype: str = "bfloat16"
    block_size: int = 0
    """Keys of a selected block; 0: those of the problem's own cases."""
    blocks: int = 0
    """Blocks that a query may select at most, where ``block_size`` is given."""
    local: bool = False
    """Whether its own block is the only one that a query always selects."""
    window: int = 0
    """Number of keys that a query sees, its own and those before it; 0: all."""
    everywhere: bool = False
    """Whether queries see all keys in other layers than those with the window."""
    softcap: int = 0
    """What scores stay below by absolute value, by a hyperbolic tangent; 0: they are not capped."""
    sinks: bool = False
    """Whether each head has a sink: a logit that takes part in the softmax and has no value."""
    packed: bool = False
    """Whether sequences of several lengths are packed one after another."""
    heads: tuple[int, int] | None = None
    """Query heads and KV heads of a model; None: those of the problem's own cases."""
    shapes: tuple[tuple[int, int], ...] = ()
    """Length and batch of each benchmark case, for a model's heads; empty: those of the problem's own cases."""

    @property
    def plain(self) -> bool:
        """Whether kernels take the same arguments as without a setting, and values are as long as keys."""
        return not (self.head_dim_v or self.window or self.softcap or self.sinks or self.packed)

    @property
    def parts(self) -> tuple[str, ...]:
        """What a problem's name says of it, in order."""
        dims = f"d{self.head_dim}" + (f"x{self.head_dim_v}" if self.head_dim_v else "")
        return (
            *([f"h{self.heads[0]}x{self.heads[1]}"] if self.heads else []),
            *([dims] if dims != f"d{HEAD_DIM}" else []),
            *(part for part, dtype in _DTYPES.items() if dtype == self.dtype),
            *([f"b{self.block_size}x{self.blocks}"] if self.block_size else []),
            *(["local"] if self.local else []),
            *([f"w{self.window}"] if self.window else []),
            *(["global"] if self.everywhere else []),
            *([f"c{self.softcap}"] if self.softcap else []),
            *(["sinks"] if self.sinks else []),
            *(["packed"] if self.packed else []),
            *(f"{length}x{batch}" for length, batch in self.shapes),
        )

    @property
    def words(self) -> str:
        """The dims and the type, for a reader."""
        dims = f"{self.head_dim}" + (f" of keys and {self.head_dim_v} of values" if self.head_dim_v else "")
        return f"head dim {dims}, {self.dtype}"


def named(kind: str, setting: Setting) -> str:
    """Return the name of the problem of this kind in a setting."""
    return "-".join((kind, *setting.parts))


@runtime_checkable
class Settable(Problem, Protocol):
    """A problem that exists in settings: its name, the kind, may be followed by the parts of one."""

    def refusal(self, setting: Setting) -> str:
        """Return in a few words why the problem is not served in a setting; empty where it is."""
        ...

    def meaning(self, setting: Setting) -> str:
        """Return what operators are told of a setting, besides what the problem says of itself: a line for each thing
        that it adds.
        """
        ...

    def in_setting(self, setting: Setting) -> Problem:
        """Return the problem in a setting, called ``named(kind, setting)``."""
        ...


def setting_of(parts: Iterable[str]) -> Setting:
    """Return the setting that these parts of a name say; raise ``LookupError`` with a part that is none."""
    found: dict[str, str] = {}
    shapes: list[tuple[int, int]] = []
    for part in parts:
        match = next((match for pattern in _PARTS if (match := re.fullmatch(pattern, part))), None)
        if match is None:
            raise LookupError(part)
        values = {key: value for key, value in match.groupdict().items() if value is not None}
        if "length" in values:
            shapes.append((int(values["length"]), int(values["batch"])))
        else:
            found |= values
    head_dim = found.get("head_dim", str(HEAD_DIM))
    return Setting(
        head_dim=int(head_dim),
        head_dim_v=int(found["head_dim_v"]) if found.get("head_dim_v", head_dim) != head_dim else 0,
        dtype=_DTYPES[found["dtype"]] if "dtype" in found else "bfloat16",
        block_size=int(found.get("block_size", 0)),
        blocks=int(found.get("blocks", 0)),
        local="local" in found,
        window=int(found.get("window", 0)),
        everywhere="everywhere" in found,
        softcap=int(found.get("softcap", 0)),
        sinks="sinks" in found,
        packed="packed" in found,
        heads=(int(found["heads"]), int(found["kv_heads"])) if "heads" in found else None,
        shapes=tuple(shapes),
    )
