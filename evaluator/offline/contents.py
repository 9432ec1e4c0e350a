"""Tensors without contents, for a session that executes nothing: as large as the real ones, and they cost nothing.

The rule: an operator of torch is computed unless it makes or changes a floating-point tensor of more than ``LARGE``
elements, or reads contents that were never made. Otherwise its results get their shapes, types and memory, which is
reserved and never touched, and no contents. So sequence lengths, block tables and other integers are real, and so is
what is small.
"""

import mmap
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from avo.evaluator.offline.errors import OfflineError
from avo.evaluator.offline.patches import Patches
from avo.evaluator.offline.shadows import mutated, python_kernel, storage_key

LARGE = 2**22
"""Number of elements above which a floating-point tensor has no contents."""
_SWEEP = 256
_MAPPED_BYTES = 2**20
"""Memory from this size on is reserved from the operating system, without a limit on the sum."""
_NORESERVE = 0x4000
"""MAP_NORESERVE of <sys/mman.h> on Linux, for which ``mmap`` has a name only in newer versions of Python."""
_OVERWRITES = ("zero_", "fill_", "copy_", "normal_", "uniform_", "random_", "exponential_", "bernoulli_")
"""Operators in place whose result does not depend on what was there before."""
_NO_META = (NotImplementedError, RuntimeError, TypeError, ValueError, AssertionError)
"""What torch raises where it cannot tell the shape of a result without computing it."""
_HANDOVERS = ("numpy", "tolist", "__array__", "__dlpack__", "__repr__")
"""Methods that read a tensor without an operator; and ``__repr__``, in the middle of which an error would leave vmap
switched off for as long as its traceback lives.
"""


class Contents:
    """The storages whose contents were never made."""

    def __init__(self) -> None:
        self._unmade: dict[int, StorageWeakRef] = {}  # a weak reference keeps the identity from being reused
        self._until_sweep = _SWEEP

    def lose(self, tensor: torch.Tensor) -> None:
        """Record that the contents of the tensor's storage are not what they would be."""
        self._unmade[storage_key(tensor)] = StorageWeakRef(tensor.untyped_storage())
        self._until_sweep -= 1
        if self._until_sweep == 0:
            self._until_sweep = _SWEEP
            self._unmade = {key: storage for key, storage in self._unmade.items() if not storage.expired()}

    def make(self, tensor: torch.Tensor) -> None:
        """Record that a tensor has been written; if it has all elements of its storage, these are real now."""
        if tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes():
            self._unmade.pop(storage_key(tensor), None)

    def lacks(self, tensor: torch.Tensor) -> bool:
        """Whether the contents of the tensor's storage were never made."""
        return storage_key(tensor) in self._unmade

    def watch_reads(self, patches: Patches) -> None:
        """Refuse to hand over a tensor without contents to Python or to another library."""
        for name in _HANDOVERS:
            original = getattr(torch.Tensor, name)

            def handover(tensor: torch.Tensor, *args: Any, _original: Any = original, **kwargs: Any) -> Any:
                if tensor.layout is torch.strided and self.lacks(tensor):
                    raise unread()
                return _original(tensor, *args, **kwargs)

            patches.set(torch.Tensor, name, handover)


class Unfilled(TorchDispatchMode):
    """Computes what the rule above says and leaves out the rest; also runs operators that exist only for CUDA."""

    def __init__(self, contents: Contents) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._contents = contents

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: torch's guard against compiling under a mode would import dynamo, which takes seconds."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if any(kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__ for kind in types):
            return NotImplemented  # a kind of tensor that is made of others: these come next
        if key := python_kernel(func):
            with self:  # so that what it calls is seen too
                return func.redispatch(torch._C.DispatchKeySet(key), *args, **kwargs)
        if func.is_view or torch.Tag.inplace_view in func.tags:
            return func(*args, **kwargs)
        tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
        if any(each.layout is not torch.strided or each.is_meta for each in tensors) or _is_meta(kwargs.get("device")):
            return func(*args, **kwargs)
        changed = list(mutated(func, args, kwargs))
        read = [each for each in tensors if not any(each is one for one in changed)]
        if func._schema.name.partition("::")[2] not in _OVERWRITES and torch.Tag.out not in func.tags:
            read += changed
        lacking = [each for each in read if self._contents.lacks(each)]
        if lacking and (torch.Tag.data_dependent_output in func.tags or _shaped_by(func, tensors, lacking)):
            raise unread()
        if changed:
            return self._change(func, args, kwargs, changed, leave=bool(lacking) or any(map(_is_large, changed)))
        return self._make(func, args, kwargs, leave=bool(lacking))

    def _change(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], changed: Sequence[torch.Tensor], leave: bool
    ) -> Any:
        """Return what an operator returns that writes to arguments, and write to them unless that is to be left out."""
        returns = func._schema.returns
        if leave and all(each.alias_info is not None for each in returns):
            for tensor in changed:
                self._contents.lose(tensor)
            return _aliased(func, args, kwargs)
        result = func(*args, **kwargs)
        for tensor in (*changed, *(each for each in tree_flatten(result)[0] if isinstance(each, torch.Tensor))):
            (self._contents.lose if leave else self._contents.make)(tensor)
        return result

    def _make(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], leave: bool) -> Any:
        """Return the new tensors of an operator, with contents unless these are to be left out or are large."""
        shapes = _shapes(func, args, kwargs)
        known = [each for each in tree_flatten(shapes)[0] if isinstance(each, torch.Tensor)]
        if not leave and not any(map(_is_large, known)):
            return func(*args, **kwargs)
        if not known:  # the shape is not known before, and depends on nothing that is missing
            result = func(*args, **kwargs)
            for each in tree_flatten(result)[0]:
                if isinstance(each, torch.Tensor):
                    self._contents.lose(each)
            return result

        def reserved(shape: Any) -> Any:
            if not isinstance(shape, torch.Tensor):
                return shape
            tensor = _reserve(shape)
            self._contents.lose(tensor)
            return tensor

        return tree_map(reserved, shapes)


def unread() -> OfflineError:
    """Return the refusal of a read of contents that were never made; it names the line of host code."""
    return OfflineError(
        f"{_host_line()} reads contents that were never made: with execute=False no kernel computes, and "
        f"floating-point tensors of more than {LARGE} elements are not filled"
    )


def _host_line() -> str:
    """Return ``FILE:LINE`` of the innermost code that is neither torch's nor ours."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((*ours, "<")):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "host code"


def _is_large(tensor: torch.Tensor) -> bool:
    """Whether a tensor lies in a storage of more than ``LARGE`` floating-point elements, or would if it were real."""
    if not (tensor.dtype.is_floating_point or tensor.dtype.is_complex):
        return False
    held = 0 if tensor.is_meta else tensor.untyped_storage().nbytes() // tensor.element_size()
    return max(held, tensor.numel()) > LARGE


def _is_meta(device: object) -> bool:
    return isinstance(device, torch.device) and device.type == "meta"


def _shaped_by(func: Any, tensors: Sequence[torch.Tensor], lacking: Sequence[torch.Tensor]) -> bool:
    """Whether the shape of an operator's result depends on contents that are missing.

    Where there are several tensors, the first is what is selected from.
    """
    if torch.Tag.dynamic_output_shape not in func.tags:
        return False
    selecting = [each for each in tensors[1:] if each.dtype in (torch.bool, torch.uint8)]
    deciding = tensors if len(tensors) == 1 else selecting
    return any(each is one for each in deciding for one in lacking)


def _shapes(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return an operator's results as tensors on the device ``meta``; None where that is not known beforehand."""

    def to_meta(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
        return None if isinstance(value, torch.Generator) else value

    args, kwargs = tree_map(to_meta, (tuple(args), dict(kwargs)))
    if any(argument.name == "device" for argument in func._schema.arguments):
        kwargs = {**kwargs, "device": torch.device("meta"), "pin_memory": None}
        if not any(argument.name == "pin_memory" for argument in func._schema.arguments):
            del kwargs["pin_memory"]
    try:
        return func(*args, **kwargs)
    except _NO_META:
        return None


def _aliased(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the arguments that an operator in place, or one with ``out``, returns."""
    places = {argument.name: i for i, argument in enumerate(func._schema.arguments)}
    by_alias = {
        frozenset(argument.alias_info.before_set): argument.name
        for argument in func._schema.arguments
        if argument.alias_info is not None
    }
    names = [by_alias[frozenset(each.alias_info.before_set)] for each in func._schema.returns]
    found = [kwargs[name] if name in kwargs else args[places[name]] for name in names]
    return None if not found else found[0] if len(found) == 1 else tuple(found)


def _reserve(shape: torch.Tensor) -> torch.Tensor:
    """Return a tensor like ``shape``, which is on the device ``meta``, in zeros that take no memory until touched."""
    span = 1 + sum((n - 1) * stride for n, stride in zip(shape.shape, shape.stride(), strict=True))
    count = span * shape.element_size() if shape.numel() else 0
    if count < _MAPPED_BYTES:
        data = torch.zeros(max(count, 1), dtype=torch.uint8)
    else:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
        data = torch.frombuffer(mmap.mmap(-1, count, flags=flags), dtype=torch.uint8)
    empty = torch.empty(0, dtype=shape.dtype)
    return empty.set_(data.untyped_storage(), 0, shape.shape, shape.stride())
