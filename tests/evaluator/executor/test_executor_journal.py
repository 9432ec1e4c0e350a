"""A journal gives buffers and their marks what they held before a kernel ran."""

from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from evaluator.executor.code import Code
from evaluator.executor.journal import Journal
from evaluator.executor.memory import Memory

ORACLE = "the buffers before the kernel ran"


@triton.jit
def changes(Rows, Cells, Sums, Marks, times):
    program, i = tl.program_id(0), tl.arange(0, 16)
    for turn in range(times):
        tl.store(Rows + program * 16 + i, tl.load(Rows + program * 16 + i) + turn + 1)
        tl.store(Cells + i * i % 16, i + turn, mask=i % 3 != program)
        tl.atomic_add(Sums + i % 4, 1.0)
        tl.store(Marks + program, tl.atomic_xchg(Marks + 2, turn + 1) + program + 1)


@pytest.mark.parametrize("times", [1, 50])
def test_what_a_kernel_changes_is_undone_as_often_as_it_runs(executor: Any, times: int) -> None:
    tensors = torch.arange(32), torch.arange(16), torch.ones(4), torch.zeros(3, dtype=torch.int32)
    launch = executor.prepare(changes, *tensors, times, grid=(2,))
    marks = [each.written for each in launch.memory]
    held = [each.clone() for each in (*tensors, *marks)]
    code, journal = Code(launch.kernel.function, launch.kernel.function), Journal(launch.memory)
    results = []
    for _ in range(2):
        memory = Memory(launch.memory)
        memory.journal = journal
        code.passes(memory, launch.args, launch.grid)
        results.append([each.clone() for each in (*tensors, *marks)])
        assert not any(map(torch.equal, results[-1], held))
        journal.undo()
        assert all(map(torch.equal, (*tensors, *marks), held))
    assert all(map(torch.equal, *results))


def test_notes_take_no_more_memory_than_the_buffers(executor: Any) -> None:
    tensors = torch.arange(32), torch.arange(16), torch.ones(4), torch.zeros(3, dtype=torch.int32)
    launch = executor.prepare(changes, *tensors, 50, grid=(2,))
    journal, most = Journal(launch.memory), 0
    note = journal.note

    def noted(held: torch.Tensor, index: torch.Tensor) -> None:
        nonlocal most
        note(held, index)
        most = max(most, sum(index.nbytes + before.nbytes for _, index, before in journal._notes))

    journal.note = noted  # type: ignore[method-assign]
    memory = Memory(launch.memory)
    memory.journal = journal
    Code(launch.kernel.function, launch.kernel.function).passes(memory, launch.args, launch.grid)
    assert 0 < most <= sum(each.data.nbytes + each.data.numel() for each in launch.memory)
