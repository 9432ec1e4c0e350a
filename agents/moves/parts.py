"""Moves that split the keys of one tile of queries over several programs, where another kernel combines their results:
one makes such a kernel, one finds out how many programs there should be.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy, unconverted, uses_descriptors
from avo.agents.moves.move import Move
from avo.agents.moves.order import grid_of
from avo.agents.moves.overlap import AHEAD
from avo.evaluator.target import Target

_COMBINE = '''
@triton.jit
def {name}(
    Partial,
    PartialLse,
    Out,
    Lse,
    stride_ob,
    stride_oh,
    stride_om,
    stride_od,
    heads,
    length,
    lists,
    parts,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Add up the parts of rows of one batch and head, weighted by their sums of exponentials.

    A row that sees no key of a part has -inf or NaN there: the part counts for nothing.
    """
    batch_head = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    in_m = row < length
    offs_d = tl.arange(0, BLOCK_D)
    in_d = offs_d < HEAD_DIM
    row_max = tl.full([ROWS], float("-inf"), tl.float32)
    row_sum = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, BLOCK_D], tl.float32)
    for part in range(parts):
        place = (part * lists + batch_head) * length + row
        part_lse = tl.load(PartialLse + place, mask=in_m, other=float("-inf"))
        there = part_lse > float("-inf")
        partial = tl.load(
            Partial + place[:, None] * HEAD_DIM + offs_d[None, :], mask=in_m[:, None] & in_d[None, :], other=0.0
        )
        new_max = tl.maximum(row_max, tl.where(there, part_lse, float("-inf")))
        rescale = tl.exp(row_max - new_max)
        weight = tl.where(there, tl.exp(part_lse - new_max), 0.0)
        row_sum = row_sum * rescale + weight
        acc = acc * rescale[:, None] + tl.where(there[:, None], partial, 0.0) * weight[:, None]
        row_max = new_max
    tl.store(
        Out
        + batch_head // heads * stride_ob
        + batch_head % heads * stride_oh
        + row[:, None].to(tl.int64) * stride_om
        + offs_d[None, :] * stride_od,
        (acc / row_sum[:, None]).to(Out.dtype.element_ty),
        mask=in_m[:, None] & in_d[None, :],
    )
    tl.store(Lse + batch_head * length + row, row_max + tl.log(row_sum), mask=in_m)


'''
_BEFORE = """{parts} = {count}
{partial}, {partial_lse} = {out}, {lse}
if {parts} > 1:
    {partial} = torch.empty(({parts} * {out}.shape[0], *{out}.shape[1:]), dtype=torch.float32, device={out}.device)
    {partial_lse} = torch.empty(({parts} * {lse}.shape[0], *{lse}.shape[1:]), dtype=torch.float32, device={lse}.device)
"""
_AFTER = """if {parts} > 1:
    {name}[(triton.cdiv({out}.shape[2], 16), {out}.shape[0] * {out}.shape[1])](
        {partial},
        {partial_lse},
        {out},
        {lse},
        *{out}.stride(),
        {out}.shape[1],
        {out}.shape[2],
        {out}.shape[0] * {out}.shape[1],
        {parts},
        HEAD_DIM={out}.shape[3],
        BLOCK_D=triton.next_power_of_2({out}.shape[3]),
        ROWS=16,
    )
"""
_NUMBERS = """{part} = ({batch} // {batches}).to(tl.int32)
{input_batch} = {batch} % {batches}
"""
_BOUNDS = """{part_start} = {part} * ({share})
{part_stop} = {part_start} + {share}
"""
_TIMES = (2, 4, 1, 8)
"""Programs for each SM to aim for, the most promising first."""
_MOST = 16
"""Largest number of parts: each takes memory for the whole output in float32."""


def _edit_split_kv(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Number the parts of the keys like additional batches that share their queries, keys and values."""
    found = _Parts.read(anatomy)
    # The tile that a skewed loop computes ahead is that of the first key, not of a part's first.
    if found is None or any(name.startswith(AHEAD) for name in tree.names(anatomy.kernel)):
        return
    programs = " * ".join(f"({tree.text(element.value)})" for element in found.grid.elements)
    for wanted in (target.sms, 2 * target.sms, 4 * target.sms):
        if module := found.module(f"max(1, min({_MOST}, {wanted} // ({programs})))"):
            yield f"keys in parts where there are fewer than {wanted} programs", module


@dataclass(frozen=True)
class _Parts:
    """A kernel whose programs are numbered by batches and heads along one axis of the grid."""

    anatomy: Anatomy
    grid: cst.Tuple
    axis: int
    """The grid axis of batches and heads."""
    batch: cst.SimpleStatementLine
    """The statement that computes the batch."""
    inputs: tuple[cst.Name, ...]
    """Uses of the batch in the addresses of queries, keys and values."""
    out: str
    """The host's name for the number of batches."""
    lse: str

    @classmethod
    def read(cls, anatomy: Anatomy) -> "_Parts | None":
        """Return it; None for any other kernel."""
        grid, found, loops = grid_of(anatomy), _batch(anatomy), anatomy.loops
        outputs = [parameter.name.value for parameter in anatomy.host.params.params[3:]]
        # Tiles of one loop follow those of another, so that a part is a stretch of all.
        chained = bool(loops) and loops[0].start == "0" and all(loop.step == loops[0].step for loop in loops)
        chained = chained and all(loop.start == before.stop for before, loop in pairwise(loops))
        if grid is None or found is None or len(outputs) != 2 or not chained or uses_descriptors(anatomy.kernel):
            return None
        batch, axis = found
        name = tree.assigned_names(batch)[0]
        strides = {f"{host}.stride(0)" for host in anatomy.arguments.values()}
        products = [
            product
            for product in tree.find(anatomy.kernel.body, cst.BinaryOperation)
            if isinstance(product.operator, cst.Multiply)
            and tree.is_name(product.left, name)
            and anatomy.arguments.get(tree.text(product.right)) in strides
        ]
        inputs = tuple(
            product.left
            for product in products
            if anatomy.arguments[tree.text(product.right)] != f"{outputs[0]}.stride(0)"
            and isinstance(product.left, cst.Name)
        )
        # Besides its definition, the batch is used for the three inputs and the output only.
        uses = sum(node.value == name for node in tree.find(anatomy.kernel.body, cst.Name))
        if (len(inputs), len(products), uses) != (3, 4, 5) or _stored(anatomy) != set(outputs):
            return None
        return cls(anatomy, grid, axis, batch, inputs, *outputs)

    def module(self, count: str) -> cst.Module | None:
        """Return the module with the keys in ``count`` parts, an expression of the host."""
        wanted = ("parts", "batches", "part", "input_batch", "part_start", "part_stop", "partial", "partial_lse")
        names = {name: tree.fresh(self.anatomy.module, name) for name in wanted}
        names |= {"out": self.out, "lse": self.lse, "count": count}
        names["name"] = tree.fresh(self.anatomy.module, "combine_kernel")
        host = self._host(names)
        if host is None:
            return None
        (definition,) = tree.statements(_COMBINE.format(name=names["name"]))
        definition = definition.with_changes(leading_lines=[cst.EmptyLine(), cst.EmptyLine()])
        edits: tree.Edits = {
            self.anatomy.kernel: self._kernel(names),
            self.anatomy.host: cst.FlattenSentinel([definition, host]),
        }
        module = tree.replace(self.anatomy.module, edits)
        return module if "torch" in tree.names(self.anatomy.module) else tree.after_imports(module, "import torch\n")

    def _kernel(self, names: Mapping[str, str]) -> cst.FunctionDef:
        batch, loops = tree.assigned_names(self.batch)[0], self.anatomy.loops
        share = f"tl.cdiv(tl.cdiv({loops[-1].stop}, {loops[0].step}), {names['parts']}) * {loops[0].step}"
        bounds = _BOUNDS.format(**names, share=share)
        edits: dict[cst.CSTNode, tree.Replacement] = {use: cst.Name(names["input_batch"]) for use in self.inputs}
        edits[self.batch] = cst.FlattenSentinel([self.batch, *tree.statements(_NUMBERS.format(**names, batch=batch))])
        for loop in loops:
            ends: tree.Edits = {
                loop.call.args[0].value: tree.expression(f"tl.maximum({loop.start}, {names['part_start']})"),
                loop.call.args[1].value: tree.expression(f"tl.minimum({loop.stop}, {names['part_stop']})"),
            }
            shortened = loop.node.with_changes(iter=tree.replace(loop.call, ends))
            # Where the last loop ends may be found between the loops.
            edits[loop.node] = tree.before(shortened, bounds) if loop is loops[0] else shortened
        return tree.with_parameters(tree.replace(self.anatomy.kernel, edits), (names["batches"], names["parts"]))

    def _host(self, names: Mapping[str, str]) -> cst.FunctionDef | None:
        """Return the host, which allocates memory for the parts and combines them; None where its statements are
        nested.
        """
        host, size = self.anatomy.host, self.grid.elements[self.axis].value
        more = tree.expression(f"{names['parts']} * ({tree.text(size)})")
        body: list[cst.BaseStatement | cst.BaseSmallStatement] = []
        launched = False
        for line in host.body.body:
            first = size in tree.find(line, type(size))
            body += tree.statements(_BEFORE.format(**names)) if first else ()
            new = tree.replace(line, {size: more, self.anatomy.launch: self._launch(names, size, more)})
            body.append(new)
            if self.anatomy.launch in tree.find(line, cst.Call):
                if not isinstance(line, cst.SimpleStatementLine):
                    return None
                launched = True
                body += tree.statements(_AFTER.format(**names))
        return host.with_changes(body=host.body.with_changes(body=body)) if launched else None

    def _launch(self, names: Mapping[str, str], size: cst.BaseExpression, more: cst.BaseExpression) -> cst.Call:
        launch = tree.replace(self.anatomy.launch, {size: more})
        into = {self.out: names["partial"], self.lse: names["partial_lse"]}
        args = [arg.with_changes(value=tree.with_names(arg.value, into)) for arg in launch.args]
        passed = ((names["batches"], f"{self.out}.shape[0]"), (names["parts"], names["parts"]))
        return tree.with_arguments(launch, [*args, *(tree.keyword_argument(*each) for each in passed)])


def _batch(anatomy: Anatomy) -> tuple[cst.SimpleStatementLine, int] | None:
    """Return where the batch is computed, and the axis of the grid: ``batch = tl.program_id(axis) // heads``, by a
    name.
    """
    for line in tree.find(anatomy.kernel.body, cst.SimpleStatementLine):
        value = unconverted((tree.assignment(line) or ("", None))[1])
        if not isinstance(value, cst.BinaryOperation) or not isinstance(value.operator, cst.FloorDivide):
            continue
        number = tree.definition(anatomy.kernel, tree.text(value.left)) if tree.is_name(value.left) else None
        if isinstance(number, cst.Call) and tree.is_call(number, "tl.program_id"):
            axis = tree.integer(number.args[0].value)
            known = axis in (0, 1) and tree.text(value.right) in anatomy.parameters
            return (line, axis) if known and axis is not None else None
    return None


def _stored(anatomy: Anatomy) -> set[str]:
    """Return what the host calls the tensors that the kernel stores to."""
    found = set()
    for store in tree.calls(anatomy.kernel, "tl.store"):
        address = store.args[0].value
        names = tree.names(address)
        for name in tuple(names):
            value = tree.definition(anatomy.kernel, name)
            names |= tree.names(value) if value else set()
        hosts = {anatomy.arguments[name] for name in names if name in anatomy.arguments}
        found |= hosts & {parameter.name.value for parameter in anatomy.host.params.params}
    return found


def _edit_programs(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Aim for another multiple of the SMs where the host divides a number of programs among those it has anyway."""
    for line in anatomy.module.body:
        name, value = tree.assignment(line) or ("", None)
        number = tree.integer(value)
        if number is None or value is None:
            continue
        uses = [use for use in tree.find(anatomy.module, cst.Name) if use.value == name]
        shared = [call.args[0].value for call in tree.calls(anatomy.host, "triton.cdiv")]
        # One use is the assignment.
        if len(uses) != 2 or not any(use in shared for use in uses):
            continue
        for times in _TIMES:
            if (programs := times * target.sms) != number:
                yield (
                    f"{name} {number} -> {programs}",
                    tree.replace(anatomy.module, {value: cst.Integer(str(programs))}),
                )


PART_MOVES = (
    Move(
        "programs",
        "more programs read more of the cache at a time, fewer leave less to combine: how many depends on the card",
        0.03,
        "a number of the module that the host divides, by triton.cdiv, and uses nowhere else",
        _edit_programs,
        frozenset({"hbm", "latency"}),
    ),
    Move(
        "split-kv",
        "few tiles of queries leave SMs idle: several programs take parts of a tile's keys, a kernel combines them",
        0.005,
        "programs numbered by batches and heads along one axis of a grid of two, tiles by pointers",
        _edit_split_kv,
    ),
)
