"""Control flow: a kernel's blocks, its natural loops, and the path through them that is played.

Where code branches, the path takes the side with more work: a kernel is never credited with skipping what it may have
to execute. Loops that only poll (an mbarrier, registers) are passed once: what they wait for is modelled instead.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import dropwhile

from avo.evaluator.performance.sass import Code, Instruction, ModelError
from avo.evaluator.work import Pace, Paces, Shares

SINGLE_ISSUE = frozenset({"UTCHMMA", "UTCQMMA", "UTCIMMA", "UTCOMMA"})
"""Matrix products that one thread issues for its CTA."""
MATRIX = SINGLE_ISSUE | {"HGMMA", "HMMA", "IGMMA", "QGMMA", "IMMA", "QMMA", "OMMA"}
"""Instructions that multiply matrices."""
_WORK = frozenset({"LDG", "LDGSTS", "STG", "FFMA", "FMUL", "FADD", "MUFU", "UTMALDG", "LDL", "STL"}) | MATRIX
_POLLS = frozenset({"SYNCS", "USETMAXREG", "UTCATOMSWS"})
"""Opcodes that ask for what another warp gives: a phase of an mbarrier, registers, tensor memory."""
_LONGEST_POLL = 24
"""Most instructions of a loop that only polls."""
SPILLS = frozenset({"LDL", "STL"})
"""Accesses to local memory, as to spilled registers."""
_TARGET = re.compile(r"`\(([.$\w]+)\)")
_TABLE = re.compile(r'BRANCH_TARGETS ([^"]+)"')
_WEIGHTS = dict.fromkeys(MATRIX, 64) | {"MUFU": 8}
"""About how many plain instructions take as long; MUFU has an eighth of their rate."""
_LOOP_WEIGHT = 16
_THROUGH = 1_000_000
"""More than all other code of a kernel weighs."""
_Choice = Callable[..., tuple[float, int | None]]
LITTLE = 0.05
"""A smaller share of a loop's instructions is not worth a price of its own."""


@dataclass(frozen=True, eq=False)
class Loop:
    """A loop and the path through its body: instructions and inner loops. Equal only to itself."""

    address: int
    items: "tuple[Instruction | Loop, ...]"
    dispatch: bool
    """Whether this is the loop in which idle warps of a warp-specialised kernel wait for their role."""
    light: "tuple[Instruction, ...] | None" = None
    """The path with least work, where the body branches around some and no loop is inside."""
    entered: float = 0.0
    """Share of the passes, 0 to 1, that make a good part of what the lightest path leaves out, as far as known."""
    lines: tuple[int, ...] = ()
    """The lines of IR that the jumps back to its beginning were made from, as far as known."""
    roles: "tuple[tuple[Instruction | Loop, ...], ...]" = ()
    """For a dispatch loop: the pass through its body of each role that has loops, those that it may miss at the end."""

    @cached_property
    def own(self) -> tuple[Instruction, ...]:
        """The body's instructions outside inner loops."""
        return tuple(item for item in self.items if isinstance(item, Instruction))

    @cached_property
    def inner(self) -> "tuple[Loop, ...]":
        """The loops directly inside this one."""
        return tuple(item for item in self.items if isinstance(item, Loop))

    def tree(self) -> "Iterator[Loop]":
        """This loop and all loops inside it, outer before inner."""
        yield self
        for loop in self.inner:
            yield from loop.tree()


@dataclass(frozen=True)
class Structure:
    """The part of a kernel that is played."""

    items: tuple[Instruction | Loop, ...]
    """The path from entry to exit."""
    aside: tuple[Loop, ...]
    """Outermost loops that are not on the path."""
    paces: Paces = ()
    """Which loops roles pass at another pace than the leading one."""

    def pace(self, loop: Loop) -> Pace:
        """Return how often a role passes a loop for each pass of the loop that it is counted in."""
        holding = [(len(lines), pace) for lines, pace in self.paces if loop.lines and loop.lines[-1] in lines]
        return min(holding)[1] if holding else Pace()

    @cached_property
    def outside(self) -> tuple[Instruction, ...]:
        """The path's instructions outside loops."""
        return tuple(item for item in self.items if isinstance(item, Instruction))

    @property
    def top(self) -> tuple[Loop, ...]:
        """All outermost loops, in address order."""
        loops = [item for item in self.items if isinstance(item, Loop)]
        return tuple(sorted([*loops, *self.aside], key=lambda loop: loop.address))

    @property
    def dispatches(self) -> bool:
        """Whether its warps have roles."""
        return any(loop.dispatch for top in self.top for loop in top.tree())


class Graph:
    """Basic blocks of a code, named by the index of their first instruction."""

    def __init__(self, code: Code, shares: Shares = ()) -> None:
        """Code that ``shares`` says is passed by weighs less where a way through it is chosen."""
        self.code, self.shares = code, shares
        self.size = len(code.instructions)
        self.weights = [_WEIGHTS.get(i.base, 1) * _share(i.line, shares) for i in code.instructions]
        starts = {0, *(index for index in code.labels.values() if index < self.size)}
        starts |= {i + 1 for i, instruction in enumerate(code.instructions) if self._ends(instruction)}
        self.starts = sorted(index for index in starts if index < self.size)
        self.stop = dict(zip(self.starts, [*self.starts[1:], self.size], strict=True))
        self.successors = {start: self._successors(start) for start in self.starts}
        self.callees: dict[int, tuple[Instruction | Loop, ...]] = {}

    def _callee(self, instruction: Instruction) -> int | None:
        """Entry of the function that a CALL calls. A CALL to a local label is a far jump, not a call."""
        target = _TARGET.search(instruction.operands)
        if instruction.base != "CALL" or target is None or target[1].startswith(".L"):
            return None
        return self.code.labels.get(target[1])

    def _ends(self, instruction: Instruction) -> bool:
        if instruction.base == "CALL":
            target = _TARGET.search(instruction.operands)
            return target is not None and target[1].startswith(".L")
        return instruction.base in {"BRA", "BRX", "BRXU", "JMP", "EXIT", "RET", "BPT"}

    def _successors(self, start: int) -> tuple[int, ...]:
        stop = self.stop[start]
        last = self.code.instructions[stop - 1]
        after = (stop,) if stop < self.size else ()
        if not self._ends(last):
            return after
        if last.base in {"EXIT", "RET", "BPT"}:
            return after if last.predicate else ()
        table = _TABLE.search(last.operands)
        names = table[1].split(",") if table else _TARGET.findall(last.operands)
        targets = tuple(self.code.labels[name.strip()] for name in names if name.strip() in self.code.labels)
        conditional = bool(last.predicate) or not last.operands.lstrip().startswith("`")
        return (after if conditional and last.base not in {"BRX", "BRXU"} else ()) + targets

    def exits(self, block: int) -> bool:
        return self.code.instructions[self.stop[block] - 1].base in {"EXIT", "RET"}

    def order(self, entry: int) -> list[int]:
        """Return the blocks reachable from ``entry``, each before those after it but for the jumps of loops."""
        seen, order, stack = {entry}, [], [(entry, iter(self.successors[entry]))]
        while stack:
            block, rest = stack[-1]
            for successor in rest:
                if successor not in seen:
                    seen.add(successor)
                    stack.append((successor, iter(self.successors[successor])))
                    break
            else:
                order.append(block)
                stack.pop()
        return order[::-1]

    def structure(self, entry: int) -> Structure:
        """Return what is played from ``entry`` on; raise ``ModelError`` if no path leads from there to an exit."""
        order = self.order(entry)
        nest = _Nest(self, order, self._natural_loops(entry, order))
        for header in nest.headers:  # inner before outer
            nest.add(header)
        return Structure(*nest.path(_Region(entry, frozenset(order), nest.children(None))))

    def _natural_loops(self, entry: int, order: list[int]) -> dict[int, set[int]]:
        """Return the blocks of each natural loop by header; loops that share a header are one."""
        predecessors: dict[int, list[int]] = {block: [] for block in order}
        for block in order:
            for successor in self.successors[block]:
                predecessors[successor].append(block)
        dominator = _dominators(order, predecessors)
        bodies: dict[int, set[int]] = {}
        for block in order:
            for header in self.successors[block]:
                above = block
                while above not in (header, entry):
                    above = dominator[above]
                if above != header:
                    continue
                body = bodies.setdefault(header, {header})
                stack = [block]
                while stack:
                    node = stack.pop()
                    if node not in body:
                        body.add(node)
                        stack.extend(predecessors[node])
        return bodies

    def instructions(self, block: int) -> Iterator[Instruction | Loop]:
        """Yield a block's instructions, and after a call what the function does."""
        for instruction in self.code.instructions[block : self.stop[block]]:
            yield instruction
            callee = self._callee(instruction)
            if callee is not None:
                if callee not in self.callees:
                    self.callees[callee] = ()  # recursion is played once
                    try:
                        self.callees[callee] = self.structure(callee).items
                    except ModelError:  # a trap: it does not return
                        continue
                yield from self.callees[callee]


def _dominators(order: list[int], predecessors: Mapping[int, list[int]]) -> dict[int, int]:
    """Return the dominator next to each block (Cooper, Harvey, Kennedy, "A Simple, Fast Dominance Algorithm", 2001)."""
    position = {block: i for i, block in enumerate(order)}
    dominator = {order[0]: order[0]}
    changed = True
    while changed:
        changed = False
        for block in order[1:]:
            known = [p for p in predecessors[block] if p in dominator]
            new = known[0]
            for other in known[1:]:
                while new != other:
                    if position[new] > position[other]:
                        new = dominator[new]
                    else:
                        other = dominator[other]
            if dominator.get(block) != new:
                dominator[block] = new
                changed = True
    return dominator


@dataclass(frozen=True)
class _Region:
    """Blocks through which a path is sought: to a jump back to ``latch_to``, or to an exit when that is None."""

    entry: int
    blocks: frozenset[int]
    children: tuple[int, ...]
    """The headers of the loops directly inside."""
    latch_to: int | None = None
    through: Collection[int] = ()
    """The loops to pass before all others."""


class _Nest:
    """The natural loops of a function, from the innermost on."""

    def __init__(self, graph: Graph, order: list[int], bodies: dict[int, set[int]]) -> None:
        self.graph, self.order, self.bodies = graph, order, bodies
        self.headers = sorted(bodies, key=lambda header: (len(bodies[header]), header))
        self.parent = {
            header: next((outer for outer in self.headers if outer != header and bodies[header] < bodies[outer]), None)
            for header in self.headers
        }
        self.loops: dict[int, Loop] = {}
        self.spins: set[int] = set()  # those that only poll

    def children(self, header: int | None) -> tuple[int, ...]:
        """Return the loops directly inside one, or the outermost ones."""
        return tuple(inner for inner in self.headers if self.parent[inner] == header)

    def add(self, header: int) -> None:
        """Make the loop of a header; those inside must have been made."""
        graph, body = self.graph, self.bodies[header]
        code, children = graph.code.instructions, self.children(header)
        whole = _Region(header, frozenset(body), children, header)
        items, missed = self.path(whole)
        own = [i for block in body for i in code[block : graph.stop[block]]]
        bases = {i.base for i in own}
        if len(own) <= _LONGEST_POLL and not children and bases & _POLLS and not bases & _WORK - SPILLS:
            self.spins.add(header)
        dispatch = self._dispatches(body.difference(*(self.bodies[child] for child in children)))
        light, entered = None, 0.0
        if header not in self.spins and self.spins.issuperset(children) and (path := self.path(whole, min)[0]) != items:
            light = tuple(item for item in path if isinstance(item, Instruction))
            entered = self._entered(items, light)
        ends = sorted(graph.stop[block] - 1 for block in body if header in graph.successors[block])
        lines = tuple(line for end in ends if (line := code[end].line))
        roles = self._roles(whole) if dispatch else ()
        self.loops[header] = Loop(code[header].address, (*items, *missed), dispatch, light, entered, lines, roles)

    def _roles(self, dispatch: _Region) -> tuple[tuple[Instruction | Loop, ...], ...]:
        """Return the pass of each role through a dispatch loop: by blocks that lead to its loops, or follow them."""
        header, blocks, roles = dispatch.entry, set(dispatch.blocks) - {dispatch.entry}, []
        for group in self._groups(blocks, [child for child in dispatch.children if child not in self.spins]):
            ahead = {block for block in blocks if not self._reached(block, blocks).isdisjoint(group)}
            region = frozenset(ahead.union({header}, *(self._reached(loop, blocks) for loop in group)))
            within = tuple(child for child in dispatch.children if child in region)
            passed, missed = self.path(_Region(header, region, within, header, group))
            roles.append((*passed, *missed))
        return tuple(roles)

    def _dispatches(self, blocks: set[int]) -> bool:
        """Whether idle warps wait for their role in a loop with these blocks outside inner ones.

        They meet the others at a barrier and then read their role, one byte of shared memory (LDS.U8, as Triton 3.9
        lowers it). The loop in which the default role starts them has the barrier, but not the read.
        """
        found = [[self.graph.code.instructions[i] for i in range(block, self.graph.stop[block])] for block in blocks]
        meets = [list(dropwhile(lambda i: not i.joins_all, block)) for block in found]
        reads = any(i.opcode.startswith("LDS.U8") for block in meets for i in block)
        return any(i.base == "USETMAXREG" for block in found for i in block) and (reads or not any(meets))

    def _entered(self, items: Sequence[Instruction | Loop], light: Sequence[Instruction]) -> float:
        """Return the share of the passes that reach more than ``LITTLE`` of a path's instructions, of those that a
        lighter path leaves out.

        Branches are told apart by lines of IR: the compiler may have copied what follows one into both its sides.
        """
        own = Counter(item.line for item in items if isinstance(item, Instruction))
        left_out = own - Counter(i.line for i in light)
        shares = sorted(
            (_share(line, self.graph.shares) for line in left_out.elements() if line is not None), reverse=True
        )
        return next(iter(shares[int(LITTLE * own.total()) :]), 0.0)

    def _groups(self, region: set[int], children: list[int]) -> list[list[int]]:
        """Return the loops in a region in groups: those of which one leads to the other within it."""
        reached = {child: self._reached(child, region) for child in children}
        groups: list[list[int]] = []
        for child in sorted(children):
            linked = [group for group in groups if any(i in reached[child] or child in reached[i] for i in group)]
            groups = [group for group in groups if group not in linked]
            groups.append(sorted([child, *(member for group in linked for member in group)]))
        return groups

    def _reached(self, start: int, region: set[int]) -> set[int]:
        found, stack = {start}, [start]
        while stack:
            more = region.intersection(self.graph.successors[stack.pop()]) - found
            found |= more
            stack += more
        return found

    def path(self, region: _Region, choose: _Choice = max) -> tuple[tuple[Instruction | Loop, ...], tuple[Loop, ...]]:
        """Return the heaviest acyclic path from a region's entry to its end, and the inner loops not on it.

        With ``min`` to choose, the lightest one, which passes no poll.
        """
        node_of = {block: child for child in region.children for block in self.bodies[child]}
        following = self._ways(region, node_of, choose)
        node: int | None = node_of.get(region.entry, region.entry)
        if node not in following:
            address = self.graph.code.instructions[region.entry].address
            raise ModelError(f"no path leads from {address:#x} to the end of its region")
        items: list[Instruction | Loop] = []
        passed = set()
        while node is not None:
            passed.add(node)
            if node in region.children:
                items += self.loops[node].items if node in self.spins else (self.loops[node],)
            else:
                items += self.graph.instructions(node)
            node = following[node]
        passed |= self.spins
        return tuple(items), tuple(self.loops[child] for child in sorted(region.children) if child not in passed)

    def _ways(self, region: _Region, node_of: Mapping[int, int], choose: _Choice) -> dict[int, int | None]:
        """Return what follows each node, a block or an inner loop, on the chosen path to the end: None at the end."""
        graph, best = self.graph, dict[int, tuple[float, int | None]]()
        members: dict[int, list[int]] = {}
        for block in self.order:
            if block in region.blocks:
                members.setdefault(node_of.get(block, block), []).append(block)
        position = {node: i for i, node in enumerate(members)}
        for node in reversed(members):
            ends = any(
                graph.exits(block) if region.latch_to is None else region.latch_to in graph.successors[block]
                for block in members[node]
            )
            options: list[tuple[float, int | None]] = [(0, None)] if ends else []
            for block in members[node]:
                for successor in graph.successors[block]:
                    target = node_of.get(successor, successor)
                    polls = target in region.children and target in self.spins and choose is min
                    if target in best and position[target] > position[node] and not polls:
                        options.append((best[target][0], target))
            if options:
                weight, following = choose(options, key=lambda option: option[0])
                weight += self._weight(node, node in region.children)
                best[node] = (weight + _THROUGH * (node in region.through), following)
        return {node: following for node, (_, following) in best.items()}

    def _weight(self, node: int, is_loop: bool) -> float:
        if not is_loop:
            return sum(self.graph.weights[node : self.graph.stop[node]])
        if node in self.spins:
            return -1000
        return _LOOP_WEIGHT * sum(self.graph.weights[i.index] for loop in self.loops[node].tree() for i in loop.own)


def _share(line: int | None, shares: Shares) -> float:
    """Return the share of a line of IR; 1 where it is not known to be passed by."""
    holding = [(len(lines), share) for lines, share in shares if line in lines]
    return min(holding)[1] if holding else 1.0
