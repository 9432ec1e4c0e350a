"""What a session reports of launches that go wrong, by name, and what it is silent about."""

import json
import threading
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.offline import FaultsFound, offline


@triton.jit
def copy(x, y, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.load(x + i, mask=i < n), mask=i < n)


@triton.jit
def copy_2d(x, y, x_row, y_row, COLUMNS: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, COLUMNS)
    tl.store(y + row * y_row + column, tl.load(x + row * x_row + column))


@triton.jit
def last_wins(y, BLOCK: tl.constexpr):
    tl.store(y + tl.arange(0, BLOCK), tl.program_id(0))


def kinds(session: Any) -> list[str]:
    return [fault.kind for fault in session.report().faults]


def test_an_access_beyond_the_end_is_named() -> None:
    x, y = torch.randn(30), torch.randn(100)
    with offline() as session:
        copy[(2,)](x, y, 40, BLOCK=32)
    (fault,) = session.report().faults
    assert (fault.kind, fault.kernel, fault.tensor) == ("read out of bounds", "copy", "x")
    assert fault.location.startswith("test_offline_findings.py:")
    assert fault.program == (0, 0, 0)
    assert fault.index == (30,)
    text = str(session.report())
    assert "1 launch of 1 kernel, 2 programs, for h100, sanitised" in text
    assert fault.message in text
    data = json.loads(json.dumps(session.report().as_json()))
    assert data["faults"][0]["tensor"] == "x"
    assert data["launches"][0]["constants"] == {"BLOCK": 32}


def test_padding_between_the_rows_of_a_view_is_no_part_of_it() -> None:
    x, y = torch.randn(4, 20), torch.zeros(4, 16)
    with offline() as session:
        copy_2d[(4,)](x[:, :12], y, 20, 16, COLUMNS=16)
    (fault,) = session.report().faults
    assert (fault.kind, fault.tensor) == ("read in padding", "x")
    with offline(check_padding=False) as session:
        copy_2d[(4,)](x[:, :12], y, 20, 16, COLUMNS=16)
    assert session.report().clean
    assert torch.equal(y, x[:, :16])


def test_reads_behind_a_tensor_in_its_storage_are_noted_and_writes_are_faults() -> None:
    starts, y = torch.arange(33.0), torch.zeros(33)
    with offline() as session:
        copy[(1,)](starts[1:-1], y, 32, BLOCK=32)
        report = session.take_report()
        assert report.clean
        assert [note.kind for note in report.notes] == ["read beside a tensor"]
        copy[(1,)](starts, y[:-1], 33, BLOCK=64)
    assert [(fault.kind, fault.tensor) for fault in session.report().faults] == [("write in padding", "y")]


def test_reads_of_what_nobody_wrote_are_reported() -> None:
    y = torch.zeros(64)
    with offline() as session:
        made = torch.empty(64)
        made[:40].zero_()
        copy[(1,)](made, y, 40, BLOCK=64)
        assert kinds(session) == []
        copy[(1,)](made, y, 41, BLOCK=64)
    (fault,) = session.report().faults
    assert (fault.kind, fault.tensor, fault.index) == ("read of uninitialised memory", "x", (40,))


@triton.jit
def lower(a, out, N: tl.constexpr):
    i = tl.arange(0, N)
    inside = i[:, None] >= i[None, :]
    value = tl.load(a + i[:, None] * N + i[None, :])
    tl.store(out + i[:, None] * N + i[None, :], tl.where(inside, value, 0.0))


def test_reads_of_garbage_that_is_selected_away_are_only_noted() -> None:
    with offline() as session:
        out = torch.empty(20, 16)  # some of which stays unwritten
        a = torch.empty(16, 16)
        for row in range(16):
            a[row, : row + 1] = 1.0
        lower[(1,)](a, out, N=16)
        report = session.take_report()
        assert report.clean
        (note,) = report.notes
        assert note.message.endswith("other contents in its place change no result")
        a = torch.empty(16, 16)
        for row in range(16):
            a[row, :row] = 1.0
        lower[(1,)](a, out, N=16)
    (fault,) = session.report().faults
    assert (fault.kind, fault.tensor) == ("read of uninitialised memory", "a")


def test_whatever_else_may_have_written_a_tensor_counts() -> None:
    y = torch.zeros(64)
    before = torch.empty(64)
    with offline() as session:
        launched, copied, filled, shared, viewed = (torch.empty(64) for _ in range(5))
        copy[(1,)](y, launched, 64, BLOCK=64)
        copied.copy_(y)
        torch.add(y, 1, out=filled)
        shared.numpy()[:] = 1
        viewed.view(8, 8).T.fill_(2)
        raw = torch.empty(64, dtype=torch.int32)
        copy[(1,)](y.view(torch.int32), raw, 64, BLOCK=64)
        halves = torch.empty(128, dtype=torch.float16)
        copy[(1,)](y, halves.view(torch.float32), 64, BLOCK=64)
        for x in (before, launched, copied, filled, shared, viewed, raw.view(torch.float32)):
            copy[(1,)](x, y, 64, BLOCK=64)
        copy[(2,)](halves, torch.zeros(128).half(), 128, BLOCK=64)
        with torch.inference_mode():
            inferred = torch.empty(64)
            inferred.fill_(1)
            copy[(1,)](inferred, y, 64, BLOCK=64)
    assert session.report().clean, session.report()


def test_writes_of_other_threads_count() -> None:
    y = torch.zeros(64)
    with offline() as session:
        x = torch.empty(64)
        thread = threading.Thread(target=x.fill_, args=(1.0,))
        thread.start()
        thread.join()
        copy[(1,)](x, y, 64, BLOCK=64)
    assert session.report().clean


@torch.library.custom_op("evaluator_offline::half_made", mutates_args=())
def half_made(x: torch.Tensor) -> torch.Tensor:
    y = torch.empty_like(x)
    y[: len(x) // 2] = 1.0
    return y


def test_what_an_operator_in_python_leaves_unwritten_is_known() -> None:
    x = torch.zeros(64)
    with offline() as session:
        made = half_made(x)
        copy[(1,)](made, x, 32, BLOCK=64)
        assert session.take_report().clean
        copy[(1,)](made, x, 64, BLOCK=64)
    (fault,) = session.report().faults
    assert (fault.kind, fault.index) == ("read of uninitialised memory", (32,))


def test_races_through_overlapping_foreign_memory_are_found() -> None:
    array = np.zeros(200, dtype=np.float32)
    with offline() as session:
        copy[(4,)](torch.from_numpy(array[:128]), torch.from_numpy(array[32:160]), 128, BLOCK=32)
    assert "read-write race" in kinds(session)


def test_foreign_memory_is_aligned_as_it_is() -> None:
    whole = torch.arange(100.0)
    assert whole.data_ptr() % 16 == 0
    array = whole.numpy()
    y = torch.zeros(64)
    with offline() as session:
        copy[(1,)](torch.from_numpy(array[1:])[3:], y, 64, BLOCK=64)
        assert torch.equal(y, whole[4:68])
        copy[(1,)](torch.from_numpy(array[1:]), y, 64, BLOCK=64)
        assert torch.equal(y, whole[1:65])
    assert session.report().clean


def test_races_are_reported_and_an_order_that_matters_is_said() -> None:
    y = torch.zeros(16)
    with offline(check_order=True) as session:
        last_wins[(8,)](y, BLOCK=16)
    report = session.report()
    assert "write race" in [fault.kind for fault in report.faults]
    (line,) = report.order_dependent
    assert line.startswith("last_wins: a shuffled order of programs changes ")
    assert not report.clean


def test_faults_are_raised_on_request() -> None:
    x, y = torch.randn(30), torch.zeros(64)
    expected = pytest.raises(FaultsFound, match="read out of bounds in copy at")
    with offline(on_fault="raise") as session, expected as info:
        copy[(2,)](x, y, 40, BLOCK=32)
    assert info.value.faults == session.report().faults


def test_a_taken_report_leaves_a_fresh_one() -> None:
    x, y = torch.randn(30), torch.zeros(64)
    with offline() as session:
        copy[(2,)](x, y, 40, BLOCK=32)
        assert not session.take_report().clean
        assert session.report().launches == ()
        copy[(2,)](x, y, 30, BLOCK=32)
    assert session.report().clean


@triton.jit
def raise_to(x, largest, N: tl.constexpr):
    tl.atomic_max(largest, tl.max(tl.load(x + tl.arange(0, N))))


def test_a_maximum_kept_in_memory_that_nobody_set_is_a_fault() -> None:
    with offline() as session:
        raise_to[(1,)](torch.full((16,), 3.0), torch.empty(1), N=16)
    assert kinds(session) == ["read of uninitialised memory"]
