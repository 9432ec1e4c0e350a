"""The move that takes the blocks which every query selects out of the lists of selected attention."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy, is_kernel
from avo.agents.moves.launch import constant
from avo.agents.moves.move import LOADS, Move
from avo.evaluator.target import Target

_HELPER = '''
@triton.jit
def {name}(
    Q,
    K,
    V,
    indices,
    row_max,
    row_sum,
    acc,
    scale,
    stride_qm,
    stride_qd,
    stride_kn,
    stride_kd,
    stride_vn,
    stride_vd,
    first,
    token,
    tokens,
    blocks,
    block_size,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TOKENS: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """Take in block 0, the block of each token and the one before, as far as the token selected them."""
    in_m = token < tokens
    offs_d = tl.arange(0, BLOCK_D)
    in_d = offs_d < HEAD_DIM
    offs_n = tl.arange(0, BLOCK_N)
    slot = tl.arange(0, SLOTS)
    q = tl.load(
        Q + token[:, None].to(tl.int64) * stride_qm + offs_d[None, :] * stride_qd,
        mask=in_m[:, None] & in_d[None, :],
        other=0.0,
    )
    selected = tl.load(
        indices[:, None] + slot[None, :], mask=in_m[:, None] & (slot < blocks)[None, :], other=-1
    )
    own = (first + token) // block_size
    start = tl.program_id(0) * TOKENS
    low = tl.maximum((first + start) // block_size - 1, 0)
    high = (first + tl.minimum(start + TOKENS, tokens) - 1) // block_size
    for step in range(low - tl.minimum(low, 1), high + 1):
        block = tl.where(step < low, 0, step)
        keys = block * block_size + offs_n
        in_n = (offs_n < block_size) & (keys < first + tokens)
        k = tl.load(
            K + keys[None, :].to(tl.int64) * stride_kn + offs_d[:, None] * stride_kd,
            mask=in_n[None, :] & in_d[:, None],
            other=0.0,
        )
        forced = ((block == 0) | (block >= own - 1)) & (tl.max((selected == block).to(tl.int32), 1) > 0)
        visible = forced[:, None] & in_n[None, :] & (keys[None, :] <= first + token[:, None])
        scores = tl.where(visible, tl.dot(q, k) * scale, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        shift = tl.where(new_max == float("-inf"), 0.0, new_max)  # rows that saw no key yet
        rescale = tl.exp(row_max - shift)
        p = tl.exp(scores - shift[:, None])
        v = tl.load(
            V + keys[:, None].to(tl.int64) * stride_vn + offs_d[None, :] * stride_vd,
            mask=in_n[:, None] & in_d[None, :],
            other=0.0,
        )
        row_sum = row_sum * rescale + tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None])
        row_max = new_max
    return row_max, row_sum, acc


'''
_LISTED = """block = {loaded}
own = (first + token) // block_size
return entry, tl.where((block > 0) & (block < (own - 1)[:, None]), block, -1)
"""
_TAKEN_IN = """batch = batch_head // heads
kv_head = batch_head % heads // group
row_max, row_sum, acc = {name}(
    Q + batch * stride_qb + batch_head % heads * stride_qh,
    K + batch * stride_kb + kv_head * stride_kh,
    V + batch * stride_vb + kv_head * stride_vh,
    indices, row_max, row_sum, acc, scale,
    stride_qm, stride_qd, stride_kn, stride_kd, stride_vn, stride_vd,
    first, token, tokens, blocks, block_size, HEAD_DIM, BLOCK_D, BLOCK_N, TOKENS, SLOTS,
)
own = (first + token) // block_size
"""
_CHOSEN = """index = {loaded}
chosen = (index > 0) & (index < own - 1)
"""
_STRIDES = tuple(f"stride_{tensor}{axis}" for tensor in "qkv" for axis in ("b", "h", "nm"[tensor == "q"], "d"))
_REDUCED = (64, 32)
"""Best number of tokens for a reducing program: a tile for the tensor cores, mostly within one block."""


def _edit_forced(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Attend to the forced blocks where partial outputs are reduced; leave them out of the lists."""
    found = _Lists.read(anatomy)
    if found is None:
        return
    name = tree.fresh(anatomy.module, "attend_forced")
    label = "forced blocks as contiguous tiles, out of the lists"
    for tokens in (*_REDUCED, None):
        if edits := found.edits(name, tokens):
            yield label + (f", {tokens} tokens a program" if tokens else ""), tree.replace(anatomy.module, edits)


@dataclass(frozen=True)
class _Lists:
    """The kernels of Flash Sparse Attention in launch order: some make lists, one attends, one reduces."""

    anatomy: Anatomy
    first: str
    """The host's name for the first token of a lot."""
    loader: cst.FunctionDef
    """Loads the indices of a tile of tokens: ``return entry, tl.load(...)``."""
    reducer: cst.FunctionDef
    slots: cst.For
    """The reducing kernel's loop over partial outputs."""

    @classmethod
    def read(cls, anatomy: Anatomy) -> "_Lists | None":
        """Return it; None for kernels of another order."""
        functions = [f for f in tree.find(anatomy.module, cst.FunctionDef) if is_kernel(f)]
        loaders = [f for f in functions if _loaded(f) and {"entry", "token"} <= set(tree.assigned_names(f))]
        reducers = [(f, loop) for f in functions for loop in tree.find(f.body, cst.For) if _chosen(loop)]
        lot = re.fullmatch(r"(\w+)\[:, :, (\w+):\]", tree.text(anatomy.launch.args[0].value))
        host = [parameter.name.value for parameter in anatomy.host.params.params]
        if len(loaders) != 1 or len(reducers) != 1 or lot is None or len(host) != 6 or lot[1] != host[0]:
            return None
        reducer, loop = reducers[0]
        parameters = {parameter.name.value for parameter in reducer.params.params}
        made = {"batch_head", "token", "indices", "row_max", "row_sum", "acc"} <= set(tree.assigned_names(reducer))
        known = {"heads", "group", "tokens", "blocks", "HEAD_DIM", "BLOCK_D", "TOKENS"} <= parameters
        free = parameters.isdisjoint({*_STRIDES, "Q", "K", "V", "first", "block_size", "scale", "BLOCK_N", "SLOTS"})
        return cls(anatomy, lot[2], loaders[0], reducer, loop) if made and known and free else None

    def edits(self, name: str, tokens: int | None) -> tree.Edits | None:
        """Return how the module changes. ``tokens`` is the number of tokens per reducing program; None keeps the
        present one.
        """
        users = self._users()
        launches = {use: self._launches(use.name.value) for use in (*users, self.reducer)}
        if not users or any(len(calls) != 1 for calls in launches.values()):
            return None
        loaded = _loaded(self.loader)
        assert loaded is not None
        returned = tree.statements(_LISTED.format(loaded=tree.text(loaded)))
        body = [*self.loader.body.body[:-1], *returned]
        loader = self.loader.with_changes(body=self.loader.body.with_changes(body=body))
        edits: dict[cst.CSTNode, tree.Replacement] = {
            self.loader: tree.with_parameters(loader, ("first", "block_size"))
        }
        lot = {"first": self.first, "block_size": "block_size"}
        for user in users:
            calls = tree.calls(user, self.loader.name.value)
            passed: tree.Edits = {call: _with_keywords(call, {key: key for key in lot}) for call in calls}
            edits[user] = tree.with_parameters(tree.replace(user, passed), tuple(lot))
            edits[launches[user][0]] = _with_keywords(launches[user][0], lot)
        (helper,) = tree.statements(_HELPER.format(name=name))
        helper = helper.with_changes(leading_lines=[cst.EmptyLine(), cst.EmptyLine()])
        edits[self.reducer] = cst.FlattenSentinel([helper, self._reducer(name)])
        edits[launches[self.reducer][0]] = _with_keywords(launches[self.reducer][0], self._passed())
        if tokens is None:
            return edits
        arg = tree.keyword(launches[self.reducer][0], "TOKENS")
        literal = constant(self.anatomy, tree.text(arg.value)) if arg else None
        return None if literal is None else {**edits, literal: cst.Integer(str(tokens))}

    def _passed(self) -> Mapping[str, str]:
        q, k, v = (parameter.name.value for parameter in self.anatomy.host.params.params[:3])
        strides = {
            name: f"{tensor}.stride({axis})"
            for name, (tensor, axis) in zip(_STRIDES, ((t, a) for t in (q, k, v) for a in range(4)), strict=True)
        }
        block = "max(16, triton.next_power_of_2(block_size))"
        slots = f"triton.next_power_of_2({self.anatomy.host.params.params[3].name.value}.shape[3])"
        tensors = {"Q": f"{q}[:, :, {self.first}:]", "K": k, "V": v, "scale": "scale"}
        sizes = {"first": self.first, "block_size": "block_size", "BLOCK_N": block, "SLOTS": slots}
        return {**tensors, **strides, **sizes}

    def _users(self) -> list[cst.FunctionDef]:
        """Return the kernels that make the lists."""
        return [
            f
            for f in tree.find(self.anatomy.module, cst.FunctionDef)
            if is_kernel(f) and tree.calls(f, self.loader.name.value)
        ]

    def _launches(self, kernel: str) -> list[cst.Call]:
        return [
            call
            for call in tree.find(self.anatomy.host, cst.Call)
            if isinstance(call.func, cst.Subscript) and tree.is_name(call.func.value, kernel)
        ]

    def _reducer(self, name: str) -> cst.FunctionDef:
        line = _chosen(self.slots)
        assert line is not None
        loaded = tree.calls(line, "tl.load")[0]
        kept = tree.replace(
            self.slots, {line: cst.FlattenSentinel(tree.statements(_CHOSEN.format(loaded=tree.text(loaded))))}
        )
        edits: tree.Edits = {self.slots: tree.before(kept, _TAKEN_IN.format(name=name))}
        reducer = tree.replace(self.reducer, edits)
        added = ("Q", "K", "V", "scale", *_STRIDES, "first", "block_size")
        return tree.with_parameters(tree.with_parameters(reducer, added), ("BLOCK_N", "SLOTS"), constant=True)


def _loaded(function: cst.FunctionDef) -> cst.BaseExpression | None:
    """Return the load in a final ``return entry, tl.load(..., other=-1)``; None if the function ends in another way."""
    last = function.body.body[-1]
    line = last.body[0] if isinstance(last, cst.SimpleStatementLine) else None
    value = line.value if isinstance(line, cst.Return) else None
    if (
        not isinstance(value, cst.Tuple)
        or len(value.elements) != 2
        or not tree.is_name(value.elements[0].value, "entry")
    ):
        return None
    loaded = value.elements[1].value
    other = tree.keyword(loaded, "other") if isinstance(loaded, cst.Call) and tree.is_call(loaded, "tl.load") else None
    return loaded if other and tree.text(other.value) == "-1" else None


def _chosen(loop: cst.For) -> cst.SimpleStatementLine | None:
    """Return the statement ``chosen = tl.load(indices + slot, ..., other=-1) >= 0`` of a loop over slots."""
    for line in loop.body.body:
        name, value = tree.assignment(line) or ("", None)
        loads = tree.calls(value, "tl.load") if value else []
        if name == "chosen" and len(loads) == 1 and value and isinstance(line, cst.SimpleStatementLine):
            expected = f"{tree.text(loads[0])} >= 0"
            address = tree.text(loads[0].args[0].value)
            if tree.text(value) == expected and address == f"indices + {tree.text(loop.target)}":
                return line
    return None


def _with_keywords(call: cst.Call, values: Mapping[str, str]) -> cst.Call:
    added = [tree.keyword_argument(name, value) for name, value in values.items()]
    return tree.with_arguments(call, [*call.args, *added])


FORCED_MOVES = (
    Move(
        "forced",
        "blocks that every query selects need no lists and no partial outputs: they are read as contiguous tiles",
        0.1,
        "lists of the queries of each block, partial outputs and a kernel that reduces them, in lots of tokens",
        _edit_forced,
        LOADS,
    ),
)
