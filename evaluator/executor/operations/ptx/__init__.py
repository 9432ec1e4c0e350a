"""Executes short pieces of PTX, as kernels have them in inline assembly, on tensors of registers.

    code = assemble("add.f32 $0, $1, $2;", [32, 32, 32], outputs=1)
    (total,) = code(x.view(torch.int32), y.view(torch.int32))

Branches, memory and the state of the machine are not supported (plain accesses are taken out before).
Instructions mean what the PTX ISA says.
"""

from avo.evaluator.executor.operations.ptx.program import assemble
from avo.evaluator.executor.operations.ptx.text import PtxError

__all__ = ["PtxError", "assemble"]
