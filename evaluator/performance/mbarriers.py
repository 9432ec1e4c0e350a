"""What asynchronous work a kernel's code starts, and which mbarriers stand between it and those who wait for it.

An mbarrier is named by its constant offset in shared memory. In a loop, a register adds the slot of a ring of them; as
slots are taken in order, the n-th wait at a ring is for its n-th phase, and the ring's first slot is name enough. A
ring's slots are the initialised ones from its first on, to the next ring.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from avo.evaluator.performance.sass import Instruction
from avo.evaluator.performance.structure import SINGLE_ISSUE

ORDERED = -1
"""Stands for all mbarriers with unknown names; their phases are taken in order."""
_UNIFORM_CONSTANT = re.compile(r"^(UR\d+), (0x[0-9a-f]+)$")
_CONSTANT = re.compile(r"^(R\d+), (?:RZ, RZ, )?(0x[0-9a-f]+)$")
_DESCRIPTOR = re.compile(r"idesc\[(UR\d+)\]")
_ADDRESS = re.compile(r"\[([^\]]*?)\+?(0x[0-9a-f]+)?\]")
_SUM = re.compile(r"^(UR\d+), (?:UPT, UPT, |UP\d, )?(UR\d+), (0x[0-9a-f]{3,}), URZ")
_COPY = re.compile(r"^(U?R\d+), (?:RZ, RZ, )?(U?R\d+)$")
"""A copy of a register: where uniform registers run out, ptxas keeps one in a plain register and takes it back."""
_LEADERS = re.compile(r"^(UR\d+), (UR\d+), 0xfefffff[08], URZ, 0xc0,")
"""The same address in the CTA of a pair that issues the products of both: the bit that tells the CTA is cleared."""
EXPECTING = frozenset({"SYNCS.ARRIVE.TRANS64", "SYNCS.ARRIVE.TRANS64.RED"})
"""Arrivals that tell how many bytes to expect; those with a further suffix expect none."""
_SLOT = 8
"""Bytes of an mbarrier (PTX ISA 8.6, "mbarrier object")."""
_RING_ALIGNMENT = 16
"""Bytes to which Triton aligns what it allocates in shared memory."""


@dataclass(frozen=True)
class Asynchrony:
    """Facts by the index of the instruction they are about, or by the name of an mbarrier."""

    descriptors: Mapping[int, int]
    """Shapes of products on tensor memory (see ``pipes``)."""
    bytes: Mapping[int, float]
    """Bytes of bulk copies."""
    names: Mapping[int, int]
    """The mbarrier that an instruction initialises, waits for or arrives at, or that counts a bulk copy's bytes."""
    copies: Mapping[int, int]
    """For each bulk copy, the number of copies that one phase of its mbarrier counts."""
    depths: Mapping[int, int]
    """Number of slots of each ring with more than one."""
    copied: frozenset[int]
    """mbarriers that count bytes of copies."""
    arrived: frozenset[int]
    """mbarriers at which warps or products arrive."""


@dataclass
class _Scan:
    registers: dict[str, int] = field(default_factory=dict)
    sums: dict[str, tuple[str, int]] = field(default_factory=dict)
    """For each register that is a uniform one plus a constant, that register and the constant."""
    slots: dict[int, int] = field(default_factory=dict)
    """Offsets of initialised mbarriers by instruction."""
    bases: set[str] = field(default_factory=set)
    """Registers with which the slots were initialised."""
    uses: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Base register and offset by instruction."""

    def address(self, operand: str) -> tuple[str, int]:
        """Return base and constant offset of the address in ``operand``."""
        found = _ADDRESS.search(operand)
        base, offset = (found[1], int(found[2] or "0", 16)) if found else ("", 0)
        return self.sums.get(base, (base, 0)) if not offset else (base, offset)

    def compute(self, i: Instruction) -> None:
        """Follow constants and addresses through an instruction that computes them."""
        if i.base == "UMOV" and (constant := _UNIFORM_CONSTANT.match(i.operands)):
            if plausible(int(constant[2], 16)):
                self.registers[constant[1]] = int(constant[2], 16)
        elif i.base == "UIADD3" and (total := _SUM.match(i.operands)):
            self.sums[total[1]] = total[2], int(total[3], 16)
        elif i.base == "ULOP3" and (leader := _LEADERS.match(i.operands)):
            self.sums[leader[1]] = self.sums.get(leader[2], (leader[2], 0))
        elif i.base in {"MOV", "IMAD"} and (bytes_of := _CONSTANT.match(i.operands)):
            self.registers[bytes_of[1]] = int(bytes_of[2], 16)
        elif i.base in {"MOV", "IMAD", "R2UR"} and (copy := _COPY.match(i.operands)):
            if copy[2] in self.sums:
                self.sums[copy[1]] = self.sums[copy[2]]
            else:
                self.sums.pop(copy[1], None)


def scan(instructions: Iterable[Instruction]) -> Asynchrony:
    """Read off a kernel's code, in address order, what its asynchronous instructions do.

    A descriptor is the constant that its uniform register was last set to before the product. The bytes that an
    mbarrier expects are those of the bulk copies from the arrival that says so to the next one.
    """
    known = _Scan()
    descriptors: dict[int, int] = {}
    expected: dict[int, float] = {}  # bytes, by arrival
    groups: dict[int, list[int]] = {}  # bulk copies, by arrival
    arrivals: set[int] = set()
    for i in instructions:
        if i.base in SINGLE_ISSUE and (name := _DESCRIPTOR.search(i.operands)):
            descriptors[i.index] = known.registers.get(name[1], 0)
        elif i.opcode.startswith("SYNCS.EXCH"):
            base, offset = known.address(i.operands)
            known.slots[i.index] = offset
            known.bases.add(base)
        elif i.opcode in EXPECTING:
            known.uses[i.index] = known.address(i.operands)
            expected[i.index] = known.registers.get(i.operands.rpartition(",")[2].strip(), 0)
            last = groups[i.index] = []
        elif i.base in {"UTMALDG", "UBLKCP"} and groups:
            last.append(i.index)
        elif (i.base == "SYNCS" and ("PHASECHK" in i.opcode or "ARRIVE" in i.opcode)) or i.base == "UTCBAR":
            known.uses[i.index] = known.address(i.operands)
            if "PHASECHK" not in i.opcode:
                arrivals.add(i.index)
        else:
            known.compute(i)
    names, depths = _name(known, set(known.uses) - arrivals - set(groups))
    names.update({copy: names[arrival] for arrival, group in groups.items() for copy in group})
    return Asynchrony(
        descriptors,
        {copy: expected[arrival] / len(group) for arrival, group in groups.items() for copy in group},
        names,
        {copy: len(group) for group in groups.values() for copy in group},
        depths,
        frozenset(names[arrival] for arrival in groups),
        frozenset(names[arrival] for arrival in arrivals),
    )


def _name(known: _Scan, waits: set[int]) -> tuple[dict[int, int], dict[int, int]]:
    """Return the first slot of the ring that each instruction uses, and the slots of each ring.

    A ring is used with a register that moves: not the one that its slots were initialised with. Code before a loop may
    use its slots with that one too, but where one is both waited for and arrived at so, also for the bytes of a copy,
    it is an mbarrier by itself.
    """
    rings = sorted({offset for base, offset in known.uses.values() if base not in known.bases})
    fixed = {index: offset for index, (base, offset) in known.uses.items() if base in known.bases}
    single = {fixed[i] for i in fixed if i in waits} & {fixed[i] for i in fixed if i not in waits}
    single = {offset for offset in single if offset % _RING_ALIGNMENT == 0}
    ring_of = {}
    depths = {}
    slots = set(known.slots.values())
    taken = single.union(rings)
    for ring in rings:
        slot = ring
        while slot in slots and (slot == ring or slot not in taken):
            ring_of[slot] = ring
            slot += _SLOT
        depths[ring] = max(1, (slot - ring) // _SLOT)
    offsets = {**known.slots, **{index: offset for index, (_, offset) in known.uses.items()}}
    names = {index: ring_of.get(offset, offset) for index, offset in offsets.items()}
    return names, {ring: depth for ring, depth in depths.items() if depth > 1}


def plausible(value: int) -> bool:
    """Return whether a constant can be an instruction descriptor: a shape of tcgen05.mma and clear high bits."""
    m, n = value >> 24 & 31, value >> 17 & 63
    return value < 1 << 29 and m in (4, 8, 16) and 1 <= n <= 32
