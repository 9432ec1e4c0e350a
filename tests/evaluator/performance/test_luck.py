"""No luck: kernels that do the same in another order of independent statements are predicted to take the same time."""

import ast
import math
import random
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

from avo.evaluator.offline import Launch, offline
from avo.evaluator.performance import predict_time
from avo.evaluator.performance.constants import DRAWS, constants
from avo.evaluator.performance.memory import Timing
from avo.evaluator.performance.model import _drawn, time_case
from avo.evaluator.performance.sass import parse
from avo.evaluator.targets import get_target
from avo.evaluator.work import LaunchWork
from bench.claims import made
from bench.orders import module_of
from tests.evaluator.performance.handmade import launched

pytestmark = pytest.mark.long

H100 = get_target("h100")
COLD = Timing(cold=True)
ROWS, LENGTH, HEAD_DIM, BLOCK = 64, 8192, 128, 128
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def attention(
    Q, K, V, Out, Lse, scale, q_len, kv_len,
    ORDER: tl.constexpr, CAUSAL: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    block_m = tl.program_id(0)
    row = tl.program_id(1)
    rows = tl.num_programs(1)
    if ORDER == "descriptors":
        v_desc = tl.make_tensor_descriptor(V, [rows * kv_len, HEAD_DIM], [HEAD_DIM, 1], [BLOCK_N, HEAD_DIM])
        k_desc = tl.make_tensor_descriptor(K, [rows * kv_len, HEAD_DIM], [HEAD_DIM, 1], [BLOCK_N, HEAD_DIM])
        o_desc = tl.make_tensor_descriptor(Out, [rows * q_len, HEAD_DIM], [HEAD_DIM, 1], [BLOCK_M, HEAD_DIM])
        q_desc = tl.make_tensor_descriptor(Q, [rows * q_len, HEAD_DIM], [HEAD_DIM, 1], [BLOCK_M, HEAD_DIM])
    else:
        q_desc = tl.make_tensor_descriptor(Q, [rows * q_len, HEAD_DIM], [HEAD_DIM, 1], [BLOCK_M, HEAD_DIM])
        k_desc = tl.make_tensor_descriptor(K, [rows * kv_len, HEAD_DIM], [HEAD_DIM, 1], [BLOCK_N, HEAD_DIM])
        v_desc = tl.make_tensor_descriptor(V, [rows * kv_len, HEAD_DIM], [HEAD_DIM, 1], [BLOCK_N, HEAD_DIM])
        o_desc = tl.make_tensor_descriptor(Out, [rows * q_len, HEAD_DIM], [HEAD_DIM, 1], [BLOCK_M, HEAD_DIM])
    scale *= LOG2_E
    q = q_desc.load([row * q_len + block_m * BLOCK_M, 0])
    m = tl.full([BLOCK_M], float("-inf"), tl.float32)
    l = tl.zeros([BLOCK_M], tl.float32)  # noqa: E741
    acc = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    offs_m = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    hi = kv_len
    if CAUSAL:
        hi = (block_m + 1) * BLOCK_M
    for start_n in tl.range(0, hi, BLOCK_N, warp_specialize=True):
        if ORDER == "v before k":
            v = v_desc.load([row * kv_len + start_n, 0])
            k = k_desc.load([row * kv_len + start_n, 0])
        else:
            k = k_desc.load([row * kv_len + start_n, 0])
        s = tl.dot(q, k.T)
        if CAUSAL:
            s = tl.where(start_n + tl.arange(0, BLOCK_N)[None, :] <= offs_m[:, None], s, float("-inf"))
        if ORDER == "scaled maximum":
            m_new = tl.max(s, 1) * scale
            m_new = tl.maximum(m_new, m)
        else:
            m_new = tl.maximum(m, tl.max(s, 1) * scale)
        if ORDER == "rescale first":
            rescale = tl.exp2(m - m_new)
            acc = acc * rescale[:, None]
            l = l * rescale  # noqa: E741
            p = tl.exp2(s * scale - m_new[:, None])
            l += tl.sum(p, 1)  # noqa: E741
        elif ORDER == "factor first":
            rescale = tl.exp2(m - m_new)
            p = tl.exp2(s * scale - m_new[:, None])
            l = l * rescale + tl.sum(p, 1)  # noqa: E741
            acc = acc * rescale[:, None]
        elif ORDER == "converted first":
            p = tl.exp2(s * scale - m_new[:, None])
            low = p.to(tl.bfloat16)
            rescale = tl.exp2(m - m_new)
            acc = rescale[:, None] * acc
            l = tl.sum(p, 1) + rescale * l  # noqa: E741
        else:
            p = tl.exp2(s * scale - m_new[:, None])
            rescale = tl.exp2(m - m_new)
            if ORDER == "accumulator first":
                acc = acc * rescale[:, None]
                l = l * rescale + tl.sum(p, 1)  # noqa: E741
            elif ORDER == "sum last":
                l = l * rescale  # noqa: E741
                acc = acc * rescale[:, None]
                l += tl.sum(p, 1)  # noqa: E741
            else:
                l = l * rescale + tl.sum(p, 1)  # noqa: E741
                acc = acc * rescale[:, None]
        if ORDER != "v before k":
            v = v_desc.load([row * kv_len + start_n, 0])
        if ORDER != "converted first":
            low = p.to(tl.bfloat16)
        acc = tl.dot(low, v, acc)
        m = m_new
    if ORDER == "lse first":
        tl.store(Lse + row.to(tl.int64) * q_len + offs_m, m + tl.log(l))
        o_desc.store([row * q_len + block_m * BLOCK_M, 0], (acc / l[:, None]).to(Out.dtype.element_ty))
    else:
        o_desc.store([row * q_len + block_m * BLOCK_M, 0], (acc / l[:, None]).to(Out.dtype.element_ty))
        tl.store(Lse + row.to(tl.int64) * q_len + offs_m, m + tl.log(l))


ORDERS = (
    "plain", "factor first", "accumulator first", "v before k", "sum last", "rescale first", "lse first",
    "descriptors", "scaled maximum", "converted first",
)  # fmt: skip
DIFFERENT = ("plain", "v before k", "lse first")
"""Orders of which the compiler makes other machine code."""


@cache
def work(order: str, causal: bool = False) -> LaunchWork:
    tensors = {name: torch.empty(ROWS * LENGTH, HEAD_DIM, dtype=torch.bfloat16) for name in ("Q", "K", "V", "Out")}
    values = {**tensors, "Lse": torch.empty(ROWS * LENGTH), "scale": 0.1, "q_len": LENGTH, "kv_len": LENGTH}
    return launched(
        attention, values, (LENGTH // BLOCK, ROWS, 1),
        stages=2, ORDER=order, CAUSAL=causal, HEAD_DIM=HEAD_DIM, BLOCK_M=BLOCK, BLOCK_N=BLOCK,
    )  # fmt: skip


def mean_us(work: LaunchWork, seeds: int) -> float:
    """The predicted time with other plays: those of seeds from ``seeds`` on."""
    logs = [
        math.log(time_case([work], 0, _drawn(H100, draw), COLD, constants(90, draw), seeds + draw).seconds)
        for draw in range(DRAWS)
    ]
    return math.exp(sum(logs) / DRAWS) * 1e6


def spread(times: Sequence[float]) -> float:
    return max(times) / min(times) - 1


def test_independent_statements_in_another_order_make_no_difference() -> None:
    works = [work(order) for order in DIFFERENT]
    assert len({_code(work) for work in works}) == len(works)  # else nothing would be shown
    assert spread([predict_time([work], H100).us for work in works]) < 0.02
    # that is not so for one play of each, without jitter: they fall into one rhythm or another
    assert spread([time_case([work], 0, H100).seconds for work in works]) > 0.02


def test_few_orders_of_independent_statements_make_a_difference_to_the_score() -> None:
    cases = {name: [work(name, causal) for causal in (False, True)] for name in ORDERS}
    for works in zip(*cases.values(), strict=True):
        assert len(set(map(_code, works))) >= 5  # else little would be shown
    means = {name: math.prod(predict_time([case], H100).us for case in both) ** 0.5 for name, both in cases.items()}
    assert spread(list(means.values())) < 0.06
    # the role that loads waits for another slot of the ring first; weights are converted before they are summed
    del means["v before k"], means["converted first"]
    assert spread(list(means.values())) < 0.01


def test_exchanged_statements_make_little_difference_where_exponentials_are_in_part_a_polynomial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    source = made(["mha/plain", "specialise", "side", "polynomial"], "h100")
    exchanged = re.sub(r"( +rescale = tl.exp2.*\n)( +p = exp2_in_part.*\n)", r"\2\1", source)
    given, other = (_launches(each, tmp_path) for each in (source, exchanged))
    for one, same in zip(given, other, strict=True):
        assert _code(one.work) != _code(same.work)  # else nothing would be shown
    assert spread([math.prod(launch.predict().us for launch in each) ** 0.5 for each in (given, other)]) < 0.06


def test_generated_orders_differ_by_the_order_and_not_by_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    source = made(["mha/plain", "specialise"], "h100")
    launches = [_launches(permuted(source, random.Random(seed)), tmp_path) for seed in range(8)]
    codes = [tuple(_code(launch.work) for launch in each) for each in launches]
    assert len(set(codes)) >= 5  # else little would be shown
    scores = [math.prod(launch.predict().us for launch in each) ** 0.5 for each in launches]
    assert len(set(zip(codes, scores, strict=True))) == len(set(codes))
    assert 0.02 < spread(scores) < 0.12
    others = [math.prod(mean_us(each.work, DRAWS) for each in pair) ** 0.5 for pair in launches]
    assert others == pytest.approx(scores, rel=0.03)


def permuted(source: str, chance: random.Random) -> str:
    """Write the statements of the loop with roles in another order that gives the same results."""
    tree = ast.parse(source)
    (loop,) = (
        each for each in ast.walk(tree) if isinstance(each, ast.For) and "warp_specialize" in ast.unparse(each.iter)
    )
    left, loop.body = loop.body, []
    while left:
        free = [each for place, each in enumerate(left) if all(_independent(each, before) for before in left[:place])]
        loop.body.append(chance.choice(free))
        left.remove(loop.body[-1])
    return ast.unparse(tree)


def _independent(one: ast.stmt, other: ast.stmt) -> bool:
    (of_one, set_by_one), (of_other, set_by_other) = map(_names, (one, other))
    return set_by_one.isdisjoint(of_other) and set_by_other.isdisjoint(of_one)


def _names(statement: ast.stmt) -> tuple[set[str], set[str]]:
    """The names in a statement, and those of them that it sets."""
    names = [each for each in ast.walk(statement) if isinstance(each, ast.Name)]
    return {each.id for each in names}, {each.id for each in names if isinstance(each.ctx, ast.Store)}


def _launches(source: str, folder: Path) -> list[Launch]:
    """The launches of two cases: a full one and a causal one."""
    kernel = module_of(source, folder)
    tensors = [torch.empty(4, 16, LENGTH, HEAD_DIM, dtype=torch.bfloat16) for _ in range(4)]
    with offline(target="h100", execute=False) as session:
        for causal in (False, True):
            kernel.attention(*tensors, torch.empty(4, 16, LENGTH), causal=causal, scale=0.1)
    assert len(session.launches) == 2
    return session.launches


@pytest.mark.parametrize("order", DIFFERENT)
def test_other_random_numbers_make_no_difference(order: str) -> None:
    times = [mean_us(work(order), seeds) for seeds in (0, DRAWS, 2 * DRAWS)]
    assert times[0] == pytest.approx(predict_time([work(order)], H100).us)
    assert 0 < spread(times) < 0.02


def _code(work: LaunchWork) -> tuple[tuple[str, str, str], ...]:
    code = parse(work.binary.listing)
    return tuple((i.predicate, i.opcode, i.operands) for i in code.instructions)
