"""A worker of a shortlist on the stub card: ``python -m tests.evaluator.cuda.stub_card.shortlist``.

Kernels are compiled and launched by Triton's own ``JITFunction``; what arrives at the driver is executed. Times follow
a law, so that what is found can be held against what must be: each program takes ``PROGRAM_US`` on one of ``SMS``, a
launch ``LAUNCH_US``, and a library ``LIBRARY_US``.
"""

import ctypes
import gc
import math
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes
from triton.compiler.compiler import CompiledKernel

from avo.evaluator.cuda import worker
from avo.evaluator.cuda.device import Clocks, Enqueue, Took
from avo.evaluator.plan import Argument, Descriptor
from tests.evaluator.cuda.stub_card.launches import Asked, Config, StubDevice, decoded, parameter_sizes
from tests.evaluator.cuda.stub_card.runtime import StubCuda

PROGRAM_US, LAUNCH_US, LIBRARY_US = 40.0, 5.0, 100.0
SMS = 2
_HEADER = re.compile(r"tt\.func public @\w+\((.*?)\) attributes", re.DOTALL)
_KIND = re.compile(r"%[\w.]+: (!tt\.ptr<|!tt\.tensordesc<(?:tensor<)?([0-9x]+)x\w+[^{]*?>+|\w+)")


class SourceDevice(StubDevice):
    """The stub card under Triton's ``JITFunction``."""

    def __init__(self, cuda: StubCuda) -> None:
        self._programs: list[int] = []
        """Of each launch since the clock was started."""
        init = CompiledKernel._init_handles

        def load(compiled: CompiledKernel) -> None:
            text = compiled.asm["ttir" if "ttir" in compiled.asm else "ttgir"]  # Gluon has the second alone
            ir = SimpleNamespace(name=compiled.metadata.name, ttir=text)
            self._loading = SimpleNamespace(ir=ir, binary=SimpleNamespace(cubin=compiled.asm["cubin"]))
            init(compiled)
            self._loading = None

        CompiledKernel._init_handles = load
        super().__init__(cuda)

    def time(self, enqueue: Enqueue) -> Took:
        """Take the time that the law says."""
        self._programs.clear()
        super().time(enqueue)
        us = sum(LAUNCH_US + PROGRAM_US * math.ceil(programs / SMS) for programs in self._programs)
        us = us or LIBRARY_US
        noisy = us * (1 + 0.002 * math.sin(time.perf_counter() * 1e3))
        return Took(noisy / 1e6, noisy / 1e6)

    def clocks(self) -> Clocks:
        """Return what a card under load says."""
        return Clocks(1700, 4, 60, 650.0)

    def _launched(self, handle: int, name: bytes, config: Any, params: Any) -> int:
        found: Config = config.contents
        self._asked = Asked((found.x, found.y, found.z), (), _tensors())
        return super()._launched(handle, name, config, params)

    def _arrived(self, module: Any, asked: Asked, name: str, config: Config, params: Any) -> list[Argument]:
        sizes = parameter_sizes(module.binary.cubin, name)
        kinds = _kinds(module.ir.ttir)
        assert len(sizes) == len(kinds) + 2, (sizes, kinds)
        arrived: list[Argument] = []
        for i, (kind, block) in enumerate(kinds):
            argument = decoded(ctypes.string_at(params[i], sizes[i]), kind, asked.buffers)
            arrived.append(replace(argument, block_shape=block) if isinstance(argument, Descriptor) else argument)
        return arrived

    def _execute(self, module: Any, asked: Asked, arguments: Sequence[Argument]) -> None:
        self._programs.append(math.prod(asked.grid))
        super()._execute(module, asked, arguments)


def _kinds(ttir: str) -> list[tuple[str, tuple[int, ...]]]:
    """Return the type of each parameter of a kernel, with the block of a descriptor."""
    header = _HEADER.search(ttir)
    assert header is not None, ttir[:500]
    return [
        ("*i8" if kind.startswith("!tt.ptr") else kind, tuple(map(int, block.split("x"))) if block else ())
        for kind, block in _KIND.findall(header[1])
    ]


def _tensors() -> list[torch.Tensor]:
    """Return a flat tensor of each storage that is alive: a kernel may be given any."""
    found: dict[int, torch.Tensor] = {}
    with _disable_current_modes():  # nothing here is part of a graph
        for each in gc.get_objects():
            if type(each) is torch.Tensor and each.device.type == "cpu" and each.numel():
                storage = each.untyped_storage()
                found.setdefault(storage.data_ptr(), torch.empty(0, dtype=each.dtype).set_(storage))
    return list(found.values())


if __name__ == "__main__":
    sys.exit(worker.main(lambda: SourceDevice(StubCuda())))
