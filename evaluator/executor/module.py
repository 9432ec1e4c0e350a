"""Reads what a module says of its kernel: the CTAs of its clusters, and the warps of a CTA."""

import re

from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.lexer import attributes, tokens

MODULE = re.compile(r"module(?:\s+@\S+)?\s*(?:attributes\s*\{(.*)\}\s*)?\{")
_MODULE_ATTRIBUTES = (
    *("ttg.num-ctas", "ttg.num-warps", "ttg.threads-per-warp", "ttg.target", "ttg.shared", "ttng.two-ctas"),
    *("ttg.maxnreg", "ttg.min_reg_auto_ws", "ttg.max_reg_auto_ws"),
)
_CLUSTERS = ("1", "2", "4", "8", "16")


def check_module(attributes_text: str, location: str) -> tuple[tuple[int, bool], str]:
    """Return the CTAs of a module's clusters and whether they work in pairs, and the warps of a CTA, "" if not said.

    Raises ``UnsupportedOperation`` for anything else that changes what its kernel does.
    """
    found: dict[str, str] = {}
    attributes([*tokens(attributes_text), ("punctuation", "}")], 0, found)
    for name, value in found.items():
        if name not in _MODULE_ATTRIBUTES:
            raise UnsupportedOperation(f"module with attributes {name} = {value}"[:200], location)
    ctas = found.get("ttg.num-ctas", "1 : i32").removesuffix(" : i32")
    if ctas not in _CLUSTERS:
        raise UnsupportedOperation(f"cluster of {ctas[:20]} CTAs", location)
    warps = found.get("ttg.num-warps", "").removesuffix(" : i32")
    return (int(ctas), found.get("ttng.two-ctas", "false") == "true"), warps
