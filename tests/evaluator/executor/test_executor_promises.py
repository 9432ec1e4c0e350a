"""What a kernel promises to the compiler is held against it: assumptions, hints about values, divisible arguments."""

import inspect
import re
from functools import partial

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.executor import Allocation, IRError, Launch, UnsupportedOperation, load
from avo.evaluator.plan import Pointer, Scalar

ORACLE = "the values that hints promise"


def line_of(function, text):
    lines, first = inspect.getsourcelines(function.fn)
    return first + next(i for i, line in enumerate(lines) if text in line)


@triton.jit
def assuming(X, n):
    p = tl.program_id(0)
    if p < 2:
        tl.assume(p + n < 5)  # assumed
    total = 0
    for _ in range(n):
        total += p
    tl.store(X + p, total)


@pytest.mark.parametrize("n", [0, 3])
def test_an_assumption_that_holds_for_all_who_make_it_is_none_to_report(executor, n):
    x = torch.zeros(4, dtype=torch.int32)
    assert executor.run(assuming, x, n, grid=(4,)).faults == ()
    assert x.tolist() == [0, n, 2 * n, 3 * n]


def test_a_false_assumption_is_named_by_line_and_program(executor):
    launch = executor.prepare(assuming, torch.zeros(4, dtype=torch.int32), 4, grid=(4,))
    (fault,) = launch.run().faults
    assert fault.kind == "false assumption"
    where = f"test_executor_promises.py:{line_of(assuming, '# assumed')}"
    assert fault.message == f"false assumption in assuming at {where}: the condition does not hold, program (1, 0, 0)"


@triton.jit
def promising(X, Y, n):
    p = tl.program_id(0)
    for i in range(n):
        tl.assume(p + i != 9)  # by the ids
        hinted = tl.multiple_of(p * n + i * 4, 4)  # by a hint
        seen = tl.load(X + p * n + i)
        tl.assume(seen < 1)  # by memory
        tl.store(Y + hinted, seen)


def test_promises_that_follow_from_ids_and_loops_are_checked_for_all_programs_without_running_them(executor):
    x, y = torch.ones(64, dtype=torch.int32), torch.zeros(256, dtype=torch.int32)
    launch = executor.prepare(promising, x, y, 4, grid=(8,))
    (fault,) = launch.kernel.hint_violations(launch).faults
    assert f":{line_of(promising, 'by the ids')}: " in fault.message
    assert fault.message.endswith("program (7, 0, 0) and 1 more")
    launch = executor.prepare(promising, x, y, 3, grid=(2,))
    (fault,) = launch.kernel.hint_violations(launch).faults
    assert f":{line_of(promising, 'by a hint')}: " in fault.message
    assert not y.any()


@triton.jit
def hinting_each_pass(X, n, N: tl.constexpr):
    p = tl.program_id(0)
    for i in range(n):
        tl.assume(p + i != 9)  # of scalars
        at = tl.multiple_of(tl.arange(0, N) * 4 + (p // 7), 4)  # of blocks
        tl.store(X + at, 0.0)


def test_promises_that_need_a_block_are_checked_for_chosen_programs_others_for_all(executor):
    launch = executor.prepare(hinting_each_pass, torch.zeros(512), 3, N=64, grid=(8,))
    check = partial(launch.kernel.hint_violations, launch)
    assert {fault.kind for fault in check().faults} == {"false assumption", "false hint"}
    (fault,) = check(programs=torch.arange(7)).faults
    assert f":{line_of(hinting_each_pass, 'of scalars')}: " in fault.message
    assert fault.message.endswith("program (7, 0, 0)")


def test_what_promises_take_is_known_from_trips(executor):
    launch = executor.prepare(hinting_each_pass, torch.zeros(512), 3, N=64, grid=(2,))
    few, more = launch.kernel.hint_elements((np.array([3, 10]),), 2).tolist()
    blocks, rest = divmod((more - few) // 7, 64)
    assert (more - few) % 7 == 0
    assert 1 <= blocks <= 5
    assert rest <= 8


def test_counting_trips_does_without_assumptions(executor):
    launch = executor.prepare(assuming, torch.zeros(4, dtype=torch.int32), 4, grid=(4,))
    (trips,) = launch.kernel.count(launch).trips
    assert trips.tolist() == [4] * 4


@triton.jit
def hinting(X, n, N: tl.constexpr, WHAT: tl.constexpr, AMOUNT: tl.constexpr):
    i = n + tl.arange(0, N)
    if WHAT == "multiple":
        i = tl.multiple_of(i, AMOUNT)
    elif WHAT == "contiguous":
        i = tl.max_contiguous(i % 8, AMOUNT)
    elif WHAT == "constant":
        i = tl.max_constancy(i // 8, AMOUNT)
    elif WHAT == "scalar":
        i = tl.multiple_of(n * 3, AMOUNT) + tl.arange(0, N)
    elif WHAT == "pointer":
        tl.store(tl.multiple_of(X + i, AMOUNT), i)
    elif WHAT == "loaded":
        i = tl.multiple_of(tl.load(X + i), AMOUNT)
    elif WHAT == "mask":
        tl.store(X + i, i, mask=tl.max_constancy(i < 8 * (n // 8) + 8, AMOUNT))
    elif WHAT == "column":
        j = tl.multiple_of((i * 16)[:, None] + tl.arange(0, N)[None, :], [1, AMOUNT])
        i = tl.sum(j, 1)
    elif WHAT == "row":
        j = tl.max_constancy(i[:, None] + (tl.arange(0, N) // 4)[None, :], (1, AMOUNT))
        i = tl.sum(j, 1)
    tl.store(X + tl.arange(0, N), i)


HINTS = [
    ("multiple", 16, 16, 8), ("contiguous", 8, 8, 9), ("contiguous", 16, None, 8), ("constant", 8, 16, 12),
    ("constant", 16, None, 8), ("scalar", 6, 8, 9), ("pointer", 16, 4, 6), ("loaded", 2, None, 8),
    ("loaded", 1, 5, None), ("mask", 8, 8, 9), ("column", 16, 3, None), ("column", 32, None, 3), ("row", 4, 5, None),
    ("row", 8, None, 5),
]  # fmt: skip
"""Hint, its amount, an n with which it is true and one with which it is false."""


@pytest.mark.parametrize(("what", "amount", "true", "false"), HINTS)
def test_hints_are_checked_on_the_values_they_annotate(executor, what, amount, true, false):
    for n, kinds in ((true, set()), (false, {"false hint"})):
        if n is not None:
            x = torch.arange(64, dtype=torch.int32)
            launch = executor.prepare(hinting, x, n, N=16, WHAT=what, AMOUNT=amount)
            assert re.search(r"tt\.(divisibility|contiguity|constancy) = dense", launch.ttir)
            assert {fault.kind for fault in launch.run().faults} == kinds, n


def test_a_false_hint_says_where_and_which_element(executor):
    launch = executor.prepare(hinting, torch.zeros(64, dtype=torch.int32), 12, N=16, WHAT="constant", AMOUNT=8)
    (fault,) = launch.run().faults
    assert fault.kind == "false hint"
    assert fault.message.startswith("false hint in hinting at test_executor_promises.py:")
    assert ": element [4] differs from the first of its group of 8 equal ones, program (0, 0, 0)" in fault.message


def declaring(what):
    return "\n".join(
        [
            "module {",
            f"  tt.func public @k(%x: !tt.ptr<i32> {what}, %n: i32 {what}) attributes {{noinline = false}} {{",
            "    tt.store %x, %n : !tt.ptr<i32>",
            "    tt.return",
            "  }",
            "}",
        ]
    )


@pytest.mark.parametrize(
    ("offset", "n", "message"),
    [
        (16, 32, None),
        (16, 24, "argument 1 of kernel k is declared divisible by 16 but is 24"),
        (8, 16, "argument 0 of kernel k is declared divisible by 16 but points 8 bytes into a buffer"),
    ],
)
def test_arguments_must_be_as_divisible_as_declared(offset, n, message):
    kernel = load(declaring("{tt.divisibility = 16 : i32}"))
    memory = [Allocation("x", torch.zeros(8, dtype=torch.int32))]
    arguments = [Pointer(0, offset), Scalar(n)]
    if message is None:
        assert kernel.run(Launch(memory, arguments, (1, 1, 1))).faults == ()
    else:
        with pytest.raises(IRError, match=message):
            kernel.run(Launch(memory, arguments, (1, 1, 1)))


def test_no_buffer_is_taken_to_be_aligned_to_more_than_any_allocator_promises():
    kernel = load(declaring("{tt.divisibility = 4096 : i32}"))
    with pytest.raises(IRError, match="aligned to 16"):
        kernel.run(Launch([Allocation("x", torch.zeros(8, dtype=torch.int32))], [Pointer(0, 0), Scalar(0)], (1, 1, 1)))


@pytest.mark.parametrize("what", ["{llvm.noalias}", "{tt.divisibility = -16 : i32}", "{tt.pointer_range = 32 : i32}"])
def test_other_promises_about_arguments_are_refused(what):
    with pytest.raises(UnsupportedOperation, match="argument of"):
        load(declaring(what))


def calling(what, kind="i32"):
    return "\n".join(
        [
            "module {",
            f"  tt.func public @k(%x: !tt.ptr<{kind}>, %n: {kind}) {{",
            "    %i = tt.get_program_id x : i32",
            f"    %at = tt.addptr %x, %i : !tt.ptr<{kind}>, i32",
            f"    tt.call @f(%x, %n) : (!tt.ptr<{kind}>, {kind}) -> ()",
            f"    tt.call @f(%at, %n) : (!tt.ptr<{kind}>, {kind}) -> ()",
            "    tt.return",
            "  }",
            f"  tt.func private @f(%x: !tt.ptr<{kind}> {what}, %n: {kind} {what}) attributes {{noinline = true}} {{",
            f"    tt.store %x, %n : !tt.ptr<{kind}>",
            "    tt.return",
            "  }",
            "}",
        ]
    )


NOTHING = "tt.constancy = 1 : i64, tt.contiguity = 1 : i64"


@pytest.mark.parametrize(
    ("divisor", "n", "wrong"),
    [
        (4, 8, None),
        (4, 6, ("line 5 of the IR", "a multiple of 4, program (0, 0, 0) and 3 more")),
        (8, 8, ("line 6 of the IR", "a multiple of 8, program (1, 0, 0) and 1 more")),
        (2**62, 0, ("line 6 of the IR", f"a multiple of {2**62}, program (0, 0, 0) and 3 more")),
    ],
)
def test_what_a_function_promises_of_its_arguments_is_held_against_every_call(divisor, n, wrong):
    kernel = load(calling(f"{{{NOTHING}, tt.divisibility = {divisor} : i64}}"))
    x = torch.full((4,), -1, dtype=torch.int32)
    memory, args = [Allocation("x", x)], [Pointer(0, 0), Scalar(n)]
    faults = kernel.run(Launch(memory, args, (4, 1, 1))).faults
    assert x.tolist() == [n] * 4
    found = [fault for fault in faults if wrong and wrong[0] in fault.message]
    assert {fault.kind for fault in faults} == ({"false hint"} if wrong else set())
    if wrong:
        assert found[0].message.endswith(f": the value is not {wrong[1]}")
    violations = kernel.hint_violations(Launch(memory, args, (4, 1, 1))).faults
    assert {fault.kind for fault in violations} == {fault.kind for fault in faults}


@pytest.mark.parametrize("kind", ["i32", "f32"])
def test_a_function_may_say_that_it_promises_nothing(kind):
    kernel = load(calling(f"{{{NOTHING}, tt.divisibility = 1 : i64}}", kind))
    x = torch.zeros(4, dtype=torch.int32 if kind == "i32" else torch.float32)
    assert kernel.run(Launch([Allocation("x", x)], [Pointer(0, 0), Scalar(7)], (4, 1, 1))).faults == ()
    assert x.tolist() == [7] * 4


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("{llvm.noalias}", "i32", "private tt.func with an argument of llvm.noalias"),
        ("{tt.divisibility = -16 : i64}", "i32", "an argument of tt.divisibility = -16 : i64"),
        (f"{{tt.divisibility = {2**63} : i64}}", "i32", f"with tt.divisibility = dense<{2**63}>"),
        ("{tt.divisibility = 2 : i64}", "f32", "with a hint on f32"),
    ],
)
def test_promises_of_functions_that_cannot_be_checked_are_refused(what, kind, message):
    with pytest.raises(UnsupportedOperation, match=re.escape(message)):
        load(calling(what, kind))
