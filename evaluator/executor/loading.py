"""Loads kernels from text, each text once."""

from dataclasses import replace
from functools import lru_cache

from avo.evaluator.executor.control import KNOWN
from avo.evaluator.executor.errors import IRError
from avo.evaluator.executor.kernel import Kernel
from avo.evaluator.executor.operations.inline_asm import with_accesses
from avo.evaluator.executor.parser import parse
from avo.evaluator.executor.predicates import in_branches


def load(text: str, aliases: tuple[int, ...] = (), sms: int = 0) -> Kernel:
    """Return the kernel of a module's public function, for arguments that share buffers as ``aliases`` says.

    A kernel that asks which SM runs it, or what time it is, is unsupported unless the GPU's number of SMs is given.
    Raises ``IRError`` for text that is neither Triton IR nor Triton GPU IR, ``UnsupportedOperation`` for what is not
    implemented.
    """
    return _load(text, aliases, sms)


@lru_cache(maxsize=256)  # which takes a call that leaves the default out for another one
def _load(text: str, aliases: tuple[int, ...], sms: int) -> Kernel:
    function = in_branches(with_accesses(parse(text, KNOWN)))
    if aliases and len(aliases) != len(function.params):
        raise IRError(f"kernel {function.name} takes {len(function.params)} arguments, not {len(aliases)}")
    params = function.params
    return Kernel(replace(function, aliases={params[i]: params[first] for i, first in enumerate(aliases)}, sms=sms))
