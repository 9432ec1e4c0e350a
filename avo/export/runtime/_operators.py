"""The operators of torch that call kernels. Their arguments are the fields of a record, in order."""

import contextvars
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

import torch
import triton
from torch._library.custom_ops import CustomOpDef

from ._by_torch import of_sinks
from ._calls import Arguments
from ._dispatch import MOST_HEADS, NAMESPACE, ExportedKernel, UnsupportedCall, choose, gradients_by, length_of, too_many

Outputs = tuple[torch.Tensor, torch.Tensor]
Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
C = TypeVar("C", bound=Arguments)
_TYPES: Mapping[Any, str] = {
    torch.Tensor: "Tensor", torch.Tensor | None: "Tensor?", bool: "bool", float: "float", int: "SymInt"
}  # fmt: skip
_OF_THE_BATCH = ("q", "k", "v", "block_indices", "block_table", "lengths", "out", "lse", "dout", "dq", "dk", "dv")
"""Tensors whose first axis is the batch; in a call with a block table k and v are pages instead."""
_ALIGNMENT = 16
"""Alignment of the judge's tensors and of their rows, in bytes."""


def operator(name: str, record: Callable[..., C], compute: Callable[[C], Outputs]) -> CustomOpDef:
    """Return the operator ``name``, which makes a ``record`` of its arguments and returns what is computed of it."""

    @torch.library.custom_op(
        f"{NAMESPACE}::{name}", mutates_args=(), schema=f"({_parameters(record)}) -> (Tensor, Tensor)"
    )
    def forward(*given: Any) -> Outputs:
        return compute(record(*given))

    @forward.register_fake
    def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any) -> Outputs:
        return empty_outputs(query, value)

    return forward


def differentiate(
    forward: CustomOpDef,
    name: str,
    record: Callable[..., C],
    again: Callable[..., Sequence[torch.Tensor]],
    keeps: Callable[[C], bool],
) -> None:
    """Give the operator ``name`` gradients: by a backward kernel where there is one for the call.

    Otherwise ``again(call, dout, out, lse)`` returns those of query, key, value and sinks, if there are any; out and
    lse are None unless ``keeps(call)``.
    """
    fields = get_type_hints(record)
    tensors = sum(_TYPES[kind].startswith("Tensor") for kind in fields.values())

    @torch.library.custom_op(
        f"{NAMESPACE}::{name}_backward",
        mutates_args=(),
        schema=f"(Tensor dout, Tensor out, Tensor lse, {_parameters(record)}) -> (Tensor, Tensor, Tensor, Tensor)",
    )
    def gradients(dout: torch.Tensor, out: torch.Tensor, lse: torch.Tensor, *given: Any) -> Gradients:
        return _gradients(record(*given), dout, out, lse)

    @gradients.register_fake
    def _(dout: torch.Tensor, out: torch.Tensor, lse: torch.Tensor, *given: Any) -> Gradients:
        return _empty_gradients(record(*given))

    def remember(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
        call = record(*inputs)
        ctx.by_kernel = bool(gradients_by(call.kind(), length_of(call)))
        kept = output if ctx.by_kernel or keeps(call) else (None, None)  # all else is computed again
        ctx.settings = inputs[tensors:]
        ctx.save_for_backward(*inputs[:tensors], *kept)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    def backward(ctx: Any, dout: torch.Tensor | None, _: None) -> tuple[torch.Tensor | None, ...]:
        if dout is None:
            return (None,) * len(fields)
        *inputs, out, lse = ctx.saved_tensors
        call = record(*inputs, *ctx.settings)
        found = gradients(dout, out, lse, *inputs, *ctx.settings) if ctx.by_kernel else again(call, dout, out, lse)
        of = dict(zip(("query", "key", "value"), found, strict=False))
        if call.sinks is not None:
            of["sinks"] = found[3].flatten()
        return tuple(of.get(field) for field in fields)

    forward.register_autograd(backward, setup_context=remember)


def _parameters(record: Callable[..., Arguments]) -> str:
    return ", ".join(f"{_TYPES[kind]} {field}" for field, kind in get_type_hints(record).items())


def outputs(call: Arguments) -> Outputs:
    """Return out and lse of a call, by the kernel that is chosen for it."""
    out, lse = empty_outputs(call.query, call.value)
    given = _judged(call.given(), "q", "k", "v")
    given["out"], given["lse"] = out, lse
    kernel = choose(call.kind(), call.query.shape[2], call.keys())
    for part in _launches(given):
        launch(kernel, part)
    return out, lse


def _gradients(call: Arguments, dout: torch.Tensor, out: torch.Tensor, lse: torch.Tensor) -> Gradients:
    dq, dk, dv, dsinks = _empty_gradients(call)
    kernel = choose(call.kind(), call.query.shape[2], call.keys(), backward=True)
    given = _judged(call.given() | {"out": out, "dout": dout}, "q", "k", "v", "out", "dout")
    parts = _launches(given | {"lse": lse, "dq": dq, "dk": dk, "dv": dv, "dsinks": dsinks})
    for part in parts:
        launch(kernel, part)
    if call.sinks is not None and ("dsinks" not in kernel.tensors or len(parts) > 1):  # each part has its own
        dsinks.copy_(of_sinks(dout, out, lse, call.sinks))
    return dq, dk, dv, dsinks


def _launches(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is given to each launch of a call: all, or a part of the batch with at most ``MOST_HEADS`` heads.

    Raises ``UnsupportedCall`` where one sequence has more.
    """
    if reason := too_many(given["q"], given.get("cu_seqlens_q")):
        raise UnsupportedCall(f"{NAMESPACE} has no kernel for {reason}")
    batch, heads = given["q"].shape[:2]
    most = MOST_HEADS // heads
    if batch <= most:
        return [given]
    most -= most % _ALIGNMENT if most > _ALIGNMENT else 0  # so that each part begins where tensors are aligned
    split = [name for name in _OF_THE_BATCH if name in given and not (name in ("k", "v") and "block_table" in given)]
    return [given | {name: given[name][first : first + most] for name in split} for first in range(0, batch, most)]


def launch(kernel: ExportedKernel, given: Mapping[str, Any]) -> None:
    """Call a kernel with those of the tensors and scalars ``given`` that it takes; import it if necessary."""
    entry = getattr(importlib.import_module(f".kernels.{kernel.name}", __package__), kernel.entry)
    run(entry, *(given[name] for name in kernel.tensors), **{name: given[name] for name in kernel.scalars})


def run(kernel: Callable[..., None], query: torch.Tensor, *tensors: torch.Tensor, **options: Any) -> None:
    """Call a kernel's entry on the device of ``query``, its first tensor, with memory for descriptors that it makes on
    the GPU. Triton's allocator of the caller stays as it is.
    """

    def call() -> None:
        triton.set_allocator(lambda size, alignment, stream: query.new_empty(size, dtype=torch.int8))
        with torch.cuda.device_of(query):
            kernel(query, *tensors, **options)

    contextvars.copy_context().run(call)


def _judged(given: dict[str, Any], *names: str) -> dict[str, Any]:
    """Put copies in the place of tensors whose last stride is not 1 or whose rows are not aligned as the judge's."""
    for name in names:
        given[name] = _as_judged(given[name])
    return given


def _as_judged(tensor: torch.Tensor) -> torch.Tensor:
    *strides, last = tensor.stride()
    aligned = [address % _ALIGNMENT == 0 for address in (tensor.data_ptr(), *(s * tensor.itemsize for s in strides))]
    if last == 1 and all(strides) and all(aligned):
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def _empty_like(tensor: torch.Tensor, elements: int) -> torch.Tensor:
    """Return memory [batch, heads, rows, elements], the heads of a token side by side if they are in ``tensor``."""
    batch, heads, rows = tensor.shape[:3]
    if tensor.transpose(1, 2).is_contiguous():
        return tensor.new_empty(batch, rows, heads, elements).transpose(1, 2)
    return tensor.new_empty(batch, heads, rows, elements)


def empty_outputs(query: torch.Tensor, value: torch.Tensor) -> Outputs:
    """Return memory for the outputs of a call: out, and lse in float32."""
    return _empty_like(query, value.shape[3]), query.new_empty(query.shape[:3], dtype=torch.float32)


def _empty_gradients(call: Arguments) -> Gradients:
    """Return memory for the gradients of a call; those of sinks, in float32, have no elements where it has none."""
    dq, dk, dv = (_empty_like(tensor, tensor.shape[3]) for tensor in (call.query, call.key, call.value))
    dsinks = call.query.new_empty(1, 0 if call.sinks is None else call.sinks.shape[0], 1, dtype=torch.float32)
    return dq, dk, dv, dsinks
