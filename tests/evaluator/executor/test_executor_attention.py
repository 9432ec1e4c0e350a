"""Attention kernels give the right numbers: against float64, and against Triton's own interpreter."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avo.evaluator.work import Body
from tests.corpus import sample
from tests.oldest_triton import IS_OLDEST

ORACLE = "float64, and Triton's interpreter"


def reference(q, k, v, scale, causal):
    group = q.shape[0] // k.shape[0]
    q, k, v = q.double(), k.double().repeat_interleave(group, 0), v.double().repeat_interleave(group, 0)
    scores = q @ k.transpose(1, 2) * scale
    if causal:
        rows, columns = scores.shape[1:]
        scores = scores.masked_fill(~torch.ones(rows, columns).tril(columns - rows).bool(), float("-inf"))
    return scores.softmax(2) @ v, scores.logsumexp(2)


def make(attention_kernels, executor, dtype, causal, heads, kv_heads, q_len, kv_len, d, seed=0):
    torch.manual_seed(seed)
    length = max(q_len, kv_len)
    q, out = torch.randn(heads, length, d).to(dtype), torch.zeros(heads, length, d).to(dtype)
    k, v = torch.randn(kv_heads, length, d).to(dtype), torch.randn(kv_heads, length, d).to(dtype)
    lse = torch.zeros(heads, q_len)
    args = (q, k, v, out, lse, d**-0.5, length * d, d, heads, heads // kv_heads, q_len, kv_len)
    grid = (-(-q_len // 16), heads)
    constants = {"CAUSAL": causal, "D": d, "BLOCK_M": 16, "BLOCK_N": 16}
    launch = executor.prepare(attention_kernels.attention, *args, grid=grid, **constants)
    expected, expected_lse = reference(q[:, :q_len], k[:, :kv_len], v[:, :kv_len], d**-0.5, causal)
    return launch, out[:, :q_len], lse, expected, expected_lse


TOLERANCES = {torch.bfloat16: 5e-3, torch.float16: 6e-4, torch.float32: 1e-6}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", sample(TOLERANCES, 3))
@settings(max_examples=6, deadline=None)
@given(q_len=st.integers(1, 50), more=st.integers(0, 30), heads=st.sampled_from([(1, 1), (4, 2), (3, 1)]))
def test_attention_matches_float64_at_any_length(attention_kernels, executor, dtype, causal, q_len, more, heads):
    launch, out, lse, expected, expected_lse = make(
        attention_kernels, executor, dtype, causal, heads[0], heads[1], q_len, q_len + more, 32
    )
    execution = launch.run()
    assert execution.faults == ()
    assert (out.double() - expected).norm() < TOLERANCES[dtype] * expected.norm()
    torch.testing.assert_close(lse.double(), expected_lse, rtol=1e-5, atol=1e-5)


def test_causal_programs_stop_at_the_diagonal_and_trips_say_so(attention_kernels, executor):
    launch, *_ = make(attention_kernels, executor, torch.bfloat16, True, 2, 1, 60, 70, 32)
    execution = launch.run()
    expected = [-(-min(70, 16 * block + 16 + 10) // 16) for block in range(4)] * 2
    assert execution.trips[0].tolist() == expected
    assert launch.kernel.count(launch).trips[0].tolist() == expected


def test_chunks_and_samples_of_programs_give_identical_bits(attention_kernels, executor):
    results = []
    for temporaries in (1, 2**22, 2**30):
        launch, out, lse, *_ = make(attention_kernels, executor, torch.bfloat16, True, 4, 2, 100, 100, 64)
        launch.run(temporaries_bytes=temporaries)
        results.append((out, lse))
    launch, out, lse, *_ = make(attention_kernels, executor, torch.bfloat16, True, 4, 2, 100, 100, 64)
    for start in (0, 5, 9):
        launch.run(programs=torch.arange(start, 28, 13))
    wanted = [p for start in (0, 5, 9) for p in range(start, 28, 13)]
    for block, head in ((p % 7, p // 7) for p in wanted):
        assert torch.equal(out[head, block * 16 : block * 16 + 16], results[0][0][head, block * 16 : block * 16 + 16])
    for other in results[1:]:
        assert torch.equal(other[0], results[0][0])
        assert torch.equal(other[1], results[0][1])


def test_work_is_counted_per_loop_body(attention_kernels, executor):
    launch, *_ = make(attention_kernels, executor, torch.bfloat16, True, 2, 1, 60, 70, 32)
    (loop,) = launch.kernel.loops
    assert loop.parent is None
    assert loop.location.startswith("attention_kernels.py:")
    work = launch.kernel.count(launch)
    assert replace(work.bodies[0], arithmetic=0) == Body(
        dot_flops=2 * 2 * 16 * 16 * 32, exponentials=16 * 16 + 16, load_bytes=2 * 16 * 32 * 2, store_bytes=0
    )
    scores, outputs = 16 * 16, 16 * 32  # scaled, reduced by their maximum, rounded; and rescaled
    assert work.bodies[0].arithmetic >= 3 * scores + outputs
    assert work.outside.arithmetic >= outputs  # divided by their sums, which counts for itself, and rounded
    assert replace(work.outside, arithmetic=0) == Body(0, 0, load_bytes=16 * 32 * 2, store_bytes=16 * 32 * 2 + 16 * 4)


@pytest.mark.long
@pytest.mark.skipif(
    IS_OLDEST and np.lib.NumpyVersion(np.__version__) >= "2.4.0",
    reason="Triton 3.6 interprets a loop's bound as int() of an array, which numpy 2.4 refuses",
)
def test_kernels_agree_with_the_interpreter_of_triton(attention_kernels, executor, tmp_path):
    path = tmp_path / "results.pt"
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, attention_kernels.__file__, str(path)], check=True, env=environment, timeout=600)
    expected = torch.load(path)
    for name, kernel, args, grid, constants in attention_kernels.cases():
        executor.run(kernel, *args, grid=grid, **constants)
        for mine, theirs in zip(attention_kernels.tensors(args), expected[name], strict=True):
            tolerance = 2e-3 if mine.dtype == torch.float16 else 2e-5
            torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: name + m)
