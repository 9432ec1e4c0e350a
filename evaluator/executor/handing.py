"""What partitions hand to each other through shared memory, where it decides what they do next.

One partition stores, say, the number of the tile that it has drawn, and others load it once a barrier says so. A slice
that follows it has these stores and loads, and the barriers waited for right before them. The chip's clocks tell
whether these barriers order all of them, and whether whoever arrives or waits there knows that all phases before are
complete. If so, the kernel, which also waits for other things, has the same arrivals in each phase, and the loads give
the same.
"""

from collections.abc import Sequence, Set

from avo.evaluator.executor.effects import CONTROL
from avo.evaluator.executor.errors import UnsupportedOperation
from avo.evaluator.executor.flow import sources
from avo.evaluator.executor.ir import ALLOCATIONS, Function, Op, Type, walk_blocks

LOAD, _STORE, _WAIT = "ttg.local_load", "ttg.local_store", "ttng.wait_barrier"
_OF_BUFFERS = (_STORE, "ttg.local_dealloc")
_MADE_BY = ("ttng.init_barrier", "ttng.inval_barrier", "ttg.local_dealloc")
_OF_BARRIERS = (_WAIT, "ttng.arrive_barrier", *_MADE_BY)

_SIGNALLING = """ttng.init_barrier ttng.inval_barrier ttng.wait_barrier ttng.arrive_barrier ttng.barrier_expect
ttng.tc_gen5_commit ttng.tc_gen5_mma ttng.tc_gen5_mma_scaled ttng.async_copy_mbarrier_arrive ttng.async_shared_store
ttng.async_tma_copy_global_to_local ttng.async_tma_gather""".split()  # noqa: SIM905


def signals(op: Op, types: Sequence[Type]) -> tuple[int, ...]:
    """Return the operands of an operation that say at which barriers it waits or arrives, and whether it does; nothing
    for one that does not.
    """
    kinds = ("i1", "i32") if op.name == _WAIT else ("i1",)
    barriers = [slot for slot in op.operands if types[slot].element == "memdesc" and types[slot].block.element == "i64"]
    if op.name not in _SIGNALLING or not barriers:
        return ()
    return (*barriers, *(slot for slot in op.operands if types[slot].element in kinds))


def loaded(function: Function) -> frozenset[int]:
    """Return the results of loads from shared memory."""
    return frozenset(slot for op in function.body.ops if op.name == LOAD for slot in op.results[:1])


def handing(function: Function, loads: Set[int]) -> frozenset[int]:
    """Return the identities of the operations that the given results of loads from shared memory come from: loads,
    stores to what they read, and all operations on the barriers waited for right before these.

    Raises ``UnsupportedOperation`` where others write there, or signal such a barrier.
    """
    ops = function.body.ops
    everything = frozenset(op.results[0] for op in ops if op.name in ALLOCATIONS)
    found = sources(function, everything)

    def allocations(op: Op) -> frozenset[int]:
        """Return the allocations that an operation uses; all of them where that is not known."""
        views = (slot for slot in op.operands if function.types[slot].element == "memdesc")
        return frozenset[int]().union(*(found.get(slot, everything) for slot in views))

    uses = {
        id(op): allocations(op)
        for op in ops
        if op.name not in CONTROL and not any(function.types[slot].element == "memdesc" for slot in op.results)
    }
    read = {id(op): uses[id(op)] for op in ops if not loads.isdisjoint(op.results)}
    buffers = frozenset[int]().union(*read.values())
    barriers = frozenset[int]()
    for block in walk_blocks(function.body):
        waited = frozenset[int]()
        for op in block.ops:
            if op.name == _WAIT:
                waited = uses[id(op)]
            elif id(op) in read or (op.name == _STORE and uses[id(op)] & buffers):
                barriers |= waited
    regions = (region for op in ops if op.name == "ttg.warp_specialize" for region in op.regions)
    partitioned = {id(op) for region in regions for op in region.ops}
    kept = set(read)
    for op in ops:
        used = uses.get(id(op), frozenset())
        if used & buffers and op.name != LOAD:
            if op.name not in _OF_BUFFERS:
                raise UnsupportedOperation(
                    f"a loop or an address that depends on what {op.name} does to shared memory, where only stores of "
                    "partitions are followed,",
                    op.location,
                )
            kept.add(id(op))
        elif used & barriers:
            if op.name not in _OF_BARRIERS or (op.name in _MADE_BY and id(op) in partitioned):
                raise UnsupportedOperation(
                    f"a loop or an address that depends on shared memory guarded by a barrier of {op.name}, where only "
                    "arrivals of partitions are followed,",
                    op.location,
                )
            kept.add(id(op))
    return frozenset(kept)
