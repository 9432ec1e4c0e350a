"""What every operation does to memory and asks of the machine, one row for each.

An operation without a row cannot be registered, and so does not run. This table is the only place that says where an
operation reads or writes, which of its operands is a mask, and how its work is counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from avo.evaluator.executor.ir import Op, Type


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """One operation's row. An operation that accesses memory does so through its first operand.

    Places count among the operands; operands that are optional come last.
    """

    work: str | None = None
    """What its scalar operations are counted as, a key of ``_COUNTED``; None: they are not counted."""
    reads: bool = False
    """Whether its results depend on what memory holds."""
    writes: bool = False
    """Whether it may change memory."""
    updates: bool = False
    """Whether what it writes depends on what was there before."""
    atomic: bool = False
    waits: bool = False
    """Whether it does not end before memory holds an expected value."""
    value: int | None = None
    """Place of an operand of the type that is read or written; None: that is the type of the result."""
    mask: int | None = None
    """Place of the mask, where the operation has one."""
    coordinates: slice | None = None
    """Places of the coordinates, for an access through a tensor descriptor."""
    store: str = "tt.store"
    """The operation that stores a value where this one reads or writes."""
    rearranges: bool = False
    """Whether its result holds the elements of its only operand, in another place or shape."""
    on_chip: bool = False
    """Whether it allocates, accesses or synchronises shared or tensor memory. What a slice of a kernel keeps of such an
    operation is its access to global memory; only a script is made with what ``handing`` names."""
    reads_chip: bool = False
    """Whether its results depend on what shared or tensor memory holds."""
    shared: Literal["load", "store"] | None = None
    """``load`` or ``store`` where threads move a block from or to shared memory; products that read it have none."""
    predicate: int | None = None
    """Place, not counting tokens, of an operand that says whether it does anything."""
    control: bool = False
    """Whether it directs what is executed next; ``flow`` and ``control`` know how."""

    @property
    def accesses(self) -> bool:
        """Whether it reads or writes memory."""
        return self.reads or self.writes


_COUNTED = {
    "dot": "tt.dot tt.dot_scaled ttng.warp_group_dot ttng.tc_gen5_mma ttng.tc_gen5_mma_scaled",
    "exponential": "math.exp math.exp2",
    "function": "math.cos math.erf math.log math.log2 math.rsqrt math.sin math.sqrt tt.precise_sqrt",
    "division": "arith.ceildivsi arith.ceildivui arith.divf arith.divsi arith.divui arith.floordivsi arith.remf "
    "arith.remsi arith.remui tt.approx_divf tt.precise_divf",
    "float": "arith.addf arith.maximumf arith.maxnumf arith.minimumf arith.minnumf arith.mulf arith.negf arith.subf "
    "math.absf math.ceil math.floor math.fma tt.clampf ttng.packed_arith",
    "integer": "arith.addi arith.andi arith.maxsi arith.maxui arith.minsi arith.minui arith.muli arith.ori arith.shli "
    "arith.shrsi arith.shrui arith.subi arith.xori math.absi tt.mulhiui",
    "compare": "arith.cmpf arith.cmpi",
    "select": "arith.select",
    "convert": "arith.extf arith.extsi arith.extui arith.fptosi arith.fptoui arith.sitofp arith.truncf arith.trunci "
    "arith.uitofp tt.fp_to_fp ttg.fp4_to_fp",
    "address": "tt.addptr",
    "external": "tt.extern_elementwise tt.elementwise_inline_asm",
}
"""Operations that are counted as work, by what they are counted as. ``function`` is any other transcendental function
or root, ``external`` a function of libdevice or inline assembly."""
_REARRANGING = "tt.splat tt.unsplat tt.broadcast tt.expand_dims tt.reshape tt.trans tt.bitcast ttg.convert_layout"
_CONTROL = """scf.for scf.while scf.if scf.yield scf.condition tt.call tt.return cf.br cf.cond_br tt.reduce.return
tt.scan.return tt.map_elementwise.return ttg.warp_specialize ttg.warp_yield ttg.warp_return"""
_VIEWS = "ttg.memdesc_index ttg.memdesc_subslice ttg.memdesc_trans ttg.memdesc_reshape ttg.memdesc_reinterpret \
ttng.tmem_subslice"
_ON_CHIP = """ttg.local_dealloc ttg.async_commit_group ttg.async_wait ttng.tmem_alloc
ttng.tmem_store ttng.tmem_copy ttng.tc_gen5_commit ttng.init_barrier ttng.inval_barrier ttng.barrier_expect
ttng.wait_barrier ttng.arrive_barrier ttng.async_copy_mbarrier_arrive ttng.async_tma_store_wait
ttng.fence_async_shared ttng.fence_mbarrier_init_release_cluster ttng.cluster_barrier
ttng.warp_group_dot_wait ttg.global_scratch_alloc ttng.tensormap_create
ttng.tensormap_fenceproxy_acquire ttng.reinterpret_tensor_descriptor ttng.clc_try_cancel
ttng.async_shared_store"""
_PURE = """arith.constant arith.bitcast arith.index_cast ub.poison tt.make_range tt.get_program_id tt.get_num_programs
tt.cat tt.join tt.split tt.gather tt.histogram tt.ptr_to_int tt.int_to_ptr tt.make_tensor_descriptor tt.reduce tt.scan
tt.map_elementwise tt.assert tt.print llvm.intr.assume gpu.barrier ttg.barrier ttg.local_barrier tt.debug_barrier
tt.grid_dependency_wait tt.grid_dependency_launch_dependents ttng.clc_is_canceled ttng.clc_get_program_id"""
"""Operations that neither access memory nor are counted as work."""

EFFECTS: Mapping[str, Effects] = {
    "tt.load": Effects(reads=True, mask=1),
    "tt.store": Effects(writes=True, value=1, mask=2),
    "tt.atomic_rmw": Effects(reads=True, writes=True, updates=True, atomic=True, value=1, mask=2),
    "tt.atomic_cas": Effects(reads=True, writes=True, updates=True, atomic=True, value=2),
    "tt.atomic_load": Effects(reads=True, atomic=True, mask=1),
    "tt.atomic_store": Effects(writes=True, atomic=True, value=1, mask=2),
    "tt.atomic_poll": Effects(reads=True, atomic=True, waits=True, value=1),
    "tt.descriptor_load": Effects(reads=True, coordinates=slice(1, None), store="tt.descriptor_store"),
    "tt.descriptor_store": Effects(writes=True, value=-1, coordinates=slice(1, -1), store="tt.descriptor_store"),
    "tt.descriptor_reduce": Effects(
        writes=True, updates=True, atomic=True, value=-1, coordinates=slice(1, -1), store="tt.descriptor_store"
    ),
    "tt.descriptor_gather": Effects(reads=True, coordinates=slice(1, 3), store="tt.descriptor_scatter"),
    "tt.descriptor_scatter": Effects(writes=True, value=3, coordinates=slice(1, 3), store="tt.descriptor_scatter"),
    "ttg.async_copy_global_to_local": Effects(reads=True, on_chip=True, value=1, mask=2),
    "ttng.async_tma_copy_global_to_local": Effects(
        reads=True, on_chip=True, value=-3, coordinates=slice(1, -3), store="tt.descriptor_store"
    ),
    "ttng.async_tma_copy_local_to_global": Effects(
        writes=True, on_chip=True, value=-1, coordinates=slice(1, -1), store="tt.descriptor_store"
    ),
    "ttng.async_tma_reduce": Effects(
        writes=True,
        updates=True,
        atomic=True,
        on_chip=True,
        value=-1,
        coordinates=slice(1, -1),
        store="tt.descriptor_store",
    ),
    "ttng.async_tma_gather": Effects(
        reads=True, on_chip=True, value=3, coordinates=slice(1, 3), store="tt.descriptor_scatter"
    ),
    "ttng.async_tma_scatter": Effects(
        writes=True, on_chip=True, value=3, coordinates=slice(1, 3), store="tt.descriptor_scatter"
    ),
    **{name: Effects(work=kind) for kind, names in _COUNTED.items() for name in names.split()},
    **dict.fromkeys(_REARRANGING.split(), Effects(rearranges=True)),
    **dict.fromkeys(_CONTROL.split(), Effects(control=True)),
    **dict.fromkeys(_PURE.split(), Effects()),
    **dict.fromkeys(_VIEWS.split(), Effects(on_chip=True)),
    **dict.fromkeys(_ON_CHIP.split(), Effects(on_chip=True)),
    "ttg.local_alloc": Effects(on_chip=True, shared="store"),
    "ttg.local_store": Effects(on_chip=True, shared="store"),
    "ttg.local_load": Effects(on_chip=True, reads_chip=True, shared="load"),
    "ttg.local_gather": Effects(on_chip=True, reads_chip=True, shared="load"),
    "ttg.local_scatter": Effects(on_chip=True),
    "ttg.local_atomic_scatter_rmw": Effects(on_chip=True, reads_chip=True),
    "ttng.clc_load_result": Effects(on_chip=True, reads_chip=True),
    "ttng.tmem_load": Effects(on_chip=True, reads_chip=True),
    "ttng.warp_group_dot": Effects(work="dot", on_chip=True, reads_chip=True),
    "ttng.tc_gen5_mma": Effects(work="dot", on_chip=True, predicate=4),
    "ttng.tc_gen5_mma_scaled": Effects(work="dot", on_chip=True, predicate=6),
}
"""The row of each operation, by name."""

BY_ALL = "by_all"
"""Attribute of a store that each thread which holds an element executes; of other stores only one does."""

READS = frozenset(name for name, row in EFFECTS.items() if row.reads)
"""Operations whose results depend on what memory holds."""
WRITES = frozenset(name for name, row in EFFECTS.items() if row.writes)
"""Operations that may change memory."""
UPDATES = frozenset(name for name, row in EFFECTS.items() if row.updates)
"""Operations that write what depends on what was there."""
ATOMIC = frozenset(name for name, row in EFFECTS.items() if row.atomic)
"""Operations that access memory atomically."""
CONTROL = frozenset(name for name, row in EFFECTS.items() if row.control)
"""Operations of control flow."""


def effects(name: str) -> Effects:
    """Return the row of an operation; raise ``LookupError``, which says what to do, if it has none."""
    if name not in EFFECTS:
        raise LookupError(
            f"operation {name} has no row in evaluator/executor/effects.py: say there what it reads and writes, "
            "or list it among those that are _PURE"
        )
    return EFFECTS[name]


def is_volatile(op: Op) -> bool:
    """Whether an operation is a volatile load."""
    return op.name == "tt.load" and op.attributes.get("isVolatile", "").startswith("true")


def accessed_type(op: Op, types: Sequence[Type]) -> Type:
    """Return the type of what an operation reads from or writes to memory."""
    value = effects(op.name).value
    return types[op.results[0] if value is None else op.operands[value]].block


def mask(op: Op) -> int | None:
    """Return the slot of the mask of an operation that accesses memory, None if it has none."""
    place = effects(op.name).mask
    return op.operands[place] if place is not None and place < len(op.operands) else None


def coordinates(op: Op) -> tuple[int, ...]:
    """Return the slots of the coordinates of an access through a descriptor; nothing for any other operation."""
    places = effects(op.name).coordinates
    return () if places is None else op.operands[places]


def stored(op: Op, value: int) -> Op:
    """Return the operation that stores the value in a slot where another one reads or writes, under the same mask."""
    masked = mask(op)
    where = (op.operands[0], *coordinates(op))
    return Op(effects(op.name).store, (*where, value, *(() if masked is None else (masked,))), (), op.location)
