"""Launches one kernel through ``TritonDevice``, on a driver that ``libcuda_stub.c`` stands in for; see its test."""

import json
import os
import tempfile

import torch
from triton.backends.nvidia.driver import CudaDriver
from triton.runtime import driver

from avo.evaluator.binary import Binary
from avo.evaluator.compiling import compile_job
from avo.evaluator.cuda.triton_device import TritonDevice
from avo.evaluator.plan import Descriptor, KernelIR, Pointer, Scalar

KERNEL = """
module {
  tt.func public @probe(%a: !tt.ptr<bf16> {tt.divisibility = 16 : i32}, %d: !tt.tensordesc<BLOCK>, %s0: i32, %s1: i32,
      %t0: i64, %t1: i64, %f: f32, %g: f64, %h: bf16, %b: i1, %l: i64, %u: i8, %p: !tt.ptr<f32>) {
    %c0 = arith.constant 0 : i32
    %x = tt.descriptor_load %d[%c0, %c0] : !tt.tensordesc<BLOCK> -> tensor<64x32xbf16>
    tt.descriptor_store %d[%c0, %c0], %x : !tt.tensordesc<BLOCK>, tensor<64x32xbf16>
    tt.return
  }
}
"""
SIZES = (8, 128, 4, 4, 8, 8, 4, 8, 2, 1, 8, 1, 8, 8, 8)
"""Bytes of the kernel's parameters, the launcher's two pointers to scratch memory among them."""


def compile_probe() -> Binary:
    """Return the kernel as the judge compiles it."""
    for block in ("64x32xbf16", "tensor<64x32xbf16>"):  # how the type is written changed after Triton 3.6
        request = {"text": KERNEL.replace("BLOCK", block), "level": "ttir", "options": {"num_warps": 4}, "arch": 90}
        reply = json.loads(compile_job.run(json.dumps(request).encode()))
        if "error" not in reply:
            cubin = compile_job.base64.b64decode(reply["cubin"])
            return Binary("probe", "cuda", cubin, "", 128, 32, 0, 0, 0, launch=reply["launch"])
    raise SystemExit(reply["error"])


def main() -> None:
    """Launch."""
    os.chdir(tempfile.mkdtemp())
    kept = os.environ["TRITON_CACHE_DIR"]
    binary = compile_probe()
    os.environ["TRITON_CACHE_DIR"] = kept
    made = CudaDriver()
    made.get_current_device = lambda: 0
    made.get_current_stream = lambda device: 77
    made.get_device_capability = lambda device: (9, 0)
    driver.set_active(made)
    kernel = TritonDevice.__new__(TritonDevice).load(KernelIR("probe", "", ()), binary)
    buffers = [torch.zeros(64 * 40, dtype=torch.bfloat16), torch.zeros(8)]
    print("addresses", *(buffer.data_ptr() for buffer in buffers))
    arguments = (
        Pointer(0, 16),
        Descriptor(0, 32, (60, 33), (40, 1), (64, 32), "nan"),
        *map(Scalar, (60, 33, 40, 1, 0.5, 2, 1.0, True, 2**64 - 2, -3)),
        Pointer(1, 4),
    )
    kernel((5, 6, 7), arguments, buffers)


if __name__ == "__main__":
    main()
