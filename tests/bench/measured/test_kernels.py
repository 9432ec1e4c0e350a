"""The kernels that stand for measured ones compute what they say, at small sizes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from avo.evaluator.offline import offline
from bench.measured.kernels import attention, matmul
from tests.corpus import sample


@pytest.fixture(autouse=True)
def fusion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # Triton 3.9 warns where it is not set


def execute(launch: Callable[[], object]) -> None:
    with offline("h100", on_fault="raise"):
        launch()


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-2) -> None:
    difference = (found.double() - expected.double()).norm() / expected.double().norm()
    assert difference < tolerance


def random(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


@pytest.mark.parametrize(("m", "n", "k"), [(128, 96, 64), (64, 96, 48), (16, 96, 64)])
def test_grouped(m: int, n: int, k: int) -> None:
    a, b, c = random(m, k), random(n, k), torch.empty(m, n, dtype=torch.float16)
    grid = (-(-m // 32) * -(-n // 32),)
    execute(lambda: matmul.grouped[grid](a, b, c, m, n, k, k, 1, 1, k, 32, 32, 32, 2))
    close(c, a.double() @ b.double().T)


TILED: dict[str, Callable[..., object]] = {
    "tiled": lambda a, b, c, sizes, strides: matmul.tiled[(9,)](a, b, c, *sizes, *strides, 32, 32, 32, 2),
    "persistent": lambda a, b, c, sizes, strides: matmul.persistent[(4,)](a, b, c, *sizes, *strides, 32, 32, 32, 2, 4),
    "persistent_descriptors": lambda a, b, c, sizes, strides: matmul.persistent_descriptors[(4,)](
        a, b, c, *sizes, 32, 32, 32, 2, 4
    ),
    "persistent_tma": lambda a, b, c, sizes, strides: matmul.persistent_tma[(4,)](
        *(TensorDescriptor.from_tensor(each, [32, 32]) for each in (a, b, c)), *sizes, 32, 32, 32, 2, 4
    ),
}


@pytest.mark.parametrize("name", TILED)
def test_matrix_products_of_tutorial_09(name: str) -> None:
    m, n, k = 96, 96, 64  # nine tiles
    a, b, c = random(m, k), random(n, k), torch.empty(m, n, dtype=torch.float16)
    execute(lambda: TILED[name](a, b, c, (m, n, k), (k, 1, 1, k, n, 1)))
    close(c, a.double() @ b.double().T)


def test_block_scaled() -> None:
    m, n, k, scaled = 20, 128, 128, 64
    a, b = (random(rows, k).to(torch.float8_e4m3fn) for rows in (m, n))
    a_scales, b_scales = torch.rand(m, k // scaled), torch.rand(n // scaled, k // scaled)
    c = torch.empty(m, n, dtype=torch.float16)
    execute(
        lambda: matmul.block_scaled[(8,)](
            a, b, c, a_scales, b_scales, m, n, k, scaled, scaled, k, 1, 1, k, n, 1, k // scaled, 1, 1, k // scaled,
            16, 32, 32, 1,
        )
    )  # fmt: skip
    left = a.double() * a_scales.double().repeat_interleave(scaled, 1)
    right = b.double() * b_scales.double().repeat_interleave(scaled, 0).repeat_interleave(scaled, 1)
    close(c, left @ right.T)


def causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention of q [queries, heads, dim] to k and v [keys, KV heads, dim], the last query to all keys."""
    group = q.shape[1] // k.shape[1]
    k, v = (each.double().repeat_interleave(group, 1) for each in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q.double(), k) * q.shape[2] ** -0.5
    hidden = torch.ones(q.shape[0], k.shape[0], dtype=torch.bool).triu(1 + k.shape[0] - q.shape[0])
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)


@pytest.mark.parametrize("pre_load_v", sample([False, True], 2))
@pytest.mark.parametrize(("q_lens", "kv_lens"), [([64, 64], [64, 64]), ([17, 50], [40, 50])])
def test_causal_attention_over_sequences(q_lens: list[int], kv_lens: list[int], pre_load_v: bool) -> None:
    heads, kv_heads, dim, longest = 4, 2, 32, max(q_lens)
    q, k, v = random(sum(q_lens), heads, dim), random(sum(kv_lens), kv_heads, dim), random(sum(kv_lens), kv_heads, dim)
    out, lse = torch.empty_like(q), torch.empty(len(q_lens), heads, longest)
    starts = [torch.tensor([0, *lens], dtype=torch.int32).cumsum(0, dtype=torch.int32) for lens in (q_lens, kv_lens)]
    strides: Any = (q.stride(1), q.stride(0), k.stride(1), k.stride(0))
    execute(
        lambda: attention.causal_varlen[(-(-longest // 32), heads, len(q_lens))](
            q, k, v, lse, out, *starts, *strides, heads, kv_heads, longest, dim, dim**-0.5, 32, 16, pre_load_v
        )
    )
    parts = zip(q.split(q_lens), k.split(kv_lens), v.split(kv_lens), strict=True)
    close(out, torch.cat([causal(*part) for part in parts]))


@pytest.mark.long
def test_attention_over_a_paged_cache() -> None:
    heads, group, dim, page, pages = 8, 4, 32, 16, 12
    q_lens, kv_lens = [1, 20, 5], [33, 20, 48]
    q, k, v = random(sum(q_lens), heads, dim), random(pages, page, 2, dim), random(pages, page, 2, dim)
    out = torch.empty_like(q)
    tables = torch.tensor([[3, 7, 1], [0, 5, 0], [2, 9, 11]], dtype=torch.int32)
    starts = torch.tensor([0, 1, 21, 26], dtype=torch.int32)
    lens = torch.tensor(kv_lens, dtype=torch.int32)
    execute(
        lambda: attention.paged[(26 // 4 + 3, 2)](
            out, q, k, v, tables, lens, dim**-0.5, heads, group, tables.stride(0), q.stride(0), q.stride(1),
            out.stride(0), out.stride(1), page, dim, *k.stride()[:3], *v.stride()[:3], starts, 3, 16, 32,
        )
    )  # fmt: skip
    expected = []
    for i, part in enumerate(q.split(q_lens)):
        keys, values = (cache[tables[i].long()].flatten(0, 1)[: kv_lens[i]] for cache in (k, v))
        expected.append(causal(part, keys, values))
    close(out, torch.cat(expected))


def test_dense_attention() -> None:
    batch, heads, length, dim = 2, 2, 64, 32
    q, k, v = (random(batch * heads, length, dim) + shift for shift in (0.0, 0.1, 0.2))
    out, lse = torch.empty_like(q), torch.empty(batch * heads, length)
    flat = [each.view(-1, dim) for each in (q, k, v, out)]
    made = [TensorDescriptor.from_tensor(each, [rows, dim]) for each, rows in zip(flat, (32, 16, 16, 32), strict=True)]
    execute(lambda: attention.dense[(2, 4)](dim**-0.5, lse, heads, *made, length, dim, 32, 16))
    scores = q.double() @ k.double().mT * dim**-0.5
    close(out, scores.softmax(-1) @ v.double())
    close(lse, scores.logsumexp(-1) / torch.log(torch.tensor(2.0)), 1e-3)
