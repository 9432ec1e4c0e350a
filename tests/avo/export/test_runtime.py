"""What exported packages do besides calling kernels: what torch computes, which kernel is chosen, what masks say."""

import importlib
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest
import torch

from avo.export.package import VARIANT, render_package, write_package
from avo.export.runtime import _by_torch
from avo.export.runtime._calls import Call
from tests.avo.export.sample import chosen, passed, sample

PROBLEMS = (
    "mha", "gqa", "mha_backward", "mha-w1024", "mha-w1024-sinks", "gqa-packed", "mha-d192x128", "decode",
    "decode-sinks", "fsa", "fsa-local", "gqa-c50", "decode-c30",
)  # fmt: skip
NAME = "for_tests_of_the_runtime"


def lower_right(rows: int, columns: int) -> Any:
    """Return torch's mask. Importing it takes seconds, as transformers does: not where this file is only collected."""
    return importlib.import_module("torch.nn.attention.bias").causal_lower_right(rows, columns)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A package with a kernel for each of ``PROBLEMS``, imported."""
    folder = tmp_path_factory.mktemp("runtime")
    run, versions = sample()
    made = [passed(chosen(run, versions, problem=problem, name=problem), 1.0, 1.0) for problem in PROBLEMS]
    write_package(render_package(NAME, made, datetime(2026, 3, 1, tzinfo=UTC)), folder / "out")
    sys.path.insert(0, str(folder / "out" / VARIANT))
    yield importlib.import_module(NAME)
    sys.path.pop(0)


def naive(
    q: Any, k: Any, v: Any, causal: bool, window: int, sinks: Any, softcap: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    rows, keys = torch.arange(q.shape[2])[:, None] + k.shape[2] - q.shape[2], torch.arange(k.shape[2])
    group = q.shape[1] // k.shape[1]
    scores = 0.3 * q @ k.repeat_interleave(group, 1).transpose(2, 3)
    scores = softcap * (scores / softcap).tanh() if softcap else scores
    if causal:
        scores = scores.masked_fill(keys > rows, -math.inf)
    if window:
        scores = scores.masked_fill(keys <= rows - window, -math.inf)
    v = v.repeat_interleave(group, 1)
    if sinks is not None:
        scores = torch.cat((scores, sinks[None, :, None, None].expand(*scores.shape[:3], 1)), 3)
        v = torch.nn.functional.pad(v, (0, 0, 0, 1))
    return scores.softmax(3) @ v, scores.logsumexp(3)


@pytest.mark.parametrize(
    ("causal", "window", "with_sinks"), [(True, 0, False), (True, 5, True), (False, 0, True), (True, 0, True)]
)
@pytest.mark.parametrize("softcap", [0.0, 0.8])
def test_torch_computes_windows_sinks_and_soft_caps_in_place_of_a_kernel(
    monkeypatch: pytest.MonkeyPatch, causal: bool, window: int, with_sinks: bool, softcap: float
) -> None:
    monkeypatch.setattr(_by_torch, "_ROWS", 4)
    torch.manual_seed(0)
    shapes = (2, 4, 9, 8), (2, 2, 17, 8), (2, 2, 17, 6)
    q, k, v = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    sinks = torch.randn(4, dtype=torch.float64, requires_grad=True) if with_sinks else None
    right, right_lse = naive(q, k, v, causal, window, sinks, softcap)
    call = Call(q, k, v, sinks, causal=causal, scale=0.3, window=window, softcap=softcap)
    found = _by_torch.attend(call)
    torch.testing.assert_close(found, right)
    torch.testing.assert_close(_by_torch.lse(call), right_lse.detach().float(), atol=1e-4, rtol=1e-4)
    inputs = (q, k, v, *([sinks] if sinks is not None else []))
    grad = torch.randn(found.shape, dtype=torch.float64)
    for mine, other in zip(
        torch.autograd.grad(found, inputs, grad), torch.autograd.grad(right, inputs, grad), strict=True
    ):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_torch_computes_sinks_more_finely_than_the_type_of_scores_is(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 6, 40, 16).to(dtype) for _ in range(3))
    sinks = torch.tensor([8.23, 5.37, -3.3, 0.0, 0.3, -math.inf])
    found = _by_torch.attend(Call(q, k, v, sinks, causal=True, scale=0.3)).double()
    right, _ = naive(*(each.double() for each in (q, k, v)), True, 0, sinks.double())
    off, size = (torch.linalg.vector_norm(each, dim=(0, 2, 3)) for each in (found - right, right))
    error = off / size
    assert float(error.max()) < 0.6 * torch.finfo(dtype).eps


def kind(package: ModuleType, **changes: Any) -> Any:
    calls = importlib.import_module(f"{NAME}._calls")
    made = calls.Kind("attention", torch.device("cuda", 0), torch.bfloat16, (128, 128), 1, True)
    return made._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "kernels"),
    [
        ({}, ["mha_v3", "gqa_v3", "mha_w1024_v3"]),
        ({"causal": False}, ["mha_v3", "gqa_v3"]),
        ({"group": 4}, ["gqa_v3"]),
        ({"window": 64}, ["mha_w1024_v3"]),
        ({"window": 64, "sinks": True}, ["mha_w1024_sinks_v3"]),
        ({"packed": True}, ["gqa_packed_v3"]),
        ({"head_dims": (192, 128)}, ["mha_d192x128_v3"]),
        ({"function": "decode", "block_size": 64, "group": 8}, ["decode_v3"]),
        ({"softcap": 50.0}, ["gqa_c50_v3"]),
        ({"function": "decode", "block_size": 64, "softcap": 30.0}, ["decode_c30_v3"]),
    ],
)
def test_kernels_are_found_by_what_a_call_consists_of(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], kernels: list[str]
) -> None:
    dispatch = importlib.import_module(f"{NAME}._dispatch")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    found, why = dispatch.candidates(kind(package, **changes))
    assert ([kernel.name for kernel in found], why) == (kernels, "")
    alone = dispatch.choose(kind(package, **changes), 64, 64)
    assert alone.name in kernels


def test_gradients_are_a_kernels_where_one_takes_the_call_and_sinks_need_none_of_their_own(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatch = importlib.import_module(f"{NAME}._dispatch")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(dispatch, "_warned", set())
    assert [kernel.name for kernel in dispatch.gradients_by(kind(package))] == ["mha_backward_v3"]
    assert [kernel.name for kernel in dispatch.gradients_by(kind(package, sinks=True))] == ["mha_backward_v3"]
    with pytest.warns(UserWarning, match="has no backward kernel for a sliding window: torch computes the gradients"):
        assert not dispatch.gradients_by(kind(package, window=64))
    assert not dispatch.gradients_by(kind(package, window=64))  # said once


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"window": 64, "packed": True}, "a sliding window"),
        ({"sinks": True, "causal": False}, "attention sinks"),
        ({"head_dims": (192, 128), "group": 2}, "groups of 2 query heads"),
        ({"head_dims": (64, 32)}, "head dims 64 of keys and 32 of values"),
        ({"dtype": torch.float16}, "float16"),
        ({"function": "decode", "block_size": 8}, "pages of 8 keys"),
        ({"device": torch.device("cpu")}, "tensors on cpu"),
        ({"softcap": 30.0}, "a soft cap of 30"),
        ({"softcap": 50.0, "window": 64}, "a soft cap of 50"),
        ({"function": "decode", "block_size": 64, "softcap": 50.0}, "a soft cap of 50"),
    ],
)
def test_what_no_kernel_takes_is_named(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], reason: str
) -> None:
    dispatch = importlib.import_module(f"{NAME}._dispatch")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert dispatch.candidates(kind(package, **changes)) == ([], reason)


def test_a_call_with_more_keys_than_were_judged_is_no_kernels(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatch = importlib.import_module(f"{NAME}._dispatch")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert dispatch.candidates(kind(package), 65536)[0]
    assert dispatch.candidates(kind(package), 65537) == ([], "more than 65536 keys")


def test_packed_sequences_with_more_keys_than_were_judged_are_refused_for_that(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatch = importlib.import_module(f"{NAME}._dispatch")
    monkeypatch.setattr(dispatch, "INTERPRETED", True)  # takes tensors on the CPU
    (kernel,) = (each for each in dispatch.KERNELS if each.packed)
    monkeypatch.setattr(dispatch, "KERNELS", (kernel,))
    tokens = torch.zeros(1, 1, 128).expand(kernel.longest + 1, 1, 128)
    starts = torch.tensor([0, 5, len(tokens)])
    with pytest.raises(package.UnsupportedCall, match=f"no kernel for more than {kernel.longest} keys"):
        package.packed_attention(
            tokens, tokens, tokens, starts, starts, max_seqlen_q=len(tokens), max_seqlen_k=len(tokens),
            is_causal=True, on_unsupported="raise",
        )  # fmt: skip


def test_what_kernels_rely_on_is_asked_of_each_sequence_and_not_of_padding(package: ModuleType) -> None:
    unfit = importlib.import_module(f"{NAME}._selected_attention")._unfit
    starts = torch.tensor([0, 6, 10])
    own = [place // 2 for place in (*range(6), *range(4))]
    rows = [[*sorted({0, max(block - 1, 0), block}), -1, -1][:3] for block in own] + [[-1] * 3] * 2
    chosen = torch.tensor(rows)[None, None]
    assert unfit(chosen, starts, 2) == ("", False)
    for selection, of in ((chosen, None), (chosen.where(chosen > 0, -1), starts)):
        assert unfit(selection, of, 2)[0] == "queries without their own block"
    for row in ([2, 1, 0], [0, 1, 2, 2], [0, -1, 1, 2], [0, 1, 2, 3]):
        other = torch.nn.functional.pad(chosen, (0, 1), value=-1)
        other[0, 0, 5] = torch.tensor([*row, -1][:4])
        assert "not ascending with -1 at the end, or are behind" in unfit(other, starts, 2)[0], row


def test_selections_without_forced_blocks_go_to_kernels_that_were_judged_on_them(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatch, sparse = (importlib.import_module(f"{NAME}.{module}") for module in ("_dispatch", "_selected_attention"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    wanted = kind(package, function="selected_attention", block_size=16, local=True)
    assert [each.name for each in dispatch.candidates(wanted)[0]] == ["fsa_local_v3"]
    assert [each.name for each in dispatch.candidates(wanted._replace(local=False))[0]] == ["fsa_v3", "fsa_local_v3"]
    own = [place // 16 for place in range(100)]
    forced = torch.tensor([[*sorted({0, max(block - 1, 0), block}), -1, -1][:3] for block in own])[None, None]
    alone = torch.tensor([[block, -1, -1] for block in own])[None, None]
    for selection, look, local in ((forced, True, False), (alone, True, True), (forced, False, True)):
        assert sparse._selects(wanted, 100, selection, None, look=look) == ("", local)
    monkeypatch.setattr(dispatch, "KERNELS", tuple(each for each in dispatch.KERNELS if not each.local))
    assert sparse._selects(wanted, 100, forced, None, look=True) == ("", False)
    reason = "queries that may lack block 0 or the one before their own"
    assert sparse._selects(wanted, 100, alone, None, look=True) == (reason, True)
    assert sparse._selects(wanted, 100, alone, None, look=False) == ("", False)


def test_autocast_leaves_tensors_of_other_devices_alone_and_lse_exact(package: ModuleType) -> None:
    meta = torch.zeros(1, 2, 5, 8, device="meta")
    importlib.import_module(f"{NAME}._dispatch")._warned.clear()
    with pytest.warns(UserWarning, match="no kernel for tensors on meta"):
        assert package.attention(meta, meta, meta).shape == meta.shape
    torch.manual_seed(0)
    q, k = torch.randn(1, 2, 9, 64), torch.randn(1, 2, 33, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = _by_torch.lse(call := Call(q, k, k, causal=True, scale=0.3))
    assert found.dtype == torch.float32
    assert torch.equal(found, _by_torch.lse(call))


@pytest.mark.long
@pytest.mark.parametrize("without", [False, True])
def test_layers_that_select_blocks_compute_what_they_do_by_sdpa(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch, without: bool
) -> None:
    integration = importlib.import_module(f"{NAME}.transformers")
    monkeypatch.setattr(integration, "_SELECTING", not without)
    taken: list[Any] = []
    sparse = importlib.import_module(f"{NAME}._selected_attention")
    usual = sparse.selected_attention
    monkeypatch.setattr(
        sparse, "selected_attention", lambda *given, **more: taken.append(given) or usual(*given, **more)
    )
    m3 = importlib.import_module("transformers.models.minimax_m3_vl")
    config = m3.MiniMaxM3VLTextConfig(
        hidden_size=64, intermediate_size=64, dense_intermediate_size=64, shared_intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2, head_dim=32, rotary_dim=16, vocab_size=99,
        num_local_experts=2, num_experts_per_tok=1, index_n_heads=2, index_head_dim=32, index_block_size=16,
        index_topk_blocks=3, layer_types=["full_attention", "minimax_m3_sparse"], bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = m3.MiniMaxM3VLTextModel(config).eval()
    tokens = torch.randint(3, 99, (2, 120))
    padding = torch.ones_like(tokens)
    padding[0, :32] = 0
    whole = slice(None)

    def states(implementation: str) -> list[torch.Tensor]:
        model.set_attn_implementation(implementation)
        with torch.no_grad():
            first = model(tokens[:, :-1], use_cache=True)
            second = model(tokens[:, -1:], cache=first.past_key_values)
            padded = model(tokens, attention_mask=padding)
        return [first.last_hidden_state, second.last_hidden_state, padded.last_hidden_state[1]]

    right = states("sdpa")
    assert not taken
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = states(integration.register("for_m3"))
    for mine, other in zip(found, right, strict=True):
        torch.testing.assert_close(mine[whole], other[whole], atol=1e-5, rtol=1e-5)
    assert len(taken) == (0 if without else 1), "the prefill"


def test_torch_decodes_from_pages_whose_rest_is_no_number(package: ModuleType) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 4, 2, 8), torch.randn(1, 2, 7, 8), torch.randn(1, 2, 7, 6)
    pages = [torch.full((3, 2, 4, dim), torch.nan) for dim in (8, 6)]
    for page, rows in zip(pages, (key, value), strict=True):
        page[2], page[0, :, :3] = rows[0, :, :4], rows[0, :, 4:]
    table, sizes = torch.tensor([[2, 0, -1]]), torch.tensor([7])
    sinks = torch.randn(4)
    importlib.import_module(f"{NAME}._dispatch")._warned.clear()
    with pytest.warns(UserWarning, match="no kernel for tensors on cpu"):
        found = package.decode(query, *pages, table, sizes, scale=0.3, window=3, sinks=sinks, return_lse=True)
    for mine, right in zip(found, naive(query, key, value, True, 3, sinks), strict=True):
        torch.testing.assert_close(mine, right)
    found = package.decode(query, *pages, table, sizes, scale=0.3, softcap=0.8, return_lse=True)
    for mine, right in zip(found, naive(query, key, value, True, 0, None, 0.8), strict=True):
        torch.testing.assert_close(mine, right)


def test_a_batch_with_more_heads_than_a_grid_takes_is_launched_in_parts(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels for one sequence at a time and for several give the same, gradients too; torch does their work."""
    dispatch, operators = (importlib.import_module(f"{NAME}.{module}") for module in ("_dispatch", "_operators"))
    shares: list[tuple[bool, int]] = []

    def launch(kernel: Any, given: dict[str, Any]) -> None:
        shares.append((kernel.backward, len(given["q"])))
        q, k, v = (given[name] for name in "qkv")
        if kernel.backward:
            p = (0.3 * q @ k.mT - given["lse"][..., None]).exp().tril()
            ds = p * (given["dout"] @ v.mT - (given["dout"] * given["out"]).sum(3, keepdim=True))
            for name, each in (("dq", 0.3 * ds @ k), ("dk", 0.3 * ds.mT @ q), ("dv", p.mT @ given["dout"])):
                given[name].copy_(each)
        else:
            for name, each in zip(("out", "lse"), naive(q, k, v, True, 0, None), strict=True):
                given[name].copy_(each)

    monkeypatch.setattr(dispatch, "INTERPRETED", True)  # takes tensors on the CPU
    monkeypatch.setattr(operators, "launch", launch)
    q, k, v = (torch.randn(5, 2, 9, 128, requires_grad=True) for _ in range(3))
    results = []
    for most in (10, 5):
        for module in (dispatch, operators):
            monkeypatch.setattr(module, "MOST_HEADS", most)
        out, lse = package.attention(q, k, v, is_causal=True, scale=0.3, return_lse=True)
        results.append((out, lse, *torch.autograd.grad(out, (q, k, v), torch.ones_like(out))))
    assert shares == [(False, 5), (True, 5), *((backward, n) for backward in (False, True) for n in (2, 2, 1))]
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(parts, whole)


def test_more_heads_of_a_sequence_or_packed_sequences_than_a_grid_takes_go_to_torch_in_one_line(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module(f"{NAME}._dispatch"), "INTERPRETED", True)
    many, starts = torch.zeros(1, 65_536, 1, 128), torch.arange(65_537, dtype=torch.int32)
    with pytest.raises(package.UnsupportedCall, match=f"^{NAME} has no kernel for more than 65535 heads$"):
        package.attention(many, many, many, on_unsupported="raise")
    with pytest.warns(UserWarning, match="no kernel for more than 65535 heads: torch computes it"):
        assert package.attention(many, many, many).shape == many.shape
    blocks = torch.zeros(1, 65_536, 1, 3, dtype=torch.int32)
    with pytest.raises(package.UnsupportedCall, match="65535 heads"):
        package.selected_attention(many, many, many, blocks, block_size=64, on_unsupported="raise")
    dispatch = importlib.import_module(f"{NAME}._dispatch")
    assert dispatch.too_many(many[:, :4], starts[:-1]) == ""
    assert dispatch.too_many(many[:, :4], starts) == "more than 65535 packed sequences"


@pytest.fixture
def launched(package: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels for pages that were launched, on the CPU; torch does their work."""
    dispatch, of_pages = (importlib.import_module(f"{NAME}.{module}") for module in ("_dispatch", "_decode"))
    monkeypatch.setattr(dispatch, "INTERPRETED", True)  # takes tensors on the CPU
    monkeypatch.setattr(dispatch, "_DEFAULT_MODE", "sdpa")
    of_decode = tuple(each for each in dispatch.KERNELS if each.function == "decode")
    monkeypatch.setattr(dispatch, "KERNELS", of_decode)
    names: list[str] = []

    def launch(kernel: Any, given: dict[str, Any]) -> None:
        names.append(kernel.name)
        assert all(given[name].is_contiguous() for name in ("block_table", "lengths"))
        call = of_pages.PagedCall(*(given[name] for name in kernel_takes))
        for name, each in zip(("out", "lse"), of_pages.by_torch(call, with_lse=True), strict=True):
            given[name].copy_(each)

    kernel_takes = ("q", "k", "v", "block_table", "lengths", "sinks", "scale", "window", "softcap")
    monkeypatch.setattr(importlib.import_module(f"{NAME}._operators"), "launch", launch)
    return names


@pytest.mark.parametrize(
    ("sinks", "softcap", "kernel"),
    [(False, None, "decode_v3"), (True, None, "decode_sinks_v3"), (False, 30.0, "decode_c30_v3")],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_one_token_of_a_model_with_a_growing_cache_is_decoded(
    package: ModuleType,
    launched: list[str],
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    sinks: bool,
    softcap: float | None,
    kernel: str,
) -> None:
    transformers = importlib.import_module(f"{NAME}.transformers")
    cache, logits = transformers.GrowingCache(), torch.randn(4) if sinks else None

    def layer(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
        options = {"scaling": 0.3, "softcap": softcap, **options}
        out = transformers.attention_forward(torch.nn.Module(), query, key, value, None, **options)[0]
        assert isinstance(out, torch.Tensor)
        return out.transpose(1, 2)

    for tokens in (53, 1, 250, 1, 1):
        key, value = cache.update(*(torch.randn(batch, 2, tokens, 128) for _ in range(2)), 0)
    query = torch.randn(batch, 4, 1, 128)
    right = naive(query, key, value, True, 0, logits, softcap or 0.0)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(layer(query, key, value, s_aux=logits), right)
        assert launched == [kernel]
        for other in ({"dropout": 0.5}, {"s_aux": torch.randn(4, requires_grad=True)}):
            layer(query, key, value, **other)
        layer(query, key.clone(), value)
        layer(query, key, value, scaling=-0.3)
        layer(query.requires_grad_(), key, value)
        layer(torch.randn(batch, 4, 2, 128), key, value, is_causal=False)
    assert launched == [kernel]
    monkeypatch.setattr(importlib.import_module(f"{NAME}._operators"), "MOST_HEADS", 4)  # those of one sequence
    torch.testing.assert_close(layer(query.detach(), key, value, s_aux=logits), right)
    assert launched == [kernel] * (1 + batch)


def tokens_of(count: int, batch: int = 3) -> list[torch.Tensor]:
    return [torch.randn(batch, 2, count, 8) for _ in range(2)]


@pytest.mark.parametrize(
    "change",
    [
        lambda cache: cache.reorder_cache(torch.tensor([2, 0, 0])),
        lambda cache: cache.crop(-3),
        lambda cache: cache.batch_select_indices(torch.tensor([1, 2])),
        lambda cache: cache.batch_repeat_interleave(2),
        lambda cache: cache.reset(),
        lambda cache: None,
    ],
    ids=["reordered", "cropped", "selected", "repeated", "reset", "nothing"],
)
@pytest.mark.parametrize("before", [torch.no_grad, torch.inference_mode])
def test_a_growing_cache_holds_what_a_dynamic_one_does(
    package: ModuleType, change: Callable[[Any], None], before: Callable[[], Any]
) -> None:
    growing = importlib.import_module(f"{NAME}.transformers").GrowingCache()
    dynamic = importlib.import_module("transformers").DynamicCache()
    with before():
        for count in (5, 300, 1):
            given = tokens_of(count)
            for mine, other in zip(growing.update(*given, 0), dynamic.update(*given, 0), strict=True):
                assert torch.equal(mine, other)
        for cache in (growing, dynamic):
            change(cache)
    with torch.no_grad():
        batch = dynamic.layers[0].keys.shape[0] if dynamic.get_seq_length() else 3
        for _ in range(2):
            given = tokens_of(1, batch)
            for mine, other in zip(growing.update(*given, 0), dynamic.update(*given, 0), strict=True):
                assert torch.equal(mine, other)
        place = growing.layers[0].keys.data_ptr()
        growing.update(*tokens_of(1, batch), 0)
        assert growing.layers[0].keys.data_ptr() == place


def test_a_growing_cache_is_not_for_training(package: ModuleType) -> None:
    cache = importlib.import_module(f"{NAME}.transformers").GrowingCache()
    with pytest.raises(ValueError, match="GrowingCache is for inference"):
        cache.update(*(each.requires_grad_() for each in tokens_of(2)), 0)


def test_queries_that_would_see_no_key_are_no_kernels(package: ModuleType) -> None:
    q, k = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 3, 8)
    with pytest.warns(UserWarning, match="Lower right causal bias will produce NaNs"):
        mask = lower_right(5, 3)
    for arguments in ({"is_causal": True}, {"attn_mask": mask}):
        with pytest.raises(package.UnsupportedCall, match="causal attention with more queries than keys"):
            package.attention(q, k, k, **arguments, on_unsupported="raise")


@pytest.mark.parametrize("window", [None, 3])
def test_with_more_queries_than_keys_is_causal_is_aligned_to_the_upper_left(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch, window: int | None
) -> None:
    monkeypatch.setattr(importlib.import_module(f"{NAME}._dispatch"), "_DEFAULT_MODE", "sdpa")
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 3, 8), torch.randn(1, 2, 3, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out, lse = package.attention(q, k, v, is_causal=True, scale=0.3, window=window, return_lse=True)
    seen = torch.ones(5, 3, dtype=torch.bool).tril()
    scores = (0.3 * q @ k.mT).masked_fill(~(seen.triu(1 - window) if window else seen), -math.inf)
    torch.testing.assert_close(out, scores.softmax(3) @ v)
    torch.testing.assert_close(lse, scores.logsumexp(3))


def test_one_call_has_one_causal_mask(package: ModuleType) -> None:
    q, k = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 5, 8)
    with pytest.raises(ValueError, match="leave one out"):
        package.attention(q, k, k, lower_right(3, 5), is_causal=True)


def test_few_queries_to_many_keys_go_to_the_kernel_that_was_judged_on_that(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatch = importlib.import_module(f"{NAME}._dispatch")
    first, second = (kernel for kernel in dispatch.KERNELS if kernel.name in ("mha_v3", "gqa_v3"))
    case = next(each for each in dispatch.SPEEDS if each.kernel == first.name and each.causal)
    few = replace(case, case="few", kernel=second.name, q_len=2, tflops=0.1)
    monkeypatch.setattr(dispatch, "SPEEDS", (case, few))
    dispatch._fastest.cache_clear()
    found = [dispatch._fastest((first, second), kind(package), q_len, 8192).name for q_len in (8192, 1)]
    dispatch._fastest.cache_clear()
    assert found == [first.name, second.name]


def mask_of(*rows: list[tuple[int, int]], keys: int) -> torch.Tensor:
    """Return a mask [batch, 1, q_len, keys] in which each query of each batch sees the keys from one to another."""
    at = torch.arange(keys)
    return torch.stack([torch.stack([(at >= a) & (at < b) for a, b in row]) for row in rows])[:, None]


@pytest.mark.parametrize(
    ("rows", "window", "starts_q", "starts_k", "keys", "causal"),
    [
        # Padding on the left, whose queries see nothing; beside it none.
        ([[(0, 0), (1, 2), (1, 3)], [(0, 1), (0, 2), (0, 3)]], 0, [0, 2, 5], [0, 2, 5], [1, 2, 3, 4, 5], True),
        # Two sequences in one row.
        ([[(0, 1), (0, 2), (2, 3), (2, 4)]], 0, [0, 2, 4], [0, 2, 4], None, True),
        # A window of two keys, and then a sequence of its own.
        ([[(0, 1), (0, 2), (1, 3), (3, 4)]], 2, [0, 3, 4], [0, 3, 4], None, True),
        # Two new queries after a cache of two keys.
        ([[(0, 3), (0, 4)]], 0, [0, 2], [0, 4], None, True),
        # No order among tokens, and padding behind them.
        ([[(0, 2), (0, 2)], [(0, 1), (0, 1)]], 0, [0, 2, 3], [0, 2, 3], [0, 1, 2], False),
    ],
)
def test_masks_are_taken_apart_into_sequences(
    package: ModuleType,
    rows: list[list[tuple[int, int]]],
    window: int,
    starts_q: list[int],
    starts_k: list[int],
    keys: list[int] | None,
    causal: bool,
) -> None:
    pytest.importorskip("transformers")
    module = importlib.import_module(f"{NAME}.transformers")
    most = max(end for row in rows for _, end in row)
    mask = mask_of(*rows, keys=most)
    real = mask[:, 0].any(2)
    if not causal:
        real[1, 1] = False  # padding, whose results do not count
    found = module.sequences_of(mask, real, window)
    assert (found.starts_q.tolist(), found.starts_k.tolist(), found.causal) == (starts_q, starts_k, causal)
    assert (None if found.keys is None else found.keys.tolist()) == keys


@pytest.mark.parametrize("padded", [False, True])
def test_torch_computes_the_soft_caps_of_a_model_where_no_kernel_has_them(package: ModuleType, padded: bool) -> None:
    pytest.importorskip("transformers")
    module = importlib.import_module(f"{NAME}.transformers")
    importlib.import_module(f"{NAME}._dispatch")._warned.clear()
    q, k, v = (torch.randn(1, 2, 4, 8) for _ in range(3))
    mask = mask_of([(0, 1), (0, 2), (0, 3), (0, 4)], keys=4)
    of = module.sequences_of(mask, mask[:, 0].any(2), 0) if padded else None
    with pytest.warns(UserWarning, match="no kernel for tensors on cpu"):
        out = module.attention_forward(torch.nn.Module(), q, k, v, of, scaling=0.3, softcap=0.8)[0]
    torch.testing.assert_close(out.transpose(1, 2), naive(q, k, v, True, 0, None, 0.8)[0])


def test_a_soft_cap_takes_masks_and_dropout_and_rows_that_see_no_key(package: ModuleType) -> None:
    q, k, v = (torch.randn(1, 2, 4, 8, requires_grad=True) for _ in range(3))
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    mask[2] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        boolean, added = (
            package.attention(q, k, v, each, scale=0.3, softcap=0.8)
            for each in (mask, torch.zeros(4, 4).masked_fill(~mask, -math.inf))
        )
        assert not package.attention(q, k, v, dropout_p=1.0, softcap=0.8).any()
        assert package.attention(q[:, :, :0], k, v, softcap=0.8).shape == (1, 2, 0, 8)
    right = naive(q, k, v, True, 0, None, 0.8)[0]
    for out in (boolean, added):
        torch.testing.assert_close(out[:, :, [0, 1, 3]], right[:, :, [0, 1, 3]])
        assert not out[:, :, 2].any()
    assert all(each.isfinite().all() for each in torch.autograd.grad(boolean.sum(), (q, k, v)))


@pytest.mark.parametrize("softcap", [-1.0, math.nan, math.inf])
def test_a_soft_cap_is_a_number_above_zero(package: ModuleType, softcap: float) -> None:
    q, starts = torch.randn(1, 2, 4, 8), torch.tensor([0, 4], dtype=torch.int32)
    table = torch.zeros(1, 1, dtype=torch.int32)
    for call in (
        lambda: package.attention(q, q, q, softcap=softcap),
        lambda: package.packed_attention(*[q[0]] * 3, starts, starts, max_seqlen_q=4, max_seqlen_k=4, softcap=softcap),
        lambda: package.decode(q, q, q, table, starts[1:], softcap=softcap),
    ):
        with pytest.raises(ValueError, match="softcap should be above 0, or 0 for none"):
            call()


def test_a_mask_with_holes_stays_a_mask(package: ModuleType) -> None:
    pytest.importorskip("transformers")
    module = importlib.import_module(f"{NAME}.transformers")
    mask = torch.tensor([[[[True, False, False], [True, True, False], [True, False, True]]]])
    assert module.sequences_of(mask, mask[:, 0].any(2), 0) is None
