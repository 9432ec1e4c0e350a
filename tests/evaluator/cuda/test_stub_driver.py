"""The stub driver refuses what NVIDIA's documentation says that the driver refuses, and says why."""

import ctypes
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

RIGHT = {
    "map": 0,
    "type": 9,  # CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
    "rank": 2,
    "address": 2**20,
    "dims": (64, 100),
    "strides": (128,),
    "box": (64, 16),
    "steps": (1, 1),
    "interleave": 0,
    "swizzle": 3,  # of 128 bytes
    "promotion": 2,
    "fill": 1,
}
"""Arguments of cuTensorMapEncodeTiled."""


@pytest.fixture
def cuda(libcuda: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(libcuda))
    library.stub_reset()
    library.cuCtxSetCurrent(ctypes.c_void_p(1))
    return library


def why(cuda: ctypes.CDLL, code: int) -> str:
    text = ctypes.c_char_p()
    cuda.cuGetErrorString(code, ctypes.byref(text))
    return (text.value or b"").decode() if code else ""


def encoded(cuda: ctypes.CDLL, changed: Mapping[str, object]) -> str:
    """Why a tensor map is refused."""
    room = ctypes.create_string_buffer(256)
    asked = {**RIGHT, **changed}
    arguments: list[object] = []
    for name, value in asked.items():
        kind = ctypes.c_uint32 if name in ("box", "steps") else ctypes.c_uint64
        arguments.append((kind * 5)(*value) if isinstance(value, tuple) else value)
    arguments[0] = ctypes.c_void_p(-(-ctypes.addressof(room) // 64) * 64 + int(str(asked["map"])))
    arguments[3] = ctypes.c_void_p(int(str(asked["address"])))
    return why(cuda, cuda.cuTensorMapEncodeTiled(*arguments))


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({}, "$"),
        ({"map": 32}, "tensorMap is not aligned to 64 bytes"),
        ({"rank": 6, "dims": (1,) * 5}, "tensorRank 6"),
        ({"rank": 2, "interleave": 1}, "tensorRank 2"),
        ({"address": 2**20 + 8}, "globalAddress is not aligned to 16 bytes"),
        ({"dims": (0, 1)}, r"globalDim\[0\] is 0"),
        ({"dims": (64, 2**32 + 1)}, r"globalDim\[1\] is 4294967297"),
        ({"strides": (136,)}, r"globalStrides\[0\] is 136 bytes"),
        ({"strides": (2**40,)}, r"globalStrides\[0\] is 1099511627776 bytes"),
        ({"box": (64, 257)}, r"boxDim\[1\] is 257"),
        ({"box": (4, 16)}, r"boxDim\[0\] takes 8 bytes, no multiple of 16"),
        ({"box": (128, 16)}, r"boxDim\[0\] takes 256 bytes, swizzled by 128"),
        ({"swizzle": 1}, r"boxDim\[0\] takes 128 bytes, swizzled by 32"),
        ({"steps": (1, 9)}, r"elementStrides\[1\] is 9"),
        ({"steps": (0, 1)}, "$"),  # the first is ignored
        ({"type": 0, "strides": (64,)}, "oobFill with NaN of tensorDataType 0"),
    ],
)
def test_a_tensor_map_that_breaks_a_rule_is_refused(
    cuda: ctypes.CDLL, changed: Mapping[str, object], rule: str
) -> None:
    assert re.match(rule, encoded(cuda, changed))


@pytest.mark.parametrize(
    ("grid", "block", "shared", "opted", "rule"),
    [
        ((2**31 - 1, 65535, 65535), (1024, 1, 1), 49152, 0, "$"),
        ((2**31, 1, 1), (32, 1, 1), 0, 0, "a grid of 2147483648 x 1 x 1 blocks"),
        ((1, 65536, 1), (32, 1, 1), 0, 0, "a grid of 1 x 65536 x 1 blocks"),
        ((1, 1, 0), (32, 1, 1), 0, 0, "a grid of 1 x 1 x 0 blocks"),
        ((1, 1, 1), (1056, 1, 1), 0, 0, "a block of 1056 x 1 x 1 threads"),
        ((1, 1, 1), (32, 64, 1), 0, 0, "a block of 32 x 64 x 1 threads"),
        ((1, 1, 1), (32, 1, 1), 49153, 0, "49153 bytes of shared memory where 49152 are allowed"),
        ((1, 1, 1), (32, 1, 1), 232448, 232448, "$"),
        ((1, 1, 1), (32, 1, 1), 0, 232449, "232449 bytes of dynamic shared memory of 232448"),
    ],
)
def test_a_launch_beyond_the_limits_is_refused(
    cuda: ctypes.CDLL, grid: tuple[int, ...], block: tuple[int, ...], shared: int, opted: int, rule: str
) -> None:
    function, none = ctypes.c_void_p(), ctypes.c_void_p()
    assert cuda.cuModuleLoadData(ctypes.byref(function), b"\x7fELF") == 0
    attribute = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    failed = cuda.cuFuncSetAttribute(function, attribute, opted) if opted else 0
    sizes = map(ctypes.c_uint, (*grid, *block, shared))
    assert re.match(rule, why(cuda, failed or cuda.cuLaunchKernel(function, *sizes, none, none, none)))


def test_errors_are_injected_by_call_and_number_and_a_broken_context_stays_so(
    cuda: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_ERRORS", "cuCtxSynchronize:2=2,kernel:2=700")
    assert [cuda.cuCtxSynchronize() for _ in range(3)] == [0, 2, 0]
    found = []
    for _ in range(3):
        cuda.stub_kernel(0)
        found.append(cuda.cuCtxSynchronize())
    assert found == [0, 700, 700]
