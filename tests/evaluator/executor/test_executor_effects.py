"""Every operation has a row of effects, and what the rows of memory operations say is what these operations do."""

import pytest
import torch

from avo.evaluator.executor import Allocation, Launch, load
from avo.evaluator.executor.control import KNOWN
from avo.evaluator.executor.effects import EFFECTS, effects
from avo.evaluator.executor.operations.registry import elementwise, region_step, step
from avo.evaluator.plan import Pointer

ORACLE = "the definition"

BLOCK, LANES, ROWS = 8, 3, 2
"""Elements of a block, those of them that the mask lets through, and rows of a gathered block."""
_POINTERS, _VALUES, _MASK = f"tensor<{BLOCK}x!tt.ptr<i32>>", f"tensor<{BLOCK}xi32>", f"tensor<{BLOCK}xi1>"
_DESCRIPTOR, _GATHERED = f"!tt.tensordesc<tensor<1x{BLOCK}xi32>>", f"tensor<{ROWS}x{BLOCK}xi32>"
_ROW = f"tensor<1x{BLOCK}xi32>"
_PLAIN = "#ttg.swizzled_shared<{vec = 1, perPhase = 1, maxPhase = 1, order = [0]}>, #ttg.shared_memory, mutable"
_BUFFER, _BUFFERS, _BARRIER = (
    f"!ttg.memdesc<{kind}, {_PLAIN}>" for kind in (f"{BLOCK}xi32", f"{ROWS}x{BLOCK}xi32", "1xi64")
)
_ROW_BUFFER = f"!ttg.memdesc<1x{BLOCK}xi32, {_PLAIN}>"
ACCESSES = {
    "tt.load": f"%a = tt.load %p, %mask, %v : {_POINTERS}",
    "tt.store": f"tt.store %p, %v, %mask : {_POINTERS}",
    "tt.atomic_rmw": f"%a = tt.atomic_rmw add, relaxed, gpu, %p, %v, %mask : "
    f"({_POINTERS}, {_VALUES}, {_MASK}) -> {_VALUES}",
    "tt.atomic_cas": f"%a = tt.atomic_cas relaxed, gpu, %p, %v, %v : ({_POINTERS}, {_VALUES}, {_VALUES}) -> {_VALUES}",
    "tt.atomic_load": f"%a = tt.atomic_load relaxed, gpu, %p, %mask : ({_POINTERS}, {_MASK}) -> {_VALUES}",
    "tt.atomic_store": f"tt.atomic_store relaxed, gpu, %p, %v, %mask : ({_POINTERS}, {_VALUES}, {_MASK}) -> ()",
    "tt.atomic_poll": f"%a = tt.atomic_poll relaxed, gpu, %p, %v : ({_POINTERS}, {_VALUES}) -> {_MASK}",
    "tt.descriptor_load": f"%a = tt.descriptor_load %d[%zero, %zero] : {_DESCRIPTOR} -> {_ROW}",
    "tt.descriptor_store": f"tt.descriptor_store %d[%zero, %zero], %row : {_DESCRIPTOR}, {_ROW}",
    "tt.descriptor_reduce": f"tt.descriptor_reduce add, %d[%zero, %zero], %row : {_DESCRIPTOR}, {_ROW}",
    "tt.descriptor_gather": f"%a = tt.descriptor_gather %d[%rows, %zero] : "
    f"({_DESCRIPTOR}, tensor<{ROWS}xi32>, i32) -> {_GATHERED}",
    "tt.descriptor_scatter": f"tt.descriptor_scatter %d[%rows, %zero], %gathered : "
    f"{_DESCRIPTOR}, tensor<{ROWS}xi32>, i32, {_GATHERED}",
    "ttg.async_copy_global_to_local": "%a = ttg.async_copy_global_to_local %p, %m mask %mask other %v : "
    f"{_POINTERS} -> {_BUFFER}",
    "ttng.async_tma_copy_global_to_local": "ttng.async_tma_copy_global_to_local %d[%zero, %zero] %mr, %bar, %true : "
    f"{_DESCRIPTOR}, {_BARRIER} -> {_ROW_BUFFER}",
    "ttng.async_tma_copy_local_to_global": f"ttng.async_tma_copy_local_to_global %d[%zero, %zero] %mr : {_DESCRIPTOR}, "
    f"{_ROW_BUFFER}",
    "ttng.async_tma_reduce": f"ttng.async_tma_reduce add, %d[%zero, %zero] %mr : {_DESCRIPTOR}, {_ROW_BUFFER}",
    "ttng.async_tma_gather": "ttng.async_tma_gather %d[%rows, %zero] %ms, %bar, %true : "
    f"{_DESCRIPTOR}, tensor<{ROWS}xi32>, i32, {_BARRIER}, {_BUFFERS}, i1",
    "ttng.async_tma_scatter": "ttng.async_tma_scatter %d[%rows, %zero] %ms : "
    f"{_DESCRIPTOR}, tensor<{ROWS}xi32>, i32, {_BUFFERS}",
}
"""One operation of every name that accesses memory, on an array of 2 x 8 integers that are all zero."""


def kernel(operation):
    mask = ", ".join(["true"] * LANES + ["false"] * (BLOCK - LANES))
    return load(f"""module {{
  tt.func public @k(%x: !tt.ptr<i32>) {{
    %zero = arith.constant 0 : i32
    %one = arith.constant 1 : i64
    %length = arith.constant {BLOCK} : i64
    %height = arith.constant {ROWS} : i32
    %width = arith.constant {BLOCK} : i32
    %v = arith.constant dense<0> : {_VALUES}
    %row = arith.constant dense<0> : {_ROW}
    %gathered = arith.constant dense<0> : {_GATHERED}
    %mask = arith.constant dense<[{mask}]> : {_MASK}
    %rows = tt.make_range {{end = {ROWS} : i32, start = 0 : i32}} : tensor<{ROWS}xi32>
    %i = tt.make_range {{end = {BLOCK} : i32, start = 0 : i32}} : {_VALUES}
    %s = tt.splat %x : !tt.ptr<i32> -> {_POINTERS}
    %p = tt.addptr %s, %i : {_POINTERS}, {_VALUES}
    %d = tt.make_tensor_descriptor %x, [%height, %width], [%length, %one] : !tt.ptr<i32>, {_DESCRIPTOR}
    %true = arith.constant true
    %m = ttg.local_alloc : () -> {_BUFFER}
    %mr = ttg.local_alloc : () -> {_ROW_BUFFER}
    %ms = ttg.local_alloc : () -> {_BUFFERS}
    %bar = ttg.local_alloc : () -> {_BARRIER}
    ttng.init_barrier %bar, 1 : {_BARRIER}
    {operation}
    tt.return
  }}
}}""")


def test_every_operation_has_a_row_and_every_row_is_of_an_operation():
    assert EFFECTS.keys() == KNOWN


@pytest.mark.parametrize("register", [elementwise, step])
def test_an_operation_without_a_row_cannot_be_registered(register):
    with pytest.raises(LookupError, match=r"tt\.unheard has no row in evaluator/executor/effects\.py: say there what"):
        register("tt.unheard")(lambda *_: None)
    with pytest.raises(LookupError, match=r"tt\.unheard has no row"):
        effects("tt.unheard")


def test_an_operation_that_runs_a_region_must_be_known_to_combine():
    with pytest.raises(LookupError, match=r"tt\.load must be listed in COMBINING"):
        region_step("tt.load")


def test_all_operations_that_access_memory_are_tried_here():
    assert ACCESSES.keys() == {name for name, row in EFFECTS.items() if row.accesses}


def elements(row, masks=True):
    if row.coordinates == slice(1, 3):
        return ROWS * BLOCK
    return LANES if masks and row.mask is not None else BLOCK


def array(value):
    return [Allocation("x", torch.full((ROWS * BLOCK,), value).int(), written=torch.zeros(ROWS * BLOCK).bool())]


X, GRID = [Pointer(0, 0)], (1, 1, 1)


@pytest.mark.parametrize("name", ACCESSES)
def test_a_row_says_what_its_operation_reads_and_writes_and_under_which_mask(name):
    row, made, memory = effects(name), kernel(ACCESSES[name]), array(0)
    execution = made.run(Launch(memory, X, GRID), count=True)
    traffic = execution.counts.traffic["x"]
    # Nobody waits for what is asynchronous: that is all that is wrong.
    assert all("the program ends while" in fault.message for fault in execution.faults)
    assert traffic.read_bytes.tolist() == [4 * elements(row) * (row.reads or row.updates)]
    assert traffic.written_bytes.tolist() == [4 * elements(row) * row.writes]
    assert int(memory[0].written.sum()) == elements(row) * row.writes
    assert made.may_write(X) == ({0} if row.writes else set())
    assert made.may_read(X) == ({0} if row.reads or row.updates else set())


@pytest.mark.parametrize("name", ACCESSES)
def test_slices_store_where_an_operation_reads_or_writes(name):
    row, made, memory = effects(name), kernel(ACCESSES[name]), array(1)
    made.mark(Launch(memory, X, GRID), reads=not row.writes)
    assert int(memory[0].written.sum()) == elements(row)
    assert bool((memory[0].data == 1).all())


@pytest.mark.parametrize("name", ACCESSES)
def test_the_bytes_asked_for_are_those_of_the_whole_block(name):
    row, made = effects(name), kernel(ACCESSES[name])
    outside, moved = made.count(Launch(array(0), X, GRID)).outside, 4 * elements(row, masks=False)
    assert (outside.load_bytes, outside.store_bytes) == (moved * row.reads, moved * row.writes)
