"""A job for the compiler's tests: the PTX that Triton makes of a candidate's launches on its normal path."""

import json
from typing import Any

import msgspec
from triton.runtime.jit import JITFunction

from avo.evaluator.capture import child, device
from avo.evaluator.capture.tensors import Operators
from avo.evaluator.problem import Call
from avo.evaluator.targets import get_target


def run(payload: bytes) -> bytes:
    request = json.loads(payload)
    device.install(get_target(request["target"]))
    compiled = []
    launch = JITFunction.run

    def only_compile(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        compiled.append(launch(self, *args, grid=grid, warmup=True, **kwargs))

    JITFunction.run = only_compile
    operators = Operators()
    module = child._load(request["source"], operators, 0)
    child._call(getattr(module, request["entry"]), msgspec.convert(request["call"], Call), operators)
    return json.dumps([kernel.asm["ptx"] for kernel in compiled]).encode()
