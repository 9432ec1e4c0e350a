"""Executes short pieces of PTX, as kernels have them in inline assembly, on tensors of registers.

    code = assemble("add.f32 $0, $1, $2;", [32, 32, 32], outputs=1)
    (total,) = code(x.view(torch.int32), y.view(torch.int32))

Instructions without branches, memory and state of the machine; the meaning of each is that of the PTX ISA.
"""

from evaluator.executor.ptx.program import assemble
from evaluator.executor.ptx.text import PtxError

__all__ = ["PtxError", "assemble"]
