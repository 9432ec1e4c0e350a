"""Instruction costs: which pipe of a streaming multiprocessor (SM) an instruction occupies, how long, and its latency.

Units are clocks; a pipe belongs to one of the SM's four sub-partitions unless it is the SM's. Rates and latencies are
in ``constants`` and, where the vendor states them, in the target.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

from avo.evaluator.performance.banks import SHARED_ACCESS, WAVEFRONT
from avo.evaluator.performance.constants import Constants, constants_of
from avo.evaluator.performance.mbarriers import EXPECTING, ORDERED, scan
from avo.evaluator.performance.sass import Instruction
from avo.evaluator.performance.structure import MATRIX, SINGLE_ISSUE, SPILLS
from avo.evaluator.target import Target

PARTITIONS = 4
"""Sub-partitions of an SM, each with a scheduler."""
SCOREBOARDS = 6
"""Scoreboard barriers of a warp."""
_MOST_LEFT = 63
"""More than a wait can leave outstanding: its field has six bits."""


class Pipe(IntEnum):
    """The hardware unit that an instruction occupies."""

    NONE = 0
    FMA = 1
    ALU = 2
    EXP = 3
    TENSOR = 4
    TENSOR_MEMORY = 5
    SHARED = 6
    """Shared memory of the SM."""
    LSU = 7
    """The SM's load-store path: global and local memory, and the port to L2."""
    TENSOR_SM = 8
    """The SM's tensor cores that work on tensor memory (sm_100)."""


PIPE_NAMES = {pipe: pipe.name.lower().removesuffix("_sm") for pipe in Pipe if pipe}
"""Names of pipes in reports."""


class Kind(IntEnum):
    """How an instruction is played."""

    MARK = -1
    """No instruction: a place in a stream whose time is recorded."""
    PLAIN = 0
    CTA_BARRIER = 1
    WGMMA = 2
    WGMMA_WAIT = 3
    COPY = 4
    """Asynchronous copy to shared memory by a warp."""
    COPY_COMMIT = 5
    COUNT_WAIT = 6
    """Waits until at most this many of a scoreboard barrier's operations are outstanding."""
    BULK_COPY = 7
    """Asynchronous copy to shared memory by the tensor memory accelerator."""
    TENSOR_MMA = 8
    """Matrix product on tensor memory, issued by one thread for its CTA."""
    TENSOR_COMMIT = 9
    MBARRIER_WAIT_COPY = 10
    MBARRIER_WAIT_TENSOR = 11
    """Waits for all products committed so far."""
    MBARRIER_WAIT_ROLE = 12
    """Waits for another role's signal at a known mbarrier."""
    MBARRIER_ARRIVE = 13
    MBARRIER_INIT = 14
    """Begins the phases of an mbarrier anew."""


@dataclass(slots=True)
class Op:
    """One instruction as it is played. Once it is made nobody changes it.

    It is not frozen: a kernel's first prediction makes tens of thousands, and frozen ones take much longer to make.
    """

    kind: Kind = Kind.PLAIN
    pipe: Pipe = Pipe.NONE
    busy: float = 0.0
    """Clocks the pipe is occupied."""
    latency: float = 0.0
    """Clocks from the end of ``busy`` to the result."""
    shared: float = 0.0
    """Clocks of the SM's shared memory that a matrix product's operands take, or what a copy writes. For products on
    tensor memory, ``busy`` is no less: those of two operands there with N below 128 were measured to be bound so
    (SemiAnalysis, "Dissecting Nvidia Blackwell", March 2026)."""
    l2: float = 0.0
    """Clocks that the bytes take of the SM's share of L2 when all SMs ask for as much."""
    stall: int = 1
    waits: int = 0
    """The scoreboard barriers that are waited for, a bit for each."""
    write_barrier: int = 7
    read_barrier: int = 7
    count: int = 0
    """A count whose meaning depends on the instruction.

    For a counted wait: operations that may stay outstanding. For a warpgroup's product: 1 if it ends a group. For a
    bulk copy: the number of copies that one phase of its mbarrier counts. For a wait for a role: slots of the ring.
    For a barrier: 1 if all roles of the CTA meet there.
    """
    leader: bool = False
    """Issued by one warp of the CTA only."""
    flops: float = 0.0
    """FLOPs of a matrix product, per warp, or per CTA on tensor memory."""
    index: int = -1
    """Index of the instruction in its code."""
    mbarrier: int = ORDERED
    """Name of the mbarrier that is waited for, arrived at, or that counts the copied bytes."""
    queue: float = 0.0
    """Clocks of work that the pipe accepts ahead of time; without it, the warp is held until the pipe is free."""
    in_turn: bool = False
    """Whether warps that wait for the pipe are served in the order in which they asked."""
    read_latency: float = 0.0
    """Clocks from the end of ``busy`` until the operands have been read."""


OPERAND_RATE = {"E4M3": 2.0, "E5M2": 2.0, "U8": 2.0, "S8": 2.0, "TF32": 0.5}
"""Tensor rate relative to that of 16-bit operands (whitepapers)."""

_PRODUCT_DEPTH = 32
"""Bytes along K that one wgmma or tcgen05.mma covers (PTX ISA)."""
_SHAPE = re.compile(r"(\d+)x(\d+)x(\d+)")
_FUSED_SHAPE = re.compile(r"\.(\d{4,5})(?:\.|$)")
_FUSED = {"16816": (16, 8, 16), "1688": (16, 8, 8), "16832": (16, 8, 32), "16864": (16, 8, 64), "884": (8, 8, 4)}
_COUNT = re.compile(r"(0x[0-9a-f]+|\d+)\s*$")
_WIDTH = re.compile(r"\.(?:x)?(\d+)(?:\.|$)")
_EXP = ("MUFU", "I2F", "F2I", "F2F", "FRND", "POPC", "FLO", "BREV")
_SHUFFLES = frozenset({"SHFL", "REDUX", "MATCH"})
_ALU = frozenset(
    {
        *("LOP3", "LOP", "LOP32I", "SHF", "SHL", "SHR", "ISETP", "FSETP", "SEL", "FSEL", "FMNMX", "FMNMX3", "IMNMX"),
        *("PRMT", "IADD3", "IADD", "IADD32I", "LEA", "MOV", "MOV32I", "F2FP", "PLOP3", "P2R", "R2P", "VIADD"),
        *("VIMNMX", "VIMNMX3", "VIADDMNMX", "VHMNMX", "IABS", "SGXT", "BMSK", "FCHK", "I2FP", "F2IP", "I2IP"),
        *("HSETP2", "HMNMX2", "HSET2", "FSET", "ISET", "PSETP", "CS2R", "VABSDIFF", "ISCADD", "XMAD", "FSWZADD"),
    }
)


def _serialised(instructions: Iterable[Instruction]) -> frozenset[int]:
    """Return the indices of warpgroup products that follow a wait and are waited for before the next product."""
    found, alone, last = set(), False, -1
    for i in instructions:
        if i.base == "HGMMA":
            alone, last = last < 0, i.index
        elif i.base == "WARPGROUP" and "DEPBAR" in i.opcode:
            if alone and last >= 0:
                found.add(last)
            last = -1
    return frozenset(found)


def _arithmetic(target: Target, table: Constants) -> dict[str, tuple[Pipe, float, float]]:
    """Return pipe, clocks that it is occupied and latency of what only computes, by base."""
    single, integer = 32 * 4 / target.fp32_lanes, 32 * 4 / table.integer_lanes
    costs = (
        (("FFMA", "FMUL", "FADD", "FFMA32I", "FMUL32I", "FADD32I"), (Pipe.FMA, single, 0.0)),
        (("FFMA2", "FMUL2", "FADD2"), (Pipe.FMA, 2 * single, 0.0)),
        (("HFMA2", "HMUL2", "HADD2", "HFMA2_MMA", "HADD2_32I", "HMUL2_32I"), (Pipe.FMA, 1.0, 0.0)),
        (("DFMA", "DMUL", "DADD", "DSETP"), (Pipe.FMA, 4.0, 8.0)),
        (("IMAD", "IDP"), (Pipe.FMA, integer, 4.0)),
        (_ALU, (Pipe.ALU, integer, 4.0)),
        (_EXP, (Pipe.EXP, 32 * 4 / target.sfu_lanes, table.exp_latency)),
    )
    return {base: cost for bases, cost in costs for base in bases}


class Costs:
    """Turns instructions into ops for one kernel on one target."""

    issue_clocks = 1.0
    """Clocks for which an instruction occupies its scheduler."""

    def __init__(
        self,
        instructions: Iterable[Instruction],
        target: Target,
        table: Constants | None = None,
        wavefronts: Mapping[int, float] = MappingProxyType({}),
    ) -> None:
        """``wavefronts`` are those of each access to shared memory, if known; see ``banks``."""
        self.target = target
        self.table = table or constants_of(target)
        instructions = tuple(instructions)
        self.code = scan(instructions)
        self.specialised = any(i.base == "USETMAXREG" for i in instructions)
        self.serialised = _serialised(instructions)
        self.wavefronts = wavefronts
        self.arithmetic = _arithmetic(target, self.table)
        self.settled: dict[int, Op] = {}
        """Ops of what only computes, for all who share the instructions and ``arithmetic``."""
        self.l1_missed: Mapping[int, float] = {}
        self.spills_missed = 0.0
        self.known: dict[int, Op] = {}
        self.unknown: set[int] = set()
        """Indices of the requested instructions whose costs are guessed."""
        self.unfollowed: set[int] = set()
        """Indices of the requested accesses to shared memory with unknown bank conflicts."""

    def under(self, table: Constants, l1_missed: Mapping[int, float], spills_missed: float) -> "Costs":
        """Return the costs of the same instructions with other constants.

        ``l1_missed`` has how often loads miss L1, by index, where not always; ``spills_missed`` how often accesses to
        spilled registers do.
        """
        other = copy(self)
        other.table, other.l1_missed, other.spills_missed = table, l1_missed, spills_missed
        other.known, other.unknown, other.unfollowed = {}, set(), set()
        other.arithmetic = _arithmetic(self.target, table)
        if other.arithmetic != self.arithmetic:
            other.settled = {}
        return other

    def op(self, instruction: Instruction) -> Op:
        """Return how ``instruction`` is played."""
        op = self.known.get(instruction.index)
        if op is None:
            op = self.known[instruction.index] = self._op(instruction)
        return op

    def _op(self, i: Instruction) -> Op:
        if op := self.settled.get(i.index):
            return op
        arithmetic = self.arithmetic.get("IMAD" if i.base.startswith("IMAD") else i.base)
        if i.predicate == "!PT":
            op = Op()  # issued, and does nothing
        elif arithmetic:
            op = Op(Kind.PLAIN, *arithmetic)
        elif family := _FAMILIES.get(i.base):
            op = family(self, i)
        elif i.base.startswith("U"):  # the uniform datapath: its stall counts say all
            op = Op()
        else:
            op = Op(Kind.PLAIN, *self.arithmetic["IADD3"])  # a guess
            self.unknown.add(i.index)
        op.index, op.stall, op.waits, op.read_barrier = i.index, max(1, i.stall), i.wait_mask, i.read_barrier
        if op.kind != Kind.COUNT_WAIT:
            op.write_barrier = i.write_barrier
        if i.read_barrier < SCOREBOARDS:
            op.read_latency = self.table.operands_read
        elif arithmetic:
            self.settled[i.index] = op
        return op

    def _product(self, i: Instruction) -> Op:
        rate = self.target.tensor_flop * next((r for name, r in OPERAND_RATE.items() if f".{name}" in i.opcode), 1.0)
        if self.target.fp32_sums_at_half_rate and ".F32" not in i.opcode:
            rate *= 2
        latency = self.table.wgmma_latency
        if i.base in SINGLE_ISSUE:
            m, n, k = _decode(self.code.descriptors.get(i.index, 0), i.base)
            flops = 2.0 * m * n * k
            rows = n + (m if i.operands.startswith("gdesc") else 0)  # of B, and of A unless it is in tensor memory
            if ".2CTA" in i.opcode:  # two SMs do half of it each, and each reads half of both operands
                flops, rows = flops / 2, rows // 2
            shared = rows * _PRODUCT_DEPTH / self.table.shared_bytes
            op = Op(Kind.TENSOR_MMA, Pipe.TENSOR_SM, max(flops / rate, shared), latency, shared)
            op.leader, op.queue = True, math.inf
        elif shape := _SHAPE.search(i.opcode):  # a warpgroup's product: each of its four warps accounts for a quarter
            m, n, k = (int(size) for size in shape.groups())
            flops = 2.0 * m * n * k / 4
            rows = n + (m if "gdesc" in i.operands.split(",")[1] else 0)  # of B, and of A unless it is in registers
            shared = rows * _PRODUCT_DEPTH / self.table.shared_bytes / 4
            op = Op(Kind.WGMMA, Pipe.TENSOR, flops / (rate / 4), latency, shared)
            op.queue, op.in_turn = self.table.wgmma_queue, self.table.wgmma_in_turn > 0.5
        else:
            fused = _FUSED_SHAPE.search(i.opcode)
            m, n, k = _FUSED.get(fused[1] if fused else "", (16, 8, 16))
            flops = 2.0 * m * n * k
            op = Op(Kind.PLAIN, Pipe.TENSOR, flops / (rate / 4 * self.table.mma_sync_share), 16.0)
        op.busy += self.table.wgmma_drain if i.index in self.serialised else 0
        op.count, op.flops = int("gsb0" in i.operands), flops
        return op

    def _shared_access(self, i: Instruction) -> Op:
        latency = self.table.shuffle_latency if i.base in _SHUFFLES else self.table.shared_latency
        wavefronts = max(32 * i.lane_bytes / WAVEFRONT, self.wavefronts.get(i.index, 1.0))
        if i.base in SHARED_ACCESS and i.index not in self.wavefronts:
            self.unfollowed.add(i.index)
        busy = wavefronts * WAVEFRONT / self.table.shared_bytes
        return Op(Kind.PLAIN, Pipe.SHARED, busy, latency, queue=self.table.memory_queue)

    def _global_access(self, i: Instruction) -> Op:
        table, moved = self.table, 32 * i.lane_bytes
        busy, l2, latency = moved / table.shared_bytes, moved / table.l2_bytes, table.global_latency
        if (missed := self.l1_missed.get(i.index, 1.0)) < 1:
            l2, latency = missed * l2, table.l1_latency + missed * (table.global_latency - table.l1_latency)
        if i.base == "LDGSTS":
            return Op(Kind.COPY, Pipe.LSU, busy, latency, busy, l2, queue=table.memory_queue)
        return Op(Kind.PLAIN, Pipe.LSU, busy, latency, l2=l2, queue=table.memory_queue)

    def _spill(self, i: Instruction) -> Op:
        table, moved, missed = self.table, 32 * i.lane_bytes, self.spills_missed
        latency = table.l1_latency + missed * (table.l2_hit_latency - table.l1_latency)
        op = Op(Kind.PLAIN, Pipe.LSU, moved / table.shared_bytes, latency, l2=missed * moved / table.l2_bytes)
        op.queue = table.memory_queue
        return op

    def _bulk_copy(self, i: Instruction) -> Op:
        table, copied = self.table, self.code.bytes.get(i.index, 0.0)
        op = Op(Kind.BULK_COPY, latency=table.global_latency, leader=True)
        op.shared, op.l2 = copied / table.shared_bytes, copied / table.l2_bytes
        op.mbarrier, op.count = self.code.names.get(i.index, ORDERED), self.code.copies.get(i.index, 1)
        return op

    def _group(self, i: Instruction) -> Op:
        """Return what ends a group of copies, or waits for groups of copies or products."""
        if i.base == "LDGDEPBAR":
            return Op(Kind.COPY_COMMIT)
        if i.opcode.startswith("DEPBAR.LE"):
            barrier, _, most = i.operands.partition(",")
            count = min(max(0, int(most.split(",")[0], 0)), _MOST_LEFT)
            return Op(Kind.COUNT_WAIT, write_barrier=range(SCOREBOARDS)[int(barrier.strip()[2:])], count=count)
        if i.base == "WARPGROUP" and "DEPBAR" in i.opcode:
            outstanding = _COUNT.search(i.operands)
            return Op(Kind.WGMMA_WAIT, count=min(int(outstanding[1], 0), _MOST_LEFT) if outstanding else 0)
        return Op()

    def _cta_barrier(self, i: Instruction) -> Op:
        if "SYNC" not in i.opcode and "RED" not in i.opcode:
            return Op()
        return Op(Kind.CTA_BARRIER, latency=self.table.barrier_latency, count=int(i.joins_all))

    def _mbarrier(self, i: Instruction) -> Op:
        name = self.code.names.get(i.index)
        if i.base == "UTCBAR":
            return Op(Kind.TENSOR_COMMIT, leader=True, mbarrier=ORDERED if name is None else name)
        if i.opcode.startswith("SYNCS.EXCH"):
            return Op(Kind.MBARRIER_INIT, latency=self.table.fence_latency, mbarrier=self.code.names[i.index])
        if name is None or i.opcode in EXPECTING:
            return Op(latency=self.table.fence_latency)
        op = Op(Kind.MBARRIER_WAIT_TENSOR, latency=self.table.mbarrier_latency, mbarrier=name)
        if "PHASECHK" not in i.opcode:
            op.kind, op.leader = Kind.MBARRIER_ARRIVE, bool(i.predicate)  # with a guard, one warp does it for its team
        elif name in self.code.copied:
            op.kind = Kind.MBARRIER_WAIT_COPY
        elif self.specialised and name in self.code.arrived:
            op.kind, op.count = Kind.MBARRIER_WAIT_ROLE, self.code.depths.get(name, 1)
        return op

    def _tensor_memory(self, i: Instruction) -> Op:
        width = _WIDTH.search(i.opcode)
        busy = 32 * 4 * int(width[1] if width else 1) / self.table.tensor_memory_bytes
        return Op(Kind.PLAIN, Pipe.TENSOR_MEMORY, busy, self.table.tensor_memory_latency)


_FAMILIES: dict[str, Callable[[Costs, Instruction], Op]] = {
    base: family
    for bases, family in (
        (MATRIX, Costs._product),
        (SHARED_ACCESS | _SHUFFLES | {"ATOMS"}, Costs._shared_access),
        (("LDG", "LDGSTS", "STG", "LD", "ST", "ATOM", "ATOMG", "RED", "REDG"), Costs._global_access),
        (SPILLS, Costs._spill),
        (("UTMALDG", "UBLKCP"), Costs._bulk_copy),
        (
            ("UTMASTG", "UTMACMDFLUSH", "UTMAREDG", "UTMAPF", "UTMACCTL", "UBLKPF", "UBLKRED"),
            lambda costs, _: Op(latency=costs.table.global_latency, leader=True),
        ),
        (("LDGDEPBAR", "DEPBAR", "WARPGROUP"), Costs._group),
        (("BAR",), Costs._cta_barrier),
        (("UTCBAR", "SYNCS"), Costs._mbarrier),
        (("LDTM", "STTM"), Costs._tensor_memory),
        (("MEMBAR", "FENCE", "UTCATOMSWS"), lambda costs, _: Op(latency=costs.table.fence_latency)),
        (
            ("LDC", "ULDC", "LDCU", "S2R", "S2UR", "CS2UR", "R2UR"),
            lambda costs, _: Op(latency=costs.table.constant_latency),
        ),
        (
            ("NOP", "BRA", "BRX", "BRXU", "JMP", "EXIT", "RET", "CALL", "BPT", "BSSY", "BSYNC", "WARPSYNC", "YIELD"),
            lambda *_: Op(),
        ),
        (("ERRBAR", "ELECT", "VOTE", "VOTEU", "CCTL", "CCTLL", "NANOSLEEP", "ENDCOLLECTIVE", "LEPC"), lambda *_: Op()),
        (("BREAK", "BMOV", "PREEXIT", "ACQBULK", "SETCTAID"), lambda *_: Op()),
    )
    for base in bases
}
"""The costs of what does more than compute, or no more than issue, by base."""

AT_MBARRIERS = frozenset(base for base, family in _FAMILIES.items() if family in (Costs._mbarrier, Costs._bulk_copy))
"""Instructions that may wait or arrive at an mbarrier, by base."""


def _decode(descriptor: int, base: str) -> tuple[int, int, int]:
    """Return the shape of a tcgen05.mma from its instruction descriptor.

    N/8 is in bits 17-22, M/16 in bits 24-28 (PTX ISA 8.6, "tcgen05 instruction descriptor"); K is 32 bytes. If the
    descriptor is unknown, it is the largest shape of one CTA.
    """
    k = 16 if base == "UTCHMMA" else 32
    return (16 * (descriptor >> 24 & 31), 8 * (descriptor >> 17 & 63), k) if descriptor else (128, 256, k)
