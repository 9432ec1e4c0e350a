"""The libraries that kernels are compared with on a GPU: how each is called for a case of dense attention."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from avo.evaluator.problem import Case
from avo.evaluator.problems.dense import softmax_scale

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Computes out from q, k and v, each [batch, heads, length, head_dim]; causal is aligned to the bottom right."""


@dataclass(frozen=True)
class Library:
    """One implementation of dense attention."""

    name: str
    package: str
    prepare: Callable[[Case, torch.device], Attend]
    """Returns the function to time for a case on a device; raises ``ImportError`` or ``RuntimeError`` where the library
    is not available."""

    @property
    def release(self) -> str:
        """That of its package: see ``release``."""
        return release(self.package)


def release(package: str) -> str:
    """Return the version of a package here; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _sdpa(backend: SDPBackend) -> Callable[[Case, torch.device], Attend]:
    def prepare(case: Case, place: torch.device) -> Attend:
        square = case.q_len == case.kv_len  # the two alignments of the diagonal then coincide
        mask = None
        if case.causal and not square:
            from torch.nn.attention.bias import causal_lower_right  # imports dynamo, which takes a second

            mask = causal_lower_right(case.q_len, case.kv_len)
        options: dict[str, Any]
        options = {"is_causal": case.causal and square, "scale": softmax_scale(case), "enable_gqa": _grouped(case)}

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **options)

        return attend

    return prepare


_SHAPES = 1000
"""Shapes of one process that dynamo may compile FlexAttention for."""


def flex(case: Case, place: torch.device, backend: str | Callable[..., Any] | None = "inductor") -> Attend:
    """Return FlexAttention compiled by ``backend`` for the shape of ``case``; None: not compiled.

    Dynamo compiles a function for 8 shapes (``torch._dynamo.config.recompile_limit``), and after that runs it eagerly,
    which materialises all scores (https://github.com/vllm-project/vllm/issues/27178). With ``fullgraph`` it is an error
    instead (https://github.com/pytorch/torchtitan/issues/3898).
    """
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    ahead = case.kv_len - case.q_len

    def visible(batch: Any, head: Any, row: Any, key: Any) -> Any:
        return key <= row + ahead

    mask = None
    if case.causal:
        mask = create_block_mask(visible, None, None, case.q_len, case.kv_len, device=str(place))
    called: Any = flex_attention
    if backend is not None:
        called = torch.compile(flex_attention, dynamic=False, fullgraph=True, backend=backend)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with torch._dynamo.config.patch(recompile_limit=_SHAPES):
            out = called(q, k, v, block_mask=mask, scale=softmax_scale(case), enable_gqa=_grouped(case))
        assert isinstance(out, torch.Tensor)
        return out

    return attend


def _flash_attn(module: str) -> Callable[[Case, torch.device], Attend]:
    def prepare(case: Case, place: torch.device) -> Attend:
        function = __import__(module, fromlist=["flash_attn_func"]).flash_attn_func

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            # The library takes [batch, length, heads, head_dim]; its causal is aligned to the bottom right since 2.1.
            moved = (tensor.transpose(1, 2) for tensor in (q, k, v))
            out = function(*moved, softmax_scale=softmax_scale(case), causal=case.causal)
            out = out[0] if isinstance(out, tuple) else out
            assert isinstance(out, torch.Tensor)
            return out.transpose(1, 2)

        return attend

    return prepare


def library_called(name: str) -> Library | None:
    """Return the library; None where there is none of that name."""
    return next((each for each in LIBRARIES if each.name == name), None)


def _grouped(case: Case) -> bool:
    return case.heads != case.kv_heads


LIBRARIES = (
    Library("SDPA, FlashAttention", "torch", _sdpa(SDPBackend.FLASH_ATTENTION)),
    Library("SDPA, cuDNN", "torch", _sdpa(SDPBackend.CUDNN_ATTENTION)),
    Library("SDPA, efficient", "torch", _sdpa(SDPBackend.EFFICIENT_ATTENTION)),
    Library("FlexAttention", "torch", flex),
    Library("FlashAttention-2", "flash-attn", _flash_attn("flash_attn")),
    Library("FlashAttention-3", "flash-attn-3", _flash_attn("flash_attn_interface")),
    Library("FlashAttention-4", "flash-attn-4", _flash_attn("flash_attn.cute")),
)
