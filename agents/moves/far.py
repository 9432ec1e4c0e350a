"""Moves between the orders of selected attention, and moves that tune the order of far blocks."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import libcst as cst

from avo.agents.moves import far_hosts, far_kernels, tree
from avo.agents.moves.anatomy import Anatomy
from avo.agents.moves.launch import SHARES
from avo.agents.moves.move import EVERYTHING, LOADS, Edit, Move
from avo.evaluator.setting import Setting
from avo.evaluator.target import Target
from avo.seeds import seed_source
from avo.seeds.seed import unpadded

_CONSTANTS: Mapping[str, Sequence[int]] = {
    "EARLY": (0, 2, 3, 4, 5, 6, 8),
    "SHARE": SHARES,
    "ROWS": (64, 128),
    "NEAR_ROWS": (32, 64, 128),
}
"""What the constants of a module of far blocks may be."""
_DEFAULTS = {"EARLY": 0, "SHARE": 512, "ROWS": 64, "NEAR_ROWS": 64}
_LOCAL = (
    ("block before a query's own, but for block 0", "query's own"),
    (
        "block 0, the query's own and the one before are selected wherever they exist",
        "only the query's own is sure to be selected",
    ),
    ("all near: 3, and", "all near: 1, and"),
    (
        "far = (block > 0) & (block < ((begin + token) // SIZE - 1)[:, None])",
        "far = (block >= 0) & (block < ((begin + token) // SIZE)[:, None])",
    ),
    ("slot[None, :] - 1, (token", "slot[None, :], (token"),
    ("    stop = tl.minimum(own, 2) * SIZE\n", "    stop = 0\n"),
    ("    # Block 0 and the one before, or all before.\n", "    # All before.\n"),
    ("        start = tl.where((first < early) | (n < SIZE), n, n + (own - 2) * SIZE)\n", ""),
    ("for n in tl.range(0, stop", "for start in tl.range(0, stop"),
    ("indices + slot + 1, mask", "indices + slot, mask"),
    ("far = (index > 0) & (index < tile * TOKENS // SIZE - 1)", "far = (index >= 0) & (index < tile * TOKENS // SIZE)"),
    ("min(64, 3 + EARLY", "min(64, 1 + EARLY"),
    ("blocks > 3", "blocks > 1"),
    ("(blocks - 3)", "(blocks - 1)"),
    ("BLOCKS - 3", "BLOCKS - 1"),
)
"""What differs in the text where its own block is the only one that a query always selects."""
_LOTS = range(25, 32)
"""Logarithms to base 2 of the sizes of a lot's partial outputs, in bytes."""


def _edit_kv_outer(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Put the queries that selected a block into lists, as a seed does."""
    if _selected(anatomy) and not tree.calls(anatomy.module, "tl.atomic_add"):
        yield (
            "queries gathered by the blocks that they selected",
            with_entry_of(anatomy, seed_source("fsa", "kv_outer")),
        )


def _edit_far(anatomy: Anatomy, target: Target, *, local: bool = False) -> Iterator[tuple[str, cst.Module]]:
    """Put only far blocks into lists, and attend to near ones where their partial outputs are added up."""
    if _selected(anatomy) and not _made(anatomy):
        near = "a query's own" if local else "near ones"
        yield f"far blocks by lists, {near} with partial outputs", with_entry_of(anatomy, _source(local))


def _far_in(setting: Setting) -> Edit | None:
    return partial(_edit_far, local=setting.local) if unpadded(setting) else None


def _source(local: bool) -> str:
    parts = {name.lower(): str(value) for name, value in _DEFAULTS.items()}
    parts["near"] = parts["near_rows"]
    parts |= {"near_head": far_kernels.NEAR, "near_tail": far_kernels.STORED, "strides": far_kernels.STRIDES}
    parts |= {"lists": far_hosts.LISTS, "attend": far_hosts.ATTEND}
    text = far_kernels.HEAD + far_kernels.KERNELS + far_hosts.REDUCE + far_hosts.HOST + far_hosts.RUN
    for name, part in parts.items():
        text = text.replace(f"{{{name}}}", part)
    for old, new in _LOCAL if local else ():
        assert old in text, f"the texts of far have no {old!r}"
        text = text.replace(old, new)
    return text


def _edit_early(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Let more or fewer of the first tokens attend to everything before them."""
    yield from _steps(anatomy, "EARLY", (5, 4, 3, 6, 2, 8, 0))


def _edit_rows(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Set the rows of a tile of far or of near blocks."""
    for name in ("ROWS", "NEAR_ROWS"):
        yield from _steps(anatomy, name, _CONSTANTS[name])


def _edit_lots(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Double or halve the partial outputs of a lot."""
    for assign in tree.find(anatomy.module, cst.Assign):
        power = assign.value
        if not tree.is_name(assign.targets[0].target, "PARTIAL_BYTES") or not isinstance(power, cst.BinaryOperation):
            continue
        here = tree.integer(power.right)
        if here is None or tree.text(power) != f"2 ** {here}":
            continue
        for other in (here + 1, here - 1, here + 2, here - 2):
            if other in _LOTS:
                changed = tree.replace(anatomy.module, {power.right: cst.Integer(str(other))})
                yield f"PARTIAL_BYTES 2**{here} -> 2**{other}", changed


def _steps(anatomy: Anatomy, name: str, values: Sequence[int]) -> Iterator[tuple[str, cst.Module]]:
    literal = _literal(anatomy, name) if _made(anatomy) else None
    here = tree.integer(literal) if literal else None
    for value in values if literal else ():
        if value != here:
            assert literal is not None
            changed = tree.replace(anatomy.module, {literal: cst.Integer(str(value))})
            yield f"{name} {here} -> {value}", changed


def _selected(anatomy: Anatomy) -> bool:
    """Return whether the host function is the entry of selected attention without more: no sinks, nothing packed."""
    return entry_of(anatomy) and len(anatomy.host.params.params) == 6


def entry_of(anatomy: Anatomy) -> bool:
    """Return whether the host function is the entry of selected attention: its parameters fix what it computes."""
    params = anatomy.host.params
    by_name = [parameter.name.value for parameter in params.kwonly_params]
    further = isinstance(params.star_arg, cst.Param)
    usual = ["block_size", "scale", *(["max_seqlen_q", "max_seqlen_k"] if further else [])]
    return len(params.params) == (4 if further else 6) and by_name == usual


def _made(anatomy: Anatomy) -> bool:
    """Return whether the move ``far`` made the module."""
    functions = {function.name.value for function in tree.find(anatomy.module, cst.FunctionDef)}
    return "attend_near" in functions and _selected(anatomy)


def _literal(anatomy: Anatomy, name: str) -> cst.Integer | None:
    """Return the number that the module sets a constant to, where that is one of those that it may be."""
    for assign in tree.find(anatomy.module, cst.Assign):
        if tree.is_name(assign.targets[0].target, name) and isinstance(assign.value, cst.Integer):
            return assign.value if tree.integer(assign.value) in _CONSTANTS[name] else None
    return None


def with_entry_of(anatomy: Anatomy, source: str) -> cst.Module:
    """Return ``source`` as a module, its entry function called as that of ``anatomy``."""
    module = cst.parse_module(source)
    host = next(f for f in tree.find(module, cst.FunctionDef) if f.params.kwonly_params)
    return tree.replace(module, {host: host.with_changes(name=anatomy.host.name)})


FAR_MOVES = (
    Move(
        "kv-outer",
        "gathered by blocks, the queries of small groups fill tiles, and a block's keys are loaded once for many",
        1.0,
        "selected attention with a loop over the blocks of a query",
        _edit_kv_outer,
        EVERYTHING,
    ),
    Move(
        "far",
        "near blocks are shared by neighbours and need no lists; all rows see all of a far block, so nothing is masked",
        0.8,
        "selected attention, three blocks a query or more",
        _edit_far,
        EVERYTHING,
        in_setting=_far_in,
    ),
    Move(
        "early",
        "the first tokens select most blocks before them: attending to all costs less than partial outputs",
        0.1,
        "what the move far makes",
        _edit_early,
        LOADS,
    ),
    Move(
        "rows",
        "larger tiles load keys less often, smaller ones let more CTAs onto the SM",
        0.05,
        "what the move far makes",
        _edit_rows,
        LOADS | {"latency"},
    ),
    Move(
        "lots",
        "in large lots few programs run alone at the end, of small ones the L2 cache holds the partial outputs",
        0.03,
        "selected attention with partial outputs in lots of PARTIAL_BYTES",
        _edit_lots,
        frozenset({"l2", "hbm"}),
    ),
)
