"""Instruction costs: which pipe of a streaming multiprocessor (SM) an instruction occupies, how long, and its latency.

Units are clocks; a pipe belongs to one of the SM's four sub-partitions unless it is the SM's.

Sources of the throughputs: CUDA C++ Programming Guide, "Arithmetic Instructions" (results per clock and SM by compute
capability), and the architecture whitepapers named by the targets. Latencies: Luo et al., "Dissecting the NVIDIA Hopper
Architecture through Microbenchmarking and Multiple Level Analysis" (arXiv:2501.12084) and Jia et al. (2018) for what
has not changed since Volta. What is marked "estimate" has no published figure known to us.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from evaluator.performance.sass import Instruction
from evaluator.performance.structure import MATRIX, SINGLE_ISSUE
from evaluator.target import Target


class Pipe(IntEnum):
    """What an instruction occupies."""

    NONE = 0
    FMA = 1
    ALU = 2
    EXP = 3
    TENSOR = 4
    TENSOR_MEMORY = 5
    SHARED = 6
    """Of the SM."""
    LSU = 7
    """Of the SM: global and local memory, and the port to L2."""
    TENSOR_SM = 8
    """Of the SM: tensor cores that work on tensor memory (sm_100)."""


class Kind(IntEnum):
    """How an instruction takes part in the play."""

    PLAIN = 0
    CTA_BARRIER = 1
    WGMMA = 2
    WGMMA_WAIT = 3
    COPY = 4
    """Asynchronous copy to shared memory by a warp."""
    COPY_COMMIT = 5
    COUNT_WAIT = 6
    """Waits until at most so many of a scoreboard barrier's operations are outstanding."""
    BULK_COPY = 7
    """Asynchronous copy to shared memory by the tensor memory accelerator."""
    TENSOR_MMA = 8
    """Matrix product on tensor memory, issued by one thread for its CTA."""
    TENSOR_COMMIT = 9
    MBARRIER_WAIT_COPY = 10
    MBARRIER_WAIT_TENSOR = 11


@dataclass(frozen=True, slots=True)
class Op:
    """One instruction as it is played."""

    kind: Kind
    pipe: Pipe
    busy: float
    """Clocks the pipe is occupied."""
    latency: float
    """Clocks from the end of ``busy`` to the result."""
    shared: float
    """Clocks of the SM's shared memory that a matrix product's operands take."""
    l2: float
    """Clocks that the bytes take of the SM's share of L2 while all SMs ask for as much."""
    stall: int
    waits: tuple[int, ...]
    write_barrier: int
    read_barrier: int
    count: int
    """Of a counted wait: operations that may stay outstanding. Of a warpgroup's product: 1 when it ends a group."""
    leader: bool
    """Issued by one warp of the CTA only."""
    flops: float
    """Of a matrix product, for the warp (or the CTA, on tensor memory)."""


SHARED_BYTES = 128
"""Bytes per clock and SM of shared memory and L1 (whitepapers)."""
L2_PORT_BYTES = 64
"""Bytes per clock from L2 to one SM: 5120 for 108 SMs are 47 (A100 whitepaper); rounded up to the port's width."""
SHARED_LATENCY = 29
"""Luo et al., A100 and H100."""
L1_LATENCY = 40
"""Luo et al.: 38 (A100), 41 (H100)."""
GLOBAL_LATENCY = 620
"""Luo et al.: 466 (A100) and 479 (H100) unloaded; times 1.3 for queues under load (estimate)."""
SHUFFLE_LATENCY = 23
"""Jia et al."""
EXP_LATENCY = 18
"""Jia et al."""
CONSTANT_LATENCY = 30
"""Estimate."""
BARRIER_LATENCY = 20
"""Jia et al., a barrier of few warps."""
FENCE_LATENCY = 20
"""Estimate."""
MBARRIER_LATENCY = 60
"""From an arrival to the waiting warp going on; estimate: two trips through shared memory."""
WGMMA_LATENCY = 60
"""From the end of a product to its accumulators being readable (estimate: twice that of mma.sync)."""
WGMMA_DRAIN = 32
"""Clocks that a warpgroup's product takes of the tensor pipe beside its own when it is waited for alone, as ptxas makes
them when it serialises products for want of registers (its warning C7512, "potential performance loss"). Estimate."""
TENSOR_MEMORY_LATENCY = 60
"""Estimate."""
TENSOR_MEMORY_BYTES = 512
"""Per clock and sub-partition: 16 bytes for each of 32 lanes (estimate)."""
MMA_SYNC_SHARE = {80: 1.0, 90: 0.62, 100: 0.31}
"""Share of the tensor peak that ``mma.sync`` (HMMA) reaches: Luo et al. for 80 and 90; for 100 the rate per SM of 90,
at twice the peak (estimate)."""
OPERAND_RATE = {"E4M3": 2.0, "E5M2": 2.0, "U8": 2.0, "S8": 2.0, "TF32": 0.5}
"""Tensor rate over that of 16-bit operands (whitepapers)."""

_PRODUCT_DEPTH = 32
"""Bytes of K that one wgmma or tcgen05.mma takes (PTX ISA)."""
_SHAPE = re.compile(r"(\d+)x(\d+)x(\d+)")
_FUSED_SHAPE = re.compile(r"\.(\d{4,5})(?:\.|$)")
_FUSED = {"16816": (16, 8, 16), "1688": (16, 8, 8), "16832": (16, 8, 32), "16864": (16, 8, 64), "884": (8, 8, 4)}
_UNIFORM_CONSTANT = re.compile(r"^(UR\d+), (0x[0-9a-f]+)$")
_CONSTANT = re.compile(r"^(R\d+), (?:RZ, RZ, )?(0x[0-9a-f]+)$")
_DESCRIPTOR = re.compile(r"idesc\[(UR\d+)\]")
_OFFSET = re.compile(r"\+(0x[0-9a-f]+)\]")
_COUNT = re.compile(r"(0x[0-9a-f]+|\d+)\s*$")
_WIDTH = re.compile(r"\.(?:x)?(\d+)(?:\.|$)")
_FMA = frozenset({"FFMA", "FMUL", "FADD", "FFMA32I", "FMUL32I", "FADD32I"})
_FMA_PAIR = frozenset({"FFMA2", "FMUL2", "FADD2"})
_HALF = frozenset({"HFMA2", "HMUL2", "HADD2", "HFMA2_MMA", "HADD2_32I", "HMUL2_32I"})
_EXP = frozenset({"MUFU", "I2F", "F2I", "F2F", "FRND", "POPC", "FLO", "BREV"})
_DOUBLE = frozenset({"DFMA", "DMUL", "DADD", "DSETP"})
_SHARED = frozenset({"LDS", "STS", "LDSM", "STSM", "SHFL", "ATOMS", "REDUX", "MATCH"})
_GLOBAL = frozenset({"LDG", "STG", "LD", "ST", "ATOM", "ATOMG", "RED", "REDG"})
_NO_PIPE = frozenset(
    {
        *("NOP", "BRA", "BRX", "JMP", "EXIT", "RET", "CALL", "BPT", "BSSY", "BSYNC", "WARPSYNC", "YIELD", "ERRBAR"),
        *("DEPBAR", "LDGDEPBAR", "BAR", "WARPGROUP", "MEMBAR", "FENCE", "SYNCS", "ELECT", "VOTE", "VOTEU", "CCTL"),
        *("S2R", "S2UR", "CS2UR", "LDC", "ULDC", "LDCU", "R2UR", "NANOSLEEP", "USETMAXREG", "ENDCOLLECTIVE"),
        *("UTCBAR", "UTMACCTL", "UTMACMDFLUSH", "UTMASTG", "UTMALDG", "UBLKCP", "LEPC", "BREAK", "BMOV", "PREEXIT"),
        *("ACQBULK", "UVIRTCOUNT", "UTCATOMSWS", "LDTM", "STTM", "UTCCP", "SETCTAID", "CCTLL"),
    }
)
_CONSTANTS = frozenset({"LDC", "ULDC", "LDCU", "S2R", "S2UR", "CS2UR", "R2UR"})


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


class Costs:
    """Turns instructions into ops for one kernel on one target."""

    def __init__(self, instructions: Iterable[Instruction], target: Target) -> None:
        self.target = target
        instructions = tuple(instructions)
        self.descriptors, self.copy_barriers, self.copied_bytes = _scan(instructions)
        self.serialised = _serialised(instructions)
        clock = target.clock_ghz * target.sustained_clock_ratio * 1e9
        self.l2_share = target.l2_bytes_per_s / (target.sms * clock)
        """Bytes per clock: what one SM gets of L2 while all read."""
        self.known: dict[int, Op] = {}

    def op(self, instruction: Instruction) -> Op:
        """Return how ``instruction`` is played."""
        if instruction.index not in self.known:
            self.known[instruction.index] = self._op(instruction)
        return self.known[instruction.index]

    def _op(self, i: Instruction) -> Op:
        kind, pipe, busy, latency, shared, count, leader, flops = Kind.PLAIN, Pipe.NONE, 0.0, 0.0, 0.0, 0, False, 0.0
        l2 = 0.0
        write_barrier = i.write_barrier
        base = i.base
        if i.predicate == "!PT":
            pass  # issued, and does nothing
        elif base in MATRIX:
            flops, kind, pipe, busy, latency, shared, leader = self._matrix(i)
            count = int("gsb0" in i.operands)
            busy += WGMMA_DRAIN if i.index in self.serialised else 0
        elif base in _FMA:
            pipe, busy = Pipe.FMA, 32 * 4 / self.target.fp32_lanes
        elif base in _FMA_PAIR:
            pipe, busy = Pipe.FMA, 2 * 32 * 4 / self.target.fp32_lanes
        elif base in _HALF:
            pipe, busy = Pipe.FMA, 1.0
        elif base.startswith("IMAD") or base == "IDP":
            pipe, busy, latency = Pipe.FMA, 2.0, 4.0
        elif base in _DOUBLE:
            pipe, busy, latency = Pipe.FMA, 4.0, 8.0
        elif base in _EXP:
            pipe, busy, latency = Pipe.EXP, 32 * 4 / self.target.sfu_lanes, EXP_LATENCY
        elif base in _SHARED:
            latency = SHUFFLE_LATENCY if base in {"SHFL", "REDUX", "MATCH"} else SHARED_LATENCY
            pipe, busy = Pipe.SHARED, 32 * _thread_bytes(i) / SHARED_BYTES
        elif base in _GLOBAL:
            pipe, busy, latency = Pipe.LSU, 32 * _thread_bytes(i) / L2_PORT_BYTES, GLOBAL_LATENCY
            l2 = 32 * _thread_bytes(i) / self.l2_share
        elif base in {"LDL", "STL"}:
            pipe, busy, latency = Pipe.LSU, 32 * _thread_bytes(i) / SHARED_BYTES, L1_LATENCY
        elif base == "LDGSTS":
            kind, pipe, busy, latency = (
                Kind.COPY,
                Pipe.LSU,
                32 * _thread_bytes(i) / L2_PORT_BYTES,
                GLOBAL_LATENCY,
            )
            l2 = 32 * _thread_bytes(i) / self.l2_share
        elif base in {"UTMALDG", "UBLKCP"}:
            kind, latency, leader = Kind.BULK_COPY, GLOBAL_LATENCY, True
            l2 = self.copied_bytes.get(i.index, 0.0) / self.l2_share
        elif base in {"UTMASTG", "UTMACMDFLUSH"}:
            latency, leader = GLOBAL_LATENCY, True
        elif base == "LDGDEPBAR":
            kind = Kind.COPY_COMMIT
        elif base == "DEPBAR" and i.opcode.startswith("DEPBAR.LE"):
            barrier, _, most = i.operands.partition(",")
            kind, write_barrier, count = Kind.COUNT_WAIT, int(barrier.strip()[2:]), int(most.split(",")[0], 0)
        elif base == "WARPGROUP" and "DEPBAR" in i.opcode:
            outstanding = _COUNT.search(i.operands)
            kind, count = Kind.WGMMA_WAIT, int(outstanding[1], 0) if outstanding else 0
        elif base == "BAR" and ("SYNC" in i.opcode or "RED" in i.opcode):
            kind, latency = Kind.CTA_BARRIER, BARRIER_LATENCY
        elif base == "UTCBAR":
            kind, leader = Kind.TENSOR_COMMIT, True
        elif base == "SYNCS" and "PHASECHK" in i.opcode:
            kind = Kind.MBARRIER_WAIT_COPY if _offset(i) in self.copy_barriers else Kind.MBARRIER_WAIT_TENSOR
            latency = MBARRIER_LATENCY
        elif base in {"LDTM", "STTM"}:
            width = _WIDTH.search(i.opcode)
            busy = 32 * 4 * int(width[1] if width else 1) / TENSOR_MEMORY_BYTES
            pipe, latency = Pipe.TENSOR_MEMORY, TENSOR_MEMORY_LATENCY
        elif base in {"MEMBAR", "FENCE", "SYNCS", "UTCATOMSWS"}:
            latency = FENCE_LATENCY
        elif base in _CONSTANTS:
            latency = CONSTANT_LATENCY
        elif base.startswith("U") or base in _NO_PIPE:
            pass  # the uniform datapath and the front end: their stall counts say all
        else:
            pipe, busy, latency = Pipe.ALU, 2.0, 4.0
        waits = tuple(b for b in range(6) if i.wait_mask >> b & 1)
        return Op(
            kind,
            pipe,
            busy,
            latency,
            shared,
            l2,
            max(1, i.stall),
            waits,
            write_barrier,
            i.read_barrier,
            count,
            leader,
            flops,
        )

    def _matrix(self, i: Instruction) -> tuple[float, Kind, Pipe, float, float, float, bool]:
        rate = self.target.tensor_flop * next((r for name, r in OPERAND_RATE.items() if f".{name}" in i.opcode), 1.0)
        if i.base in SINGLE_ISSUE:
            m, n, k = _decode(self.descriptors.get(i.index, 0), i.base)
            flops = 2.0 * m * n * k
            return flops, Kind.TENSOR_MMA, Pipe.TENSOR_SM, flops / rate, WGMMA_LATENCY, 0.0, True
        if shape := _SHAPE.search(i.opcode):  # a warpgroup's product: each of its four warps accounts for a quarter
            m, n, k = (int(size) for size in shape.groups())
            flops = 2.0 * m * n * k / 4
            rows = n + (m if "gdesc" in i.operands.split(",")[1] else 0)  # of B, and of A unless it is in registers
            shared = rows * _PRODUCT_DEPTH / SHARED_BYTES / 4
            return flops, Kind.WGMMA, Pipe.TENSOR, flops / (rate / 4), WGMMA_LATENCY, shared, False
        fused = _FUSED_SHAPE.search(i.opcode)
        m, n, k = _FUSED.get(fused[1] if fused else "", (16, 8, 16))
        flops = 2.0 * m * n * k
        share = MMA_SYNC_SHARE.get(self.target.arch, 1.0)
        return flops, Kind.PLAIN, Pipe.TENSOR, flops / (rate / 4 * share), 16.0, 0.0, False


def _scan(
    instructions: Iterable[Instruction],
) -> tuple[Mapping[int, int], frozenset[int], Mapping[int, float]]:
    """Find each product's descriptor, the mbarriers that count the bytes of bulk copies, and each bulk copy's bytes.

    Products and copies are known by position. A descriptor is the constant that its uniform register was last set to
    before the product, in address order. The bytes an mbarrier is told to expect are those of the bulk copies between
    it and the next one that is told.
    """
    registers: dict[str, int] = {}
    descriptors: dict[int, int] = {}
    barriers = set()
    expected = 0
    copies: list[int] = []
    copied: dict[int, float] = {}
    for i in instructions:
        if i.base == "UMOV" and (constant := _UNIFORM_CONSTANT.match(i.operands)):
            value = int(constant[2], 16)
            if _plausible(value):
                registers[constant[1]] = value
        elif i.base in SINGLE_ISSUE and (name := _DESCRIPTOR.search(i.operands)):
            descriptors[i.index] = registers.get(name[1], 0)
        elif i.base in {"MOV", "IMAD"} and (bytes_of := _CONSTANT.match(i.operands)):
            registers[bytes_of[1]] = int(bytes_of[2], 16)
        elif i.opcode == "SYNCS.ARRIVE.TRANS64":  # those with a suffix arrive without expecting bytes
            barriers.add(_offset(i))
            expected = registers.get(i.operands.rpartition(",")[2].strip(), 0)
            copies = []
        elif i.base in {"UTMALDG", "UBLKCP"}:
            copies.append(i.index)
            copied.update(dict.fromkeys(copies, expected / len(copies)))
    return descriptors, frozenset(barriers), copied


def _offset(i: Instruction) -> int:
    found = _OFFSET.search(i.operands)
    return int(found[1], 16) if found else 0


def _plausible(value: int) -> bool:
    """Whether a constant can be an instruction descriptor: a shape of tcgen05.mma and clear high bits."""
    m, n = value >> 24 & 31, value >> 17 & 63
    return value < 1 << 29 and m in (4, 8, 16) and 1 <= n <= 32


def _decode(descriptor: int, base: str) -> tuple[int, int, int]:
    """Shape of a tcgen05.mma from its instruction descriptor: N/8 in bits 17-22, M/16 in bits 24-28 (PTX ISA 8.6,
    "tcgen05 instruction descriptor"); K is 32 bytes. Unknown: the largest shape of one CTA.
    """
    k = 16 if base == "UTCHMMA" else 32
    return (16 * (descriptor >> 24 & 31), 8 * (descriptor >> 17 & 63), k) if descriptor else (128, 256, k)


def _thread_bytes(i: Instruction) -> int:
    """Bytes each lane of a memory instruction moves."""
    if i.base in {"LDSM", "STSM"}:
        return 4 * int(i.opcode.rpartition(".")[2]) if i.opcode.rpartition(".")[2] in {"2", "4"} else 4
    for part in i.opcode.split(".")[1:]:
        if part in {"64", "128", "256"}:
            return int(part) // 8
    return 4
