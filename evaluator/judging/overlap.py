"""Launches that overlap: with ``launch_pdl`` a kernel may start while the launch before it still runs.

Such a kernel has to wait before it accesses memory. The executor, which runs one launch after the other, cannot see
whether it does.
"""

import re

from avo.evaluator.binary import Binary
from avo.evaluator.evaluation import Fault, Status
from avo.evaluator.plan import KernelIR

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_BEFORE = re.compile(r"^([\s{}]|[\w$]+:(?!:))+")
"""Braces and labels before an instruction."""
_INSTRUCTION = re.compile(r"(@\S+\s+)?([a-z][\w.:]*)")
_ACCESSES = ("ld", "ldu", "st", "atom", "red", "cp", "multimem", "tensormap")
_OWN_MEMORY = (".param", ".shared", ".local", ".const")
_LEAVES = ("bra", "brx", "call", "ret", "exit")
"""Instructions after one of these may not be reached."""


def early(kernel: KernelIR, binary: Binary) -> Fault | None:
    """Return a fault if ``kernel``, as compiled, may overlap the launch before it and accesses memory without a wait.

    See griddepcontrol in the PTX ISA: only ``griddepcontrol.wait`` makes earlier grids' memory operations visible.
    """
    if not dict(kernel.options).get("launch_pdl") or _waits(binary.ptx):
        return None
    message = (
        f"kernel {kernel.name} is launched with launch_pdl, and may access memory while the previous launch still runs"
        ": call gdc_wait of triton.language.extra.cuda first, before all accesses and branches, or leave launch_pdl out"
    )
    return Fault(Status.RACE, message)


def _waits(ptx: str) -> bool:
    """Whether a kernel surely waits before it accesses global memory; false for code that cannot be read."""
    ptx = _COMMENT.sub("", ptx)
    body = ptx[ptx.find("{", ptx.find(".entry")) + 1 :]
    for statement in re.split(r"[;\n]", body):
        statement = _BEFORE.sub("", statement)
        if not statement or statement.startswith("."):
            continue
        found = _INSTRUCTION.match(statement)
        if found is None:
            return False
        predicate, name = found.groups()
        if name == "griddepcontrol.wait" and not predicate:
            return True
        if name.partition(".")[0] in _LEAVES or _reaches_out(name):
            return False
    return False


def _reaches_out(name: str) -> bool:
    """Whether an instruction may access global memory: copies to shared memory do."""
    root = name.partition(".")[0]
    own = any(space in name for space in _OWN_MEMORY) and ".global" not in name and root != "cp"
    return root in _ACCESSES and not own
