"""Writes down what a candidate asks for during one call, as a launch plan. Runs in the candidate's process."""

import sys
from types import TracebackType

import torch

from avo.evaluator.candidate import CANDIDATE_FILE
from avo.evaluator.evaluation import Status
from avo.evaluator.plan import (
    DEFAULT_LIMITS,
    ITEM_BYTES,
    Argument,
    Buffer,
    Fill,
    KernelIR,
    Launch,
    LaunchPlan,
    Pointer,
    Role,
)


class RefusedError(BaseException):
    """The candidate may not do this. Not an ``Exception``, so that the candidate's own handlers do not catch it."""

    def __init__(self, status: Status, message: str, *, unfit: bool = False) -> None:
        """``unfit``: a kernel asserts that its meta-parameters do not suit it, so an autotuner skips them."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.unfit = unfit

    def said(self, prefix: str) -> "RefusedError":
        """Return the same refusal with words before its message."""
        return RefusedError(self.status, f"{prefix}{self.message}", unfit=self.unfit)


def candidate_line() -> str:
    """Return `` at line N`` for the innermost candidate frame of the current stack, or nothing."""
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_filename != CANDIDATE_FILE:
        frame = frame.f_back  # type: ignore[assignment]
    return f" at line {frame.f_lineno}" if frame is not None else ""


def traceback_line(traceback: TracebackType | None) -> str:
    """Return `` at line N`` for the innermost candidate frame of a traceback, or nothing."""
    line = ""
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == CANDIDATE_FILE:
            line = f" at line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return line


class Recorder:
    """Builds the plan of one call. Tensors are told apart by their storages."""

    def __init__(self) -> None:
        self._buffers: list[Buffer] = []
        self._index: dict[int, int] = {}
        self._alive: list[torch.Tensor] = []  # storages are named by address, so none may be freed and reused
        self._kernels: dict[KernelIR, int] = {}
        self._steps: list[Fill | Launch] = []
        self._scratch_bytes = 0

    def allocate(self, tensor: torch.Tensor, role: Role = Role.SCRATCH, name: str = "") -> None:
        """Make the storage of ``tensor`` a buffer."""
        dtype = dtype_name(tensor)
        if dtype not in ITEM_BYTES:
            raise RefusedError(Status.FORBIDDEN, f"allocates a tensor of dtype {dtype}{candidate_line()}")
        storage = tensor.untyped_storage()
        if role is Role.SCRATCH:
            self._scratch_bytes += storage.nbytes()
            if self._scratch_bytes > DEFAULT_LIMITS.scratch_bytes:
                raise RefusedError(
                    Status.FORBIDDEN,
                    f"allocates {self._scratch_bytes} bytes of scratch{candidate_line()}, "
                    f"the limit is {DEFAULT_LIMITS.scratch_bytes}",
                )
        self._index[storage._cdata] = len(self._buffers)
        self._alive.append(tensor)
        size = storage.nbytes() // tensor.element_size()
        self._buffers.append(Buffer(name or f"scratch{len(self._buffers)}", dtype, size, role))

    def fill(self, tensor: torch.Tensor, value: object) -> None:
        """Write down that ``tensor`` is set to ``value``."""
        index = self._buffer(tensor)
        buffer = self._buffers[index]
        if buffer.role is Role.INPUT:
            raise RefusedError(Status.FORBIDDEN, f"writes to the input {buffer.name!r}{candidate_line()}")
        if not isinstance(value, bool | int | float):
            raise RefusedError(Status.FORBIDDEN, f"fills a tensor with {value!r:.80}{candidate_line()}")
        if buffer.dtype != dtype_name(tensor):
            raise RefusedError(
                Status.FORBIDDEN, f"fills {buffer.name!r} through a view of another dtype{candidate_line()}"
            )
        self._step(
            Fill(index, int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride()), value),
            "fills",
            DEFAULT_LIMITS.fills,
        )

    def pointer(self, tensor: torch.Tensor) -> Pointer:
        """Return the kernel argument for ``tensor``."""
        return Pointer(self._buffer(tensor), _byte_offset(tensor))

    def address(self, tensor: torch.Tensor) -> int:
        """Return a made-up device address, distinct for every buffer and aligned like a real one."""
        index = self._index.get(tensor.untyped_storage()._cdata, 0)
        return ((index + 1) << 44) + _byte_offset(tensor) if tensor.numel() else 0

    def allocated(self, tensor: torch.Tensor) -> int:
        """Return the bytes from the start of ``tensor`` to the end of its storage; 0 if that is no buffer."""
        storage = tensor.untyped_storage()
        return storage.nbytes() - _byte_offset(tensor) if storage._cdata in self._index else 0

    def launch(self, kernel: KernelIR, grid: tuple[int, int, int], args: tuple[Argument, ...]) -> None:
        """Write down a launch; a grid with a zero in it launches nothing."""
        if 0 in grid:
            return
        index = self._kernels.setdefault(kernel, len(self._kernels))
        self._step(Launch(index, grid, args), "launches", DEFAULT_LIMITS.launches)

    def plan(self, case: str) -> LaunchPlan:
        """Return what was written down; raise ``RefusedError`` if a buffer has another size than at first."""
        for tensor, buffer in zip(self._alive, self._buffers, strict=True):
            if tensor.untyped_storage().nbytes() // ITEM_BYTES[buffer.dtype] != buffer.size:
                raise RefusedError(Status.FORBIDDEN, f"case {case}: resizes or exchanges the memory of {buffer.name!r}")
        return LaunchPlan(case, tuple(self._buffers), tuple(self._kernels), tuple(self._steps))

    def _buffer(self, tensor: torch.Tensor) -> int:
        try:
            return self._index[tensor.untyped_storage()._cdata]
        except KeyError:
            raise RefusedError(
                Status.FORBIDDEN,
                f"uses a tensor that was not allocated in this call{candidate_line()}: allocate scratch in the entry "
                "function with empty, zeros, ones or full",
            ) from None

    def _step(self, step: Fill | Launch, what: str, limit: int) -> None:
        if sum(type(other) is type(step) for other in self._steps) >= limit:
            raise RefusedError(Status.FORBIDDEN, f"asks for more than {limit} {what}{candidate_line()}")
        self._steps.append(step)


def _byte_offset(tensor: torch.Tensor) -> int:
    return int(tensor.storage_offset()) * tensor.element_size()


def dtype_name(tensor: torch.Tensor) -> str:
    """Return the dtype's name without the module."""
    return str(tensor.dtype).removeprefix("torch.")
