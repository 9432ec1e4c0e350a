"""The sanitiser between programs: races, and the patterns that are none."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

from avo.evaluator.executor import View, races, sanitizer
from avo.evaluator.plan import Scalar

ORACLE = "a model of the accesses in numpy"


def line_of(function, text):
    lines, first = inspect.getsourcelines(function.fn)
    return f"test_executor_sanitizer_races.py:{first + next(i for i, line in enumerate(lines) if text in line)}"


def sanitized(launch, **options):
    return launch.run(sanitize=True, **options)


def ints(*shape):
    return torch.zeros(*shape, dtype=torch.int32)


@triton.jit
def tails(X, n, step, VALUE: tl.constexpr, N: tl.constexpr):
    p = tl.program_id(0)
    at = tl.minimum(p * step, n - N) + tl.arange(0, N)
    tl.store(X + at, at if VALUE else p)  # tails


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize(("step", "same", "fault", "note"), [(8, False, 0, 0), (6, True, 0, 1), (6, False, 1, 0)])
def test_two_programs_that_store_to_one_address_race_unless_the_value_is_the_same(
    executor, step, same, fault, note, chunk
):
    x = ints(4, 8)
    launch = executor.prepare(tails, x, 32, step, grid=(4,), VALUE=same, N=8)
    launch.memory[0].views = (View((4, 8), (8, 1)),)
    execution = sanitized(launch, **({} if chunk is None else {"temporaries_bytes": 1}))
    assert [f.kind for f in execution.faults] == ["write race"] * fault
    assert [f.kind for f in execution.notes] == ["same value stored twice"] * note
    for found in (*execution.faults, *execution.notes):
        assert (found.kernel, found.location, found.tensor) == ("tails", line_of(tails, "# tails"), "X")
        assert (found.index, found.others) == ((0, 6), 2)
        # In one step the last to store is the one that the others meet.
        first, other = ((1, 0, 0), (0, 0, 0)) if chunk else ((0, 0, 0), (1, 0, 0))
        assert found.program == first
        value = "the same" if note else "another"
        assert f"with {value} value, by program {other}, program {first} and 2 more" in found.message


@triton.jit
def shifted(X, shift, LATE: tl.constexpr, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    if LATE:
        tl.store(X + at + shift, at)
        tl.load(X + at)
        tl.store(X + at, tl.load(X + at) + 1)
    else:
        x = tl.load(X + at + shift)  # read
        tl.store(X + at, x)  # write


@pytest.mark.parametrize("shift", [0, 3])
def test_one_program_that_reads_what_another_writes_races(executor, shift):
    launch = executor.prepare(shifted, ints(40), shift, grid=(4,), LATE=False, N=8)
    faults = sanitized(launch).faults
    if not shift:
        assert faults == ()
        return
    fault, own = faults
    assert (fault.kind, fault.tensor, fault.index) == ("read-write race", "X", (8,))
    assert (fault.program, fault.others, fault.location) == ((1, 0, 0), 2, line_of(shifted, "# write"))
    assert "element 8 of 'X', written here and read by program (0, 0, 0)" in fault.message
    assert (own.kind, own.index, own.program) == ("missing barrier", (3,), (0, 0, 0))


def test_a_race_is_found_in_either_order_of_its_accesses(executor):
    launch = executor.prepare(shifted, ints(40), 3, grid=(4,), LATE=False, N=8)
    *_, fault = sanitized(launch, programs=torch.tensor([1, 0]), temporaries_bytes=1).faults
    assert (fault.kind, fault.location) == ("read-write race", line_of(shifted, "# read"))
    assert "element 8 of 'X', read here and written by program (1, 0, 0), program (0, 0, 0)" in fault.message


@triton.jit
def broadcast(Flag, X):
    p = tl.program_id(0)
    tl.store(Flag, 1)
    tl.store(X + p, tl.load(Flag + 1))
    if p == 2:
        tl.store(Flag + 1, 5)  # write


def test_a_scalar_that_all_read_and_one_writes_is_a_race_and_one_that_all_set_alike_a_note(executor):
    execution = sanitized(executor.prepare(broadcast, ints(2), ints(5), grid=(5,)))
    (fault,) = execution.faults
    assert (fault.kind, fault.index, fault.program) == ("read-write race", (1,), (2, 0, 0))
    assert fault.location == line_of(broadcast, "# write")
    (note,) = execution.notes
    assert (note.kind, note.index, note.others) == ("same value stored twice", (0,), 4)


@triton.jit
def mixed_sizes(X, Y):
    p = tl.program_id(0)
    b = X.to(tl.pointer_type(tl.int8))
    tl.store(b + p * 2 + tl.arange(0, 2), p.to(tl.int8))
    tl.debug_barrier()
    tl.store(Y + p, tl.load(Y + p) + tl.load(b + p * 2))


def test_bytes_of_one_element_that_different_programs_store_do_not_race(executor):
    execution = sanitized(executor.prepare(mixed_sizes, ints(4), ints(8), grid=(8,)))
    assert execution.faults == execution.notes == ()


@triton.jit
def byte_of_next(X, Y):
    p = tl.program_id(0)
    tl.store(X + p, p)
    y = tl.load((X + (p + 1) % 4).to(tl.pointer_type(tl.int8)) + 3)  # byte
    tl.store(Y + p, y)


def test_an_element_and_one_of_its_bytes_are_the_same_memory(executor):
    (fault,) = sanitized(executor.prepare(byte_of_next, ints(4), ints(4), grid=(4,))).faults
    assert (fault.kind, fault.location, fault.index) == ("read-write race", line_of(byte_of_next, "# byte"), (1,))


@triton.jit
def one_place(X, N: tl.constexpr):
    tl.store(X + tl.arange(0, N) * 0, tl.program_id(0))


def test_programs_that_each_agree_with_themselves_race_with_each_other_alone(executor):
    execution = sanitized(executor.prepare(one_place, ints(4), grid=(4,), N=8))
    assert [fault.kind for fault in execution.faults] == ["write race"]


@triton.jit
def rows_and_more(X, Y, row, column, value, WHAT: tl.constexpr, N: tl.constexpr):
    p, n = tl.program_id(0), tl.arange(0, N)
    tl.store(X + p * N + n, p + n)
    if WHAT == "row":
        tl.store(X + row * N + n, value + n, mask=(p == 1) & (n < N))
    elif WHAT == "element":
        tl.store(X + row * N + column, value, mask=p == 1)
    elif WHAT == "shifted":
        tl.store(X + row * N + column + n, value + n, mask=(p == 1) & (n < N))
    else:
        tl.debug_barrier()
        tl.store(Y + p, tl.load(X + row * N + column, mask=p == 1))


@pytest.mark.parametrize("what", ["row", "element", "shifted", "read"])
@pytest.mark.parametrize("row", [1, 2, 3])
def test_what_was_stored_in_rows_races_with_rows_and_elements_of_others(executor, what, row):
    launch = executor.prepare(rows_and_more, ints(64), ints(4), row, 5, 90, grid=(4,), WHAT=what, N=8)
    execution = sanitized(launch)
    kinds = {fault.kind for fault in execution.faults}
    stored = row != 1 or what == "shifted"  # program 1 stores to row 1 itself, and by a shift to row 2 too
    assert kinds == ({"read-write race" if what == "read" else "write race"} if stored else set())


def test_a_row_that_two_programs_store_alike_is_a_note(executor):
    launch = executor.prepare(rows_and_more, ints(64), ints(4), 2, 5, 2, grid=(4,), WHAT="row", N=8)
    execution = sanitized(launch)
    assert execution.faults == ()
    assert [note.kind for note in execution.notes] == ["same value stored twice"]


@triton.jit
def atomics(X, Y, WHAT: tl.constexpr):
    p = tl.program_id(0)
    i = tl.arange(0, 8)
    if WHAT == "split":
        tl.atomic_add(X + i, i)
    elif WHAT == "store":
        tl.store(X + p, 1)
        tl.atomic_add(X + i, i, sem="relaxed")  # store
    elif WHAT == "load":
        tl.atomic_max(X + i, i)
        tl.store(Y + p, tl.load(X + p))  # load
    elif WHAT == "own":
        tl.store(X + p * 8 + i, 1)
        tl.atomic_add(X + p * 8 + i, i, scope="cta")
        tl.store(Y + p, tl.load(X + p * 8))
    elif WHAT == "block":
        tl.atomic_add(X + i, i, scope="cta")  # block
    elif WHAT == "scopes":
        if p == 1:
            tl.atomic_add(X + i, i, scope="cta")  # scopes
        else:
            tl.atomic_add(X + 8 * p + i, i, scope="gpu")


RACES = {
    "scopes": "write race",
    "split": None,
    "own": None,
    "store": "write race",
    "load": "read-write race",
    "block": "write race",
}


@pytest.mark.parametrize(("what", "kind"), [*RACES.items()])
def test_plain_accesses_race_with_the_atomic_operations_of_others(executor, what, kind):
    launch = executor.prepare(atomics, ints(64), ints(8), grid=(8,), WHAT=what)
    execution = sanitized(launch, temporaries_bytes=1)
    assert {fault.kind for fault in execution.faults} == ({kind} if kind else set())
    assert execution.notes == ()
    if kind:
        assert (line_of(atomics, f"# {what}"), "X") in {(fault.location, fault.tensor) for fault in execution.faults}


@triton.jit
def last_arrives(Part, Count, Out, SEM: tl.constexpr, VOLATILE: tl.constexpr, N: tl.constexpr):
    p = tl.program_id(0)
    group = tl.program_id(1)
    i = tl.arange(0, N)
    size = tl.num_programs(0)
    tl.store(Part + (group * size + p) * N + i, i + p)
    done = tl.atomic_add(Count + group, 1, sem=SEM)
    if done == size - 1:
        total = tl.zeros((N,), tl.int32)
        for q in range(size):
            total += tl.load(Part + (group * size + q) * N + i, volatile=VOLATILE)  # read
        tl.store(Out + group * N + i, total)
        tl.store(Count + group, 0)  # reset


@pytest.mark.parametrize("chunk", [2**30, 1])
@pytest.mark.parametrize("volatile", [False, True])
@pytest.mark.parametrize("sem", ["acq_rel", "relaxed", "release", "acquire"])
def test_the_last_to_arrive_may_read_what_others_released_to_it(executor, sem, volatile, chunk):
    out = ints(2, 8)
    launch = executor.prepare(last_arrives, ints(2, 5, 8), ints(2), out, grid=(5, 2), SEM=sem, VOLATILE=volatile, N=8)
    execution = sanitized(launch, temporaries_bytes=chunk)
    assert out.tolist() == [[5 * i + 10 for i in range(8)]] * 2
    assert execution.notes == ()
    if sem == "acq_rel":
        assert execution.faults == ()
        return
    fault = execution.faults[0]
    assert (fault.kind, fault.location) == ("read-write race", line_of(last_arrives, "# read"))
    assert (fault.tensor, fault.program) == ("Part", (4, 0, 0))


@triton.jit
def work_queue(Ticket, Out, n, N: tl.constexpr):
    tile = tl.atomic_add(Ticket, 1)
    while tile < n:
        at = Out + tile * N + tl.arange(0, N)
        tl.store(at, tl.load(at) + tile)
        tile = tl.atomic_add(Ticket, 1)


def test_tickets_of_a_work_queue_keep_programs_apart(executor):
    out = ints(11, 8)
    execution = sanitized(executor.prepare(work_queue, ints(1), out, 11, grid=(4,), N=8))
    assert execution.faults == execution.notes == ()
    assert out[:, 0].tolist() == list(range(11))


def test_races_are_said_not_to_be_checked_beyond_what_clocks_can_hold(executor, monkeypatch):
    buffers = ints(20, 5, 8), ints(20), ints(20, 8)
    launch = executor.prepare(last_arrives, *buffers, grid=(5, 20), SEM="release", VOLATILE=False, N=8)
    monkeypatch.setattr(races, "MAX_CLOCK_WORDS", 7)
    execution = sanitized(launch)
    assert execution.faults == ()
    (note,) = execution.notes
    assert "races not checked in last_arrives at the launch: atomic operations synchronise" in note.message
    monkeypatch.setattr(sanitizer, "MAX_CLOCKED", 99)
    (note,) = sanitized(launch).notes
    assert note.message == (
        "races not checked in last_arrives at the launch: more than 99 programs act on each other's results"
    )


@triton.jit
def lanes(X, Y, r0, rp, rs, w0, wp, ws, value, n, N: tl.constexpr):
    p = tl.program_id(0)
    i = tl.arange(0, N)
    x = tl.load(X + r0 + p * rp + i * rs, mask=i < n)
    tl.store(Y + p * N + i, x)
    tl.store(X + w0 + p * wp + i * ws, i * value + p * (value // 2), mask=i < n)


@pytest.fixture(scope="module")
def lanes_launch(executor):
    return executor.prepare(lanes, ints(128), ints(64), 2, 3, 5, 7, 9, 11, 13, 15, grid=(4,), N=8)


@given(
    *[st.tuples(st.integers(0, 20), st.integers(0, 10), st.integers(0, 3))] * 2,
    st.integers(0, 2),
    st.integers(0, 8),
    st.permutations(range(4)),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_races_are_reported_where_a_model_of_the_accesses_has_them(
    lanes_launch, read, write, value, n, order, together
):
    launch = lanes_launch
    args = [*launch.args[:2], *(Scalar(number) for number in (*read, *write, value, n))]
    one_by_one = {} if together else {"temporaries_bytes": 1}
    launch.memory[0].data.fill_(-1)
    execution = launch.kernel.run(replace(launch, args=args, **one_by_one), torch.tensor(order), sanitize=True)
    p, i = np.ogrid[:4, :n]
    reads, writes = (base + p * rows + i * step for base, rows, step in (read, write))
    stored = np.broadcast_to(i * value + p * (value // 2), writes.shape)
    expected, notes = set(), set()
    for a in range(4):
        for b in range(4):
            for j in range(n):
                if a != b and writes[a, j] in reads[b]:
                    expected.add("read-write race")
                if a == b and writes[a, j] in np.delete(reads[a], j):
                    expected.add("missing barrier")
                for k in range(n):
                    if writes[a, j] != writes[b, k]:
                        continue
                    if a == b and stored[a, j] != stored[b, k]:
                        expected.add("conflicting store")
                    elif a != b and stored[a, j] != stored[b, k]:
                        expected.add("write race")
                    elif a != b:
                        notes.add("same value stored twice")
    found = {fault.kind for fault in execution.faults}
    # Only the latest program that read an element is held against the store.
    expected = (
        expected if "missing barrier" in found or "read-write race" not in expected else expected - {"missing barrier"}
    )
    # Where programs that differ also conflict with themselves, one report may stand for both.
    assert found == expected or (found <= expected and {"write race", "conflicting store"} <= expected)
    assert {note.kind for note in execution.notes} <= notes
    assert notes == {note.kind for note in execution.notes} or "write race" in expected
