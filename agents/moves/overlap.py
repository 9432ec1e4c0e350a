"""Moves that keep the tensor cores busy while exponentials are computed, with the next tile's or another's products."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from avo.agents.moves import tree
from avo.agents.moves.anatomy import Anatomy, Block, Loop, dissect, uses_descriptors
from avo.agents.moves.launch import TILE_SIZES, setting, with_knobs
from avo.agents.moves.move import Move
from avo.evaluator.target import Target

AHEAD = "ahead_"
"""Prefix of the names of scores that a loop computes one tile ahead."""
_RELIEVED = frozenset({"latency", "exp", "cta_barrier"})


def _edit_skew(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Compute the scores of the next tile before the softmax of this one."""
    every = [_skewed(anatomy, loop) for loop in anatomy.loops]
    if not every or every[0] is None or anatomy.specialised:
        return
    yield "scores of the next tile before this one's softmax", tree.replace(anatomy.module, every[0])
    if len(every) > 1 and all(every):
        edits = {node: new for skewed in every if skewed for node, new in skewed.items()}
        yield "scores of the next tile before this one's softmax, in every loop", tree.replace(anatomy.module, edits)


def _skewed(anatomy: Anatomy, loop: Loop) -> tree.Edits | None:
    """Return the loop with its first product one tile ahead; None where the operands of that product are not known."""
    body = [line for line in loop.node.body.body if isinstance(line, cst.BaseStatement)]
    product = tree.calls(loop.node.body, "tl.dot")[0]
    place = next((i for i, statement in enumerate(body) if product in tree.find(statement, cst.Call)), 0)
    statement = body[place]
    if not isinstance(statement, cst.SimpleStatementLine) or not isinstance(loop.node.body, cst.IndentedBlock):
        return None
    feeding = _feeding(loop, body[:place], product)
    carried_over = {name for line in body[:place] for name in tree.names(line)} & set(tree.assigned_names(statement))
    if feeding is None or carried_over:
        return None
    made = [name for line in feeding for name in tree.assigned_names(line)]
    ahead = tree.fresh(anatomy.module, f"{AHEAD}{loop.index}")
    current = tree.fresh(anatomy.module, f"product_{loop.index}")

    def moved(lines: Sequence[cst.BaseStatement], start: str, suffix: str) -> list[cst.BaseStatement] | None:
        renamed = {name: tree.fresh(anatomy.module, f"{name}_{suffix}") for name in made}
        guarded = [_guarded(anatomy, loop, line) for line in lines]
        if any(line is None for line in guarded):
            return None
        (dot,) = tree.statements(f"{ahead} = {tree.text(product)}\n")
        return [tree.with_names(line, {**renamed, loop.index: start}) for line in (*guarded, dot) if line is not None]

    first = moved(feeding, f"({loop.start})", "first")
    following = moved(feeding, f"({loop.index} + {loop.step})", "ahead")
    if first is None or following is None:
        return None
    rest = [line for i, line in enumerate(body) if i != place and line not in feeding]
    used = {
        name for line in (*rest, tree.replace(statement, {product: cst.Name(current)})) for name in tree.names(line)
    }
    kept = [line for line in body if line not in feeding or used & set(tree.assigned_names(line))]
    carried = tree.statements(f"{current} = {ahead}\n")
    new = [tree.replace(line, {product: cst.Name(current)}) if line is statement else line for line in kept]
    block = loop.node.body.with_changes(body=[*carried, *following, *new])
    return {loop.node: cst.FlattenSentinel([*first, loop.node.with_changes(body=block)])}


def _feeding(loop: Loop, before: Sequence[cst.BaseStatement], product: cst.Call) -> list[cst.BaseStatement] | None:
    """The statements of the loop that a product is made from, in order; None when other iterations have a part in it.

    They are plain assignments, or choices between two that are made when the kernel is compiled.
    """
    inside = {name for line in loop.node.body.body for name in tree.assigned_names(line)}
    needed = tree.names(product) & inside
    found: list[cst.BaseStatement] = []
    for line in reversed(before):
        names = set(tree.assigned_names(line))
        if not names & needed:
            continue
        if not _plain(line):
            return None
        found.insert(0, line)
        needed = (needed - names) | (tree.names(line) - names) & inside
    if needed:
        return None
    once = all(
        sum(name in tree.assigned_names(line) for line in loop.node.body.body) == 1
        for line in found
        for name in tree.assigned_names(line)
    )
    return found if once and found else None


def _plain(line: cst.BaseStatement) -> bool:
    if isinstance(line, cst.If):
        return tree.text(line.test).endswith("is not None") and isinstance(line.orelse, cst.Else)
    return tree.assignment(line) is not None


def _guarded(anatomy: Anatomy, loop: Loop, line: cst.BaseStatement) -> cst.BaseStatement | None:
    """Return the statement with loads that stay in bounds one tile after the loop's last; None if there is no way."""
    edits: dict[cst.CSTNode, tree.Replacement] = {}
    for load in tree.calls(line, "tl.load"):
        rows = [
            index
            for index in tree.find(load.args[0].value, cst.Subscript)
            if tree.text(index).endswith(("[None, :]", "[:, None]"))
            and isinstance(index.value, cst.Name)
            and anatomy.block(index.value) == Block.of(loop.index, loop.step)
        ]
        if len(rows) != 1:
            return None
        (row,) = rows
        inside = tree.text(row).replace(tree.text(row.value), f"({tree.text(row.value)} < {loop.stop})", 1)
        mask = tree.keyword(load, "mask")
        if mask is None:
            guarded = tree.with_keyword(tree.with_keyword(load, "mask", inside), "other", "0.0")
        elif tree.keyword(load, "other") is None:
            return None
        elif any(tree.is_name(c.left, tree.text(row.value)) for c in tree.find(mask.value, cst.Comparison)):
            continue
        else:
            guarded = tree.with_keyword(load, "mask", f"{inside} & ({tree.text(mask.value)})")
        edits[load] = guarded
    return tree.replace(line, edits)


def _edit_pingpong(anatomy: Anatomy, target: Target) -> Iterator[tuple[str, cst.Module]]:
    """Give each program two tiles of rows; the scores of both come before the softmax of the first."""
    if not anatomy.causal or (anatomy.specialised and not target.tensor_memory):
        return
    name = anatomy.causal[0].rows.count
    label, rows = "two tiles of rows a program", setting(anatomy, name)
    if rows and 2 * rows in TILE_SIZES and (changed := with_knobs(anatomy, {name: 2 * rows})):
        larger = dissect(changed[1].code)
        if larger and (module := _Pair(larger, name).module()):
            yield f"{label}, {changed[0][0]}", module
    if module := _Pair(anatomy, name).module():
        yield label, module


@dataclass(frozen=True)
class _Pair:
    """A kernel whose tile of rows becomes two halves."""

    anatomy: Anatomy
    rows: str
    """The constexpr with the number of rows."""

    def module(self) -> cst.Module | None:
        """Return the module; None where the statements of the two halves cannot be told apart."""
        anatomy, half = self.anatomy, tree.fresh(self.anatomy.module, f"HALF_{self.rows}")
        size = anatomy.arguments.get(self.rows)
        placed = [
            line
            for line in tree.find(anatomy.kernel.body, cst.SimpleStatementLine)
            if any(tree.text(arg.value) == self.rows for call in tree.calls(line, "tl.arange") for arg in call.args)
        ]
        found = tree.assignment(placed[0]) if len(placed) == 1 else None
        block = anatomy.block(cst.Name(found[0])) if found else None
        if found is None or block is None or size is None:
            return None
        halves = self._halves(found[0])
        if halves is None:
            return None
        first = block.first
        new = [
            *tree.statements(f"{found[0]} = {first} + tl.arange(0, {half})\n"),
            *tree.statements(f"{found[0]} = {first} + {half} + tl.arange(0, {half})\n"),
        ]
        others = {name: tree.fresh(anatomy.module, f"{name}_other") for name in halves}

        def doubled(statements: Sequence[cst.BaseStatement], walk: bool = False) -> list[cst.BaseStatement] | None:
            """Return each statement for the rows of one half, followed by the same statement for the other half."""
            both: list[cst.BaseStatement] = []
            late: list[cst.BaseStatement] = []
            seen = False
            for statement in statements:
                line = self._by_pointers(statement, halves)
                if isinstance(line, cst.For) and isinstance(line.body, cst.IndentedBlock):
                    parts = [part for part in line.body.body if isinstance(part, cst.BaseStatement)]
                    inner = doubled(parts, line in anatomy.walks)
                    if inner is None or tree.names(line.iter) & halves:
                        return None
                    both.append(line.with_changes(body=line.body.with_changes(body=inner)))
                    continue
                if line is placed[0]:
                    both += [new[0], tree.with_names(new[1], others)]
                    continue
                if not tree.names(line) & halves:
                    both.append(line)
                    continue
                halved = self._halved(line, half)
                if halved is None:
                    return None
                both.append(halved)
                # In a loop over keys the first half's softmax and second product go before the other half's.
                other = tree.with_names(halved, others).with_changes(leading_lines=())
                (late if walk and seen else both).append(other)
                seen = seen or bool(tree.calls(line, "tl.dot"))
            return both + late

        body = doubled([line for line in anatomy.kernel.body.body if isinstance(line, cst.BaseStatement)])
        if body is None:
            return None
        kernel = anatomy.kernel.with_changes(body=anatomy.kernel.body.with_changes(body=body))
        kernel = tree.with_parameters(kernel, (half,), constant=True)
        passed = tree.keyword_argument(half, f"({size}) // 2")
        launch = tree.with_arguments(anatomy.launch, [*anatomy.launch.args, passed])
        return tree.replace(anatomy.module, {anatomy.kernel: kernel, anatomy.launch: launch})

    def _halves(self, row: str) -> set[str] | None:
        """Return the names that each half needs for itself: the rows, what is computed from them, and what has an
        element per row.
        """
        lines = tree.find(self.anatomy.kernel.body, cst.SimpleStatementLine)
        found = {row}
        while True:
            more = {
                assigned[0]
                for line in lines
                if (assigned := tree.assignment(line)) and (tree.names(assigned[1]) & found or self._sized(assigned[1]))
            } - found
            if not more:
                break
            found |= more
        # Names that are assigned in another way, or serve both halves, cannot be doubled.
        plain = sum(len(tree.assignments(self.anatomy.kernel.body, name)) for name in found)
        known = sum(assigned[0] in found for line in lines if (assigned := tree.assignment(line)))
        return found if plain == known and not found & set(self.anatomy.parameters) else None

    def _by_pointers(self, line: cst.BaseStatement, halves: set[str]) -> cst.BaseStatement:
        """Return the access by pointers that is an alternative to one by a descriptor, whose tile would be too large
        for a half.
        """
        if isinstance(line, cst.If) and tree.text(line.test).endswith("is not None") and tree.names(line) & halves:
            block = line.orelse.body if isinstance(line.orelse, cst.Else) else None
            if isinstance(block, cst.IndentedBlock) and len(block.body) == 1:
                return block.body[0] if isinstance(block.body[0], cst.BaseStatement) else line
        return line

    def _sized(self, value: cst.BaseExpression) -> bool:
        calls = (*tree.calls(value, "tl.full"), *tree.calls(value, "tl.zeros"))
        return any(self.rows in tree.names(call) for call in calls)

    def _halved(self, line: cst.BaseStatement, half: str) -> cst.BaseStatement | None:
        """Return the statement with blocks of half as many rows; None if it uses the number of rows otherwise."""
        calls = (*tree.calls(line, "tl.full"), *tree.calls(line, "tl.zeros"))
        shapes = [call.args[0].value for call in calls if call.args]
        edits: dict[cst.CSTNode, tree.Replacement] = {
            name: cst.Name(half) for shape in shapes for name in tree.find(shape, cst.Name) if name.value == self.rows
        }
        everywhere = sum(name.value == self.rows for name in tree.find(line, cst.Name))
        return tree.replace(line, edits) if everywhere == len(edits) and not uses_descriptors(line) else None


OVERLAP_MOVES = (
    Move(
        "skew",
        "the next tile's scores need nothing of this tile: tensor cores compute them while exponentials are computed",
        0.02,
        "a loop over keys whose scores are made of that tile's keys alone, and no roles for its warps",
        _edit_skew,
        _RELIEVED,
        each=True,
    ),
    Move(
        "pingpong",
        "with two tiles of rows, one can be in its softmax while the other's products keep the tensor cores busy",
        0.05,
        "a causal mask, rows placed once, and on Hopper no roles for warps",
        _edit_pingpong,
        _RELIEVED | {"l2", "shared", "lsu"},
    ),
)
