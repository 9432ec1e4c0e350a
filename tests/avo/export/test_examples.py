"""The README of a package shows calls that its kernels take."""

import pytest

from avo.export.examples import Example, examples
from avo.export.judging import Passed
from avo.export.table import table
from tests.avo.export.sample import chosen, passed, sample


def of(*problems: str) -> dict[str, list[Example]]:
    """The examples of a package with a kernel for each problem."""
    run, versions = sample()
    kernels: list[Passed] = [passed(chosen(run, versions, problem=problem), 1.0, 1.0) for problem in problems]
    return examples(table(kernels))


def test_each_kernel_has_a_call_with_its_own_heads_dims_and_type() -> None:
    mha, gqa = of("mha", "gqa-h64x8-d64-fp16-1024x1")["attention"]
    assert mha.inputs == (16, 16, 4096, 128, 128, "bfloat16")
    assert mha.further == ", is_causal=True"
    assert gqa.inputs == (64, 8, 2048, 64, 64, "float16")
    assert gqa.further == ", is_causal=True, enable_gqa=True"


def test_kernels_that_take_the_same_calls_share_one() -> None:
    assert len(of("mha", "mha")["attention"]) == 1


@pytest.mark.parametrize(
    ("problem", "function", "further"),
    [
        ("gqa-h64x8-d64-w128-global-sinks-1024x1", "attention",
         ', is_causal=True, enable_gqa=True, window=128, sinks=torch.zeros(64, device="cuda")'),
        ("gqa-packed", "packed_attention", ", is_causal=True"),
        ("mha-c50", "attention", ", is_causal=True, softcap=50.0"),
        ("decode-h64x8-d64-w128-global-sinks-32768x1", "decode", ', window=128, sinks=torch.zeros(64, device="cuda")'),
        ("fsa-h64x4-b128x16-local-8192x1", "selected_attention", ", block_size=128"),
        ("fsa-sinks-packed", "selected_attention",
         ', block_size=64, cu_seqlens=cu_seqlens, max_seqlen=longest, sinks=torch.zeros(8, device="cuda")'),
    ],
)  # fmt: skip
def test_a_call_has_what_its_kernel_is_for(problem: str, function: str, further: str) -> None:
    found = of(problem)
    assert [each.further for each in found[function]] == [further]
    assert not any(calls for name, calls in found.items() if name != function)


def test_a_backward_kernel_has_no_call_of_its_own() -> None:
    assert not any(of("mha_backward").values())
