"""Where allocations lie is said as the compiler will have it, though passes run between that and its own allocation."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from triton._C.libtriton import ir, nvidia, passes
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptx_version_from_options
from triton.compiler.compiler import make_backend
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from avo.evaluator.compiling.allocating import with_places
from avo.evaluator.offline import offline
from tests.evaluator.executor.chip import test_sanitiser_partitions, test_sanitiser_places, test_sanitiser_products

ORACLE = "the passes that Triton's compiler runs up to its own allocation"
KERNELS = {
    "rings and exchanges": (test_sanitiser_places.a_ring_over_what_is_sent, "h100", 1),
    "exchanges over barriers": (test_sanitiser_places.registers_over_a_barrier, "h100", True),
    "partitions": (test_sanitiser_products.one_of_two_products_of_a_partition, "h100", 1),
    "tensor memory": (test_sanitiser_products.beside_a_product, "b200", ""),
    "partitions that hand on": (next(iter(test_sanitiser_partitions.CASES.values())).kernel, "h100", True),
}


def lowered(kernel: Any, target: str, form: object) -> str:
    desc = TensorDescriptor.from_tensor(
        torch.zeros(64, 64, dtype=torch.float16), [64, 64], gl.NVMMASharedLayout(128, 16, rank=2)
    )
    with offline(target=target):
        made = kernel.warmup(desc, torch.zeros(4096, dtype=torch.float16), form, grid=(1,), num_warps=4)
        text: str = made.asm["ttgir"]
        return re.sub(r"allocation\.\w+ = \d+ : i32(?:, )?", "", text)


def places(text: str) -> list[tuple[str, str]]:
    """Return each operation that has a place, with that, in order."""
    lines = [line for line in text.splitlines() if "tt.func" not in line]
    found = [(re.search(r"tt(?:g|ng)?\.\w+", line), re.search(r"allocation\.offset = (\d+)", line)) for line in lines]
    return [(op[0], place[1]) for op, place in found if op and place]


@pytest.mark.parametrize("what", KERNELS)
def test_places_are_those_of_the_compiler(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    kernel, target, form = KERNELS[what]
    arch = {"h100": 90, "b200": 100}[target]
    backend = make_backend(GPUTarget("cuda", arch, 32))
    options = backend.parse_options({})
    (tmp_path / "kernel.ttgir").write_text(lowered(kernel, target, form))

    def parsed() -> Any:
        context = ir.context()
        ir.load_dialects(context)
        backend.load_dialects(context)
        module = ir.parse_mlir_module(str(tmp_path / "kernel.ttgir"), context)
        module.context = context
        return module

    module = parsed()
    manager = ir.pass_manager(module.context)
    passes.ttgpuir.add_combine_tensor_select_and_if(manager)
    passes.ttgpuir.add_allocate_warp_groups(manager, False)
    passes.convert.add_scf_to_cf(manager)
    passes.gluon.add_inliner(manager)
    nvidia.passes.ttgpuir.add_allocate_shared_memory_nv(manager, arch, get_ptx_version_from_options(options, arch))
    manager.run(module, "compiled")
    said = places(with_places(parsed(), backend, options))
    assert len(said) > 1
    assert said == places(str(module))
