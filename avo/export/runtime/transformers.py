"""``attn_implementation`` for the models of Hugging Face transformers, by the kernels of this package."""

import functools
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ._attention import attention
from ._dispatch import NAMESPACE, decline


def register(name: str = NAMESPACE, *, on_unsupported: str | None = None) -> str:
    """Make ``attn_implementation=name`` known to transformers, and return ``name``.

    Layers without a mask, such as those of batches without padding, run this package's kernels. Other layers run
    transformers' own ``sdpa``, with one warning, or raise: see ``on_unsupported`` of ``attention``.
    """
    AttentionInterface.register(name, functools.partial(attention_forward, on_unsupported=on_unsupported))
    AttentionMaskInterface.register(name, sdpa_mask)
    return name


def attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    *,
    on_unsupported: str | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Return the output of one layer, [batch, q_len, heads, head_dim], and no weights.

    Raises ``ValueError`` for attention sinks, which neither the kernels nor torch's attention have.
    """
    if options.get("s_aux") is not None:
        raise ValueError("attention sinks are not supported: choose another attn_implementation")
    changed = [name for name in ("position_bias", "softcap") if options.get(name) is not None]
    if attention_mask is not None or changed:
        decline(changed[0] if changed else "this attention_mask", on_unsupported)
        found = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal=is_causal, **options
        )
        return found[0], None
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    out = attention(
        query,
        key,
        value,
        dropout_p=dropout,
        is_causal=causal and query.shape[2] > 1,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
        on_unsupported=on_unsupported,
    )
    return out.transpose(1, 2).contiguous(), None
