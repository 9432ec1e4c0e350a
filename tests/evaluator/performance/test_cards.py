"""Cards that people have: the model reads their machine code, and its predictions are sane."""

import pytest

from avo.evaluator.performance.kernel import costs_of, read
from avo.evaluator.targets import get_target
from bench.variants import Variant, compile_variant, predict_variant
from tests.corpus import sample
from tests.evaluator.performance.handmade import nominal

PLAIN = Variant(128, 64, 8, 3)
SPECIALISED = Variant(128, 64, 4, 2, descriptors=True, specialised=True)


@pytest.mark.parametrize("name", sample(["rtx4090", "b300", "rtx5090"], 3))
@pytest.mark.parametrize("variant", [PLAIN, SPECIALISED], ids=["plain", "specialised"])
def test_the_costs_of_all_machine_instructions_are_known(name: str, variant: Variant) -> None:
    target = get_target(name)
    binary = compile_variant(variant, target.arch)
    costs = costs_of(binary, target, 1, nominal(name))
    code = read(binary).code
    for instruction in code.instructions:
        costs.op(instruction)
    assert {code.instructions[index].opcode for index in costs.unknown} == set()


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    sample(
        [
            ("rtx4090", 140, 180),  # FlashAttention-2: 169 (github.com/apache/tvm, tl_doc/flash_perf.md)
            ("rtx5090", 170, 215),  # FlashAttention-2: 191, cuDNN: 204 (gau-nernst.github.io, 2025)
            ("h20", 60, 140),  # FlashAttention-2: 84, cuDNN: 129 (github.com/Dao-AILab/flash-attention, issue 1310)
        ],
        3,
    ),
)
def test_plain_attention_is_predicted_near_what_cuda_kernels_reach(name: str, lowest: float, highest: float) -> None:
    assert lowest < predict_variant(PLAIN, name).tflops < highest


@pytest.mark.long
def test_twice_the_exponentials_make_attention_no_slower() -> None:
    assert predict_variant(PLAIN, "b300").tflops > predict_variant(PLAIN, "b200").tflops
