"""Calls of this package's functions as records: their arguments, and what decides which kernels take them."""

from typing import Any, NamedTuple, Protocol

import torch


class Kind(NamedTuple):
    """What decides which kernels take a call."""

    function: str
    device: torch.device
    dtype: torch.dtype
    head_dims: tuple[int, int]
    """Elements of a key and of a value."""
    group: int
    """Query heads to a KV head."""
    causal: bool
    window: int = 0
    """Number of keys that a query sees at most; 0: all."""
    sinks: bool = False
    packed: bool = False
    block_size: int = 0
    local: bool = False
    """Whether queries may lack block 0 or the one before their own."""
    softcap: float = 0.0
    """What scores stay below by absolute value; 0: they are not capped."""


class Arguments(Protocol):
    """A call as an operator takes it: a named tuple of the operator's arguments, tensors first."""

    @property
    def query(self) -> torch.Tensor: ...
    @property
    def key(self) -> torch.Tensor: ...
    @property
    def value(self) -> torch.Tensor: ...
    @property
    def sinks(self) -> torch.Tensor | None: ...

    def kind(self) -> Kind:
        """Return what decides which kernels take the call."""

    def keys(self) -> int:
        """Return the number of keys: of a sequence, or of all together where they are packed."""

    def given(self) -> dict[str, Any]:
        """Return what kernels may take, tensors and scalars, by the names that they have there."""


def kind_of(function: str, call: Arguments, *, causal: bool = True, **more: Any) -> Kind:
    """Return the kind of a call of ``function``: what its tensors say, and ``more``."""
    query, dims, sinks = call.query, (call.query.shape[3], call.value.shape[3]), call.sinks is not None
    return Kind(
        function, query.device, query.dtype, dims, query.shape[1] // call.key.shape[1], causal, sinks=sinks, **more
    )


class Call(NamedTuple):
    """A call of dense attention. ``causal`` is aligned to the lower right."""

    query: torch.Tensor
    """[batch, heads, q_len, head_dim]; where sequences are packed, the batch is 1."""
    key: torch.Tensor
    value: torch.Tensor
    sinks: torch.Tensor | None = None
    """Logits [heads] that take part in the softmax and have no value."""
    starts_q: torch.Tensor | None = None
    """int32 [sequences + 1], where sequences are packed."""
    starts_k: torch.Tensor | None = None
    causal: bool = False
    scale: float = 1.0
    window: int = 0
    """Number of keys that a query sees at most if ``causal``; 0: all."""
    softcap: float = 0.0
    """A scaled score s becomes softcap * tanh(s / softcap) before keys are masked; 0: it stays as it is."""
    most_q: int = 0
    """Queries of the longest packed sequence."""
    most_k: int = 0

    def kind(self) -> Kind:
        """See ``Arguments``."""
        packed = self.starts_q is not None
        return kind_of("attention", self, causal=self.causal, window=self.window, softcap=self.softcap, packed=packed)

    def keys(self) -> int:
        """See ``Arguments``."""
        return self.key.shape[2]

    def given(self) -> dict[str, Any]:
        """See ``Arguments``."""
        return {
            "q": self.query,
            "k": self.key,
            "v": self.value,
            "sinks": self.sinks,
            "cu_seqlens_q": self.starts_q,
            "cu_seqlens_k": self.starts_k,
            "causal": self.causal,
            "scale": self.scale,
            "window": self.window or self.key.shape[2],  # where there is no window, one of all keys is none
            "softcap": self.softcap,
            "max_seqlen_q": self.most_q,
            "max_seqlen_k": self.most_k,
        }
