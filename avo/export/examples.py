"""The calls that the README of an exported package shows: each is one that a kernel takes, as in a judged case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MOST_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Example:
    """A call of a public function."""

    heads: int
    kv_heads: int
    tokens: int
    head_dim: int
    head_dim_v: int
    dtype: str
    further: str
    """The arguments that it has besides its tensors."""

    @property
    def inputs(self) -> tuple[int | str, ...]:
        """What its tensors are made by."""
        return self.heads, self.kv_heads, self.tokens, self.head_dim, self.head_dim_v, self.dtype


def examples(table: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[Example]]:
    """Return the different calls by public function, for the kernels of a table of ``avo.export.table``."""
    found: dict[str, list[Example]] = {
        "attention": [], "packed_attention": [], "selected_attention": [], "decode": []
    }  # fmt: skip
    for kernel in table["kernels"]:
        if "dout" in kernel["tensors"]:
            continue
        packed = "cu_seqlens_q" in kernel["tensors"]
        of = found["packed_attention" if packed and kernel["function"] == "attention" else kernel["function"]]
        case = next(case for case in table["cases"] if case["kernel"] == kernel["name"])
        if (example := _example(kernel, case, packed)) not in of:
            of.append(example)
    return found


def _example(kernel: Mapping[str, Any], case: Mapping[str, Any], packed: bool) -> Example:
    further = {
        "attention": [f"is_causal={True in kernel['causal']}"],
        "selected_attention": [f"block_size={case['block_size']}"],
        "decode": [],
    }[kernel["function"]]
    if kernel["function"] == "attention" and not packed and case["heads"] != case["kv_heads"]:
        further.append("enable_gqa=True")
    if kernel["function"] == "selected_attention" and packed:
        further.append("cu_seqlens=cu_seqlens, max_seqlen=longest")
    if "window" in kernel["scalars"]:
        further.append(f"window={case['window'] or 1024}")
    if kernel["softcap"]:
        further.append(f"softcap={kernel['softcap']}")
    if "sinks" in kernel["tensors"]:
        further.append(f'sinks=torch.zeros({case["heads"]}, device="cuda")')
    return Example(
        case["heads"],
        case["kv_heads"],
        min(_MOST_TOKENS, kernel["longest"]),
        case["head_dim"],
        case["head_dim_v"],
        kernel["dtypes"][0],
        "".join(f", {each}" for each in further),
    )
