"""The exported benchmark times every backend of torch's, on a cold and clean cache, as graphs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from avo.export.package import render_package
from avo.export.runtime import _by_torch
from avo.export.runtime._by_torch import attend, each_sequence
from avo.export.runtime._calls import Call
from avo.export.table import table
from tests.avo.export.sample import chosen, passed, sample

CASE = SimpleNamespace(
    case="8k-full", kernel="v0", batch=1, heads=2, kv_heads=2, q_len=16, length=16, head_dim=8, head_dim_v=8,
    causal=False, window=0, lengths=(), block_size=0,
)  # fmt: skip


class Gpu:
    """What torch's CUDA functions are replaced by: every run takes 2 ms; what is not captured is counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, captures: bool = True) -> None:
        self.replays = 0
        self.order: list[str] = []
        gpu = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                pass

            def record(self) -> None:
                gpu.order.append("event")

            def elapsed_time(self, end: "Event") -> float:
                return 2.0

        class Graph:
            def replay(self) -> None:
                gpu.replays += 1
                gpu.order.append("run")

        @contextmanager
        def graph(recorded: Graph) -> Iterator[None]:
            yield
            if not captures:
                raise RuntimeError("operation not permitted when stream is capturing")

        told = {
            "is_available": lambda: True, "get_device_capability": lambda: (9, 0), "get_device_name": lambda: "Fake",
            "synchronize": lambda: None, "Event": Event, "CUDAGraph": Graph, "graph": graph,
        }  # fmt: skip
        for name, value in told.items():
            monkeypatch.setattr(torch.cuda, name, value)


@pytest.fixture(scope="module")
def source() -> str:
    run, versions = sample()
    rendered = render_package("mine", [passed(chosen(run, versions), 300.0, 250.0)], datetime(2026, 3, 1, tzinfo=UTC))
    return str(rendered["benchmark.py"])


def benchmark(
    source: str,
    monkeypatch: pytest.MonkeyPatch,
    *arguments: str,
    case: Any = CASE,
    entry: str = "attention",
    softcap: float = 0.0,
    **public: Any,
) -> Any:
    """Run the script with a package that calls torch, or what is given in its place."""

    def attention(q: Any, k: Any, v: Any, mask: Any, *, is_causal: bool, **options: Any) -> torch.Tensor:
        return scaled_dot_product_attention(q, k, v, is_causal=is_causal)

    kernel = SimpleNamespace(
        name="v0", capability=(9, 0), function=entry.removesuffix("_backward"), entry=entry, dtypes=["float32"],
        tensors=("q",), scalars=(), head_dims=((8, 8),), packed=entry == "attention" and case.lengths != (),
        backward=entry.endswith("_backward"), softcap=softcap,
    )  # fmt: skip

    def packed_attention(q: Any, k: Any, v: Any, starts: Any, *others: Any, **options: Any) -> torch.Tensor:
        q, k, v = (each.transpose(0, 1)[None] for each in (q, k, v))
        parts = each_sequence(Call(q, k, v, starts_q=starts, starts_k=starts, causal=case.causal))
        return torch.cat([attend(part) for part in parts], 2)[0].transpose(0, 1)

    for name, members in {
        "mine": {"attention": attention, "packed_attention": packed_attention, "_by_torch": _by_torch, **public},
        "mine._calls": {"Call": Call},
        "mine._dispatch": {"KERNELS": [kernel], "SPEEDS": [case], "CaseSpeed": object, "ExportedKernel": object},
    }.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    made = ModuleType("benchmark")
    exec(compile(source, "benchmark.py", "exec"), vars(made))
    vars(made).update(_DEVICE="cpu", _FLUSH_BYTES=64)
    return made


def test_ours_and_each_backend_are_timed_as_graphs(
    source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = Gpu(monkeypatch)
    benchmark(source, monkeypatch, "--runs", "3").main()
    head, ours, *torchs = capsys.readouterr().out.splitlines()
    assert head.startswith("Fake, torch ")
    assert ours.split() == ["8k-full", "2000.0", "(2000.0", "to", "2000.0)"]
    assert [line.split()[1] for line in torchs] == ["FlashAttention", "cuDNN", "efficient"]
    assert "ours is 1.00 times as fast" in torchs[0]
    timed = sum("times as fast" in line for line in torchs)
    assert timed < 3  # on this machine not every backend takes the call; those that do not say so
    assert gpu.replays == 3 * (1 + timed)


def test_a_soft_cap_which_no_backend_has_is_timed_alone(
    source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    caps = []

    def attention(q: Any, k: Any, v: Any, mask: Any, *, softcap: float, **options: Any) -> torch.Tensor:
        caps.append(softcap)
        return q

    Gpu(monkeypatch)
    benchmark(source, monkeypatch, softcap=50.0, attention=attention).main()
    assert set(caps) == {50.0}
    assert "torch, " not in capsys.readouterr().out.partition("\n")[2]


def test_each_run_finds_the_cache_overwritten_and_read(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)
    script = benchmark(source, monkeypatch)
    flush = SimpleNamespace(fill_=lambda value: gpu.order.append("write"), sum=lambda: gpu.order.append("read"))
    monkeypatch.setattr(torch, "empty", lambda *size, **options: flush)
    script.times(lambda: torch.zeros(1), 3)
    assert gpu.order == ["write", "read", "event", "run", "event"] * 3


def test_a_backward_pass_is_timed_alone_on_a_forward_pass_made_before(
    source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Gpu(monkeypatch)
    script = benchmark(source, monkeypatch, "--runs", "1", entry="attention_backward")
    ours, _ = script.calls(script.KERNELS[0], CASE, torch.float32)
    assert ours().shape == (1, 2, 16, 8)
    script.main()
    assert capsys.readouterr().out.splitlines()[1].startswith("8k-full, backward ")


def test_packed_sequences_are_timed_as_such(
    source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Gpu(monkeypatch)
    packed = SimpleNamespace(**{**vars(CASE), "lengths": (3, 5, 8), "causal": True})
    script = benchmark(source, monkeypatch, "--runs", "1", case=packed)
    ours, _torchs = script.calls(script.KERNELS[0], packed, torch.float32)
    assert ours().shape == (16, 2, 8)
    script.main()
    assert "8k-full" in capsys.readouterr().out


def test_sequences_that_are_decoded_are_as_long_as_the_judged_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    run, versions = sample()
    decoded = passed(chosen(run, versions, problem="decode"), 1.0, 1.0)
    source = str(render_package("mine", [decoded], datetime(2026, 3, 1, tzinfo=UTC))["benchmark.py"])
    judged = next(case for case in table([decoded])["cases"] if case["case"] == "8k-b8-q4-ragged")
    case = SimpleNamespace(**{**judged, "lengths": tuple(judged["lengths"]), "heads": 2, "kv_heads": 1})
    given: list[torch.Tensor] = []

    def decode(q: Any, keys: Any, values: Any, pages: Any, lengths: Any, **options: Any) -> torch.Tensor:
        given.append(lengths)
        return torch.zeros_like(q)

    script = benchmark(source, monkeypatch, case=case, entry="decode", decode=decode)
    ours, torchs = script.calls(script.KERNELS[0], case, torch.float32)
    ours()
    judged_lengths = [1024 * (sequence + 1) for sequence in range(8)]
    assert given[0].tolist() == judged_lengths
    seen: list[tuple[int, torch.Tensor]] = []

    def attend(call: Call, mask: torch.Tensor) -> torch.Tensor:
        seen.append((call.keys(), mask))
        return call.query

    monkeypatch.setattr(_by_torch, "attend", attend)
    assert torchs["cuDNN"]().shape == (8, 2, 4, 128)
    assert [length for length, _ in seen] == judged_lengths
    assert all(mask.sum(1).tolist() == [length - 3 + query for query in range(4)] for length, mask in seen)


def test_torch_decodes_one_query_without_a_mask(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = SimpleNamespace(**{**vars(CASE), "q_len": 1, "causal": True})
    script = benchmark(source, monkeypatch, case=one)
    masks: list[object] = []
    monkeypatch.setattr(_by_torch, "attend", lambda call, mask: masks.append((call.causal, mask)) or call.query)
    script.calls(script.KERNELS[0], one, torch.float32)[1]["cuDNN"]()
    assert masks == [(False, None)]


def test_one_run_is_enough_and_none_is_refused(
    source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Gpu(monkeypatch)
    benchmark(source, monkeypatch, "--runs", "1").main()
    assert "2000.0 (2000.0 to 2000.0)" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        benchmark(source, monkeypatch, "--runs", "0").main()
    assert "should be 1 or more" in capsys.readouterr().err


def test_what_cannot_be_captured_is_timed_all_the_same_and_says_so(
    source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = Gpu(monkeypatch, captures=False)
    benchmark(source, monkeypatch, "--runs", "2").main()
    assert "(without a graph)" in capsys.readouterr().out.splitlines()[1]
    assert gpu.replays == 0
