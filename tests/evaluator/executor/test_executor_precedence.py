"""Which programs wait for whom, and how far each was, is recorded as a model of the kernel has it."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.executor import progress
from avo.evaluator.work import VERSION

ORACLE = "the definition of the operation"


@triton.jit
def chained(Flag, X, TURN: tl.constexpr, STEP: tl.constexpr, N: tl.constexpr):
    p = tl.program_id(0)
    other = p + STEP
    x = tl.zeros([N], tl.float32)
    for i in range(10):
        if (i == TURN) & (other >= 0) & (other < tl.num_programs(0)):
            while tl.atomic_add(Flag + other, 0) == 0:
                pass
        x += tl.load(X + p * 10 * N + i * N + tl.arange(0, N))
        if i == TURN + 2:
            tl.atomic_xchg(Flag + p, 1)
    tl.store(X + p * N + tl.arange(0, N), x)


@triton.jit
def locked(Lock, X, N: tl.constexpr):
    i = tl.arange(0, N)
    y = tl.exp(tl.load(X + N + tl.program_id(0) * N + i))
    while tl.atomic_cas(Lock, 0, 1) == 1:
        pass
    tl.store(X + i, tl.load(X + i) + y)
    tl.atomic_xchg(Lock, 0)


@triton.jit
def meeting(Count, Sense, X, HOW: tl.constexpr, N: tl.constexpr):
    i = tl.arange(0, N)
    x = tl.load(X + tl.program_id(0) * N + i)
    everyone = tl.num_programs(0)
    if HOW == "count":
        tl.atomic_add(Count, 1)
        while tl.atomic_add(Count, 0) < everyone:
            pass
    else:
        if tl.atomic_add(Count, 1) == everyone - 1:
            tl.atomic_xchg(Sense, 1)
        while tl.load(Sense, volatile=True) == 0:
            pass
    tl.store(X + tl.program_id(0) * N + i, x)


@triton.jit
def halves(Flag, X, HOW: tl.constexpr, N: tl.constexpr):
    p = tl.program_id(0)
    if HOW == "upper half":
        if p > 0:
            while tl.load(Flag + p - 1, volatile=True) == 0:
                pass
        tl.atomic_xchg(Flag.to(tl.pointer_type(tl.int32)) + 2 * p + 1, 1)
    else:
        flag = Flag.to(tl.pointer_type(tl.int8))
        tl.store(flag + 64 + p, 1)
        if p > 0:
            while tl.load(flag + p - 1, volatile=True) == 0:
                pass
        tl.store(flag + p, 1)


@triton.jit
def last(Count, Flag, X, N: tl.constexpr):
    p = tl.program_id(0)
    if tl.atomic_add(Count, 1) == tl.num_programs(0) - 1:
        tl.store(X + tl.arange(0, N), tl.full([N], 1.0, tl.float32))
    if p == 0:
        tl.atomic_xchg(Flag, 1)
    else:
        while tl.atomic_add(Flag, 0) == 0:
            pass


def ints(*shape):
    return torch.zeros(*shape, dtype=torch.int32)


def played(executor, function, *args, resident=None, **options):
    launch = executor.prepare(function, *args, **options)
    return progress(launch.kernel, launch, resident)


def releasers(waits):
    """The programs whose releases each program waits for, seen through versions."""
    before = {}
    for earlier, later in waits.after.tolist():
        before.setdefault(later, set()).add(earlier)

    def owners(node):
        if waits.programs[node] != VERSION:
            return {int(waits.programs[node])}
        return set().union(*(owners(each) for each in before[node]))

    found = {}
    for later, earlier in before.items():
        if waits.programs[later] != VERSION:
            found.setdefault(int(waits.programs[later]), set()).update(*(owners(each) for each in earlier))
    return found


def test_a_chain_is_recorded_with_the_passes_that_were_done(executor):
    waits = played(executor, chained, ints(5), torch.zeros(50, 16), grid=(5,), TURN=4, STEP=-1, N=16).waits
    assert releasers(waits) == {p: {p - 1} for p in range(1, 5)}
    for earlier, later in waits.after.tolist():
        outer = 1  # the column of the loop of ten passes; that which waits has none
        assert (waits.places[earlier, outer], waits.places[later, outer]) == (7, 5)
        assert not waits.places[:, 2:].any()


def test_a_wait_is_one_node_however_often_the_program_looked(executor):
    waits = played(executor, chained, ints(5), torch.zeros(50, 16), grid=(5,), TURN=4, STEP=1, N=16).waits
    assert releasers(waits) == {p: {p + 1} for p in range(4)}
    assert sorted(waits.programs.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3, 4]


def test_programs_take_a_lock_in_turns_between_what_they_do_before_and_after(executor):
    waits = played(executor, locked, ints(1), torch.zeros(6, 64), grid=(4,), N=64).waits
    assert releasers(waits) == {p: {p - 1} for p in range(1, 4)}
    begins, ends = (waits.places[waits.after[:, i], 0] for i in (1, 0))
    assert np.all(begins < ends)
    assert np.all((begins > 0.3) & (ends < 1))


def test_whoever_leaves_a_barrier_has_waited_for_all_that_came(executor):
    def waited(how):
        return releasers(
            played(executor, meeting, ints(1), ints(1), torch.zeros(6, 16), grid=(6,), HOW=how, N=16).waits
        )

    assert all(others | {p} == set(range(6)) for p, others in waited("count").items())
    assert len(waited("count")) == 6
    found = waited("sense")  # the last to come releases the others, and has waited for them
    assert found[5] >= set(range(5))
    assert all(5 in found[p] for p in range(5))


@pytest.mark.parametrize("how", ["upper half", "bytes"])
def test_a_flag_may_be_any_bytes_of_what_is_polled(executor, how):
    waits = played(
        executor, halves, torch.zeros(16, dtype=torch.int64), torch.zeros(16), grid=(4,), HOW=how, N=16
    ).waits
    assert releasers(waits) == {p: {p - 1} for p in range(1, 4)}


def test_whoever_comes_last_and_releases_nobody_keeps_nobody_waiting(executor):
    waits = played(executor, last, ints(1), ints(1), torch.zeros(16), grid=(5,), N=16).waits
    assert releasers(waits) == {p: {0} for p in range(1, 5)}


def test_who_never_finds_a_flag_unset_waits_for_nobody(executor):
    flags = torch.ones(5, dtype=torch.int32)
    found = played(executor, chained, flags, torch.zeros(50, 16), grid=(5,), TURN=4, STEP=-1, N=16)
    assert found.waits is None


def test_the_same_is_recorded_however_many_programs_take_steps_together(executor):
    def shape(resident):
        found = played(
            executor, chained, ints(8), torch.zeros(80, 16), resident=resident, grid=(8,), TURN=0, STEP=-1, N=16
        )
        return releasers(found.waits)

    assert shape(8) == shape(1)
