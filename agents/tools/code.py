"""Compiled code as text for a model: pages of it, and where its main loop begins."""

import re

from avo.agents.tools.tables import fitting

_LOOP = re.compile(r"^( *)(?:%\S+ = )?scf\.(?:for|while)\b|^(\$L\w+):.*Loop Header")
_PRODUCT = re.compile(r"\btt(?:ng)?\.\w*(?:dot|mma)\w*|\b(?:wgmma\.mma_async|mma\.sync|tcgen05\.mma)\b")


def page(text: str, first: int, most: int) -> str:
    """Return lines from line ``first`` on, at most ``most`` characters, and where to continue."""
    lines = text.splitlines()
    chosen = fitting(lines[first - 1 :], most, "\n")
    last = first - 1 + len(chosen)
    more = f"\n[... lines {last + 1} to {len(lines)}: call again with first: {last + 1}]" if last < len(lines) else ""
    return ("\n".join(chosen) or "there are no such lines") + more


def main_loop(text: str) -> int | None:
    """Return the number of the line, from 1, at which the loop begins that has most matrix products; None: no loop.

    If several loops have as many, it is the last of them, and so the innermost if they are nested. ``text`` is MLIR or
    PTX.
    """
    lines = text.splitlines()
    found = []
    for i, line in enumerate(lines):
        if (head := _LOOP.match(line)) and (end := _end(lines, i, head[1], head[2])):
            products = sum(len(_PRODUCT.findall(each)) for each in lines[i:end])
            found.append((products, i + 1))
    return max(found)[1] if found else None


def _end(lines: list[str], start: int, indent: str | None, label: str | None) -> int:
    """Return the line after the loop that begins at line ``start``, from 0."""
    if label is None:  # MLIR, where a brace closes it; in PTX the last branch back does
        closes = f"{indent}}}"
        closing = (i for i in range(start + 1, len(lines)) if lines[i].startswith(closes) and "do {" not in lines[i])
        return next(closing, start) + 1
    back = [i for i in range(start, len(lines)) if "bra" in lines[i] and lines[i].rstrip().endswith(f"{label};")]
    return (back[-1] if back else start) + 1
