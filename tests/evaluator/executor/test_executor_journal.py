"""A journal gives memory what it held before a kernel ran, and keeps no more of it than the kernel changes."""

from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.executor.code import Code
from avo.evaluator.executor.journal import Journal
from avo.evaluator.executor.memory import Memory

ORACLE = "the buffers before the kernel ran"


@triton.jit
def changes(Rows, Cells, Sums, Marks, times, far):
    program, i = tl.program_id(0), tl.arange(0, 16)
    for turn in range(times):
        row = Rows + far * 3 // 4 + program * 16 + i
        tl.store(row, tl.load(row) + turn + 1)
        tl.store(Cells + i * i % 16 * far // 16, i + turn + 1, mask=i % 3 != program)
        tl.atomic_add(Sums + i % 4, 1.0)
        tl.store(Marks + program, tl.atomic_xchg(Marks + 2, turn + 1) + program + 1)


def tensors(far: int) -> tuple[torch.Tensor, ...]:
    return torch.arange(far), torch.arange(far, dtype=torch.int16), torch.ones(4), torch.zeros(3, dtype=torch.int32)


@pytest.mark.parametrize("far", [64, 2**18])
@pytest.mark.parametrize("times", [1, 20])
def test_what_a_kernel_changes_is_undone_as_often_as_it_runs(executor: Any, times: int, far: int) -> None:
    values = tensors(far)
    launch = executor.prepare(changes, *values, times, far, grid=(2,))
    for each in launch.memory:
        each.initialised = torch.zeros(each.data.numel(), dtype=torch.bool)
    held = [each for a in launch.memory for each in (a.data, a.written, a.initialised)]
    before = [each.clone() for each in held]
    code, journal = Code(launch.kernel.function, launch.kernel.function), Journal()
    results = []
    for _ in range(3):
        memory = Memory(launch.memory)
        memory.journal = journal
        code.passes(memory, launch)
        results.append([each.clone() for each in held])
        assert not any(map(torch.equal, results[-1], before))
        journal.undo()
        assert all(map(torch.equal, held, before))
    for each in results[1:]:
        assert all(map(torch.equal, each, results[0]))


@pytest.mark.parametrize("length", [1, 24, 100_000])
def test_rows_of_any_length_are_kept_and_little_beside_them(length: int) -> None:
    held = torch.zeros(2**21, dtype=torch.int32)
    start = 2**16 - (7 * length + 10) % 2**14  # so that row 7 begins ten elements before the end of a chunk
    rows = held[start : start + 10 * length].view(10, length)
    journal = Journal()
    journal.note(rows, torch.tensor([7, 3, 7]))
    held[:] = 1
    journal.undo()
    assert not rows[[7, 3]].any()
    assert int((held == 0).sum()) * 4 <= 2 * 4 * length + 4 * 2**16
