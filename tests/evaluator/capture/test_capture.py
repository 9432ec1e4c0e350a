"""What honest host code asks for is what the plan says."""

from collections.abc import Callable

import pytest

from avo.evaluator.capture import Capturer
from avo.evaluator.evaluation import Fault
from avo.evaluator.plan import Descriptor, Fill, Launch, LaunchPlan, Level, Pointer, Role, Scalar
from avo.evaluator.problem import Call, TensorSpec
from avo.evaluator.targets import get_target
from avo.seeds import seed_source
from tests.evaluator.capture.conftest import PRELUDE

Capture = Callable[..., LaunchPlan | Fault]

HEADER = "import torch, triton\nimport triton.language as tl\n"


def planned(outcome: LaunchPlan | Fault) -> LaunchPlan:
    assert isinstance(outcome, LaunchPlan), outcome
    return outcome


def only_launch(plan: LaunchPlan) -> Launch:
    (launch,) = plan.launches
    return launch


def test_a_launch_is_written_down_with_grid_arguments_and_options(capture: Capture) -> None:
    plan = planned(capture("copy[(4, 2)](x, y, 100, BLOCK=256, num_warps=8, num_stages=2)"))
    assert [(buffer.name, buffer.role) for buffer in plan.buffers] == [
        ("x", Role.INPUT),
        ("index", Role.INPUT),
        ("y", Role.OUTPUT),
    ]
    assert only_launch(plan) == Launch(0, (4, 2, 1), (Pointer(0, 0), Pointer(2, 0), Scalar(100)))
    (kernel,) = plan.kernels
    assert kernel.name == "copy"
    assert kernel.option["num_warps"] == 8
    assert kernel.option["num_stages"] == 2
    assert 'loc("candidate.py":8:' in kernel.ttir


def test_a_grid_may_be_a_function_of_the_meta_parameters(capture: Capture) -> None:
    plan = planned(capture("copy[lambda meta: (triton.cdiv(x.numel(), meta['BLOCK']),)](x, y, x.numel(), BLOCK=256)"))
    assert only_launch(plan).grid == (8, 1, 1)


def test_an_empty_grid_launches_nothing(capture: Capture) -> None:
    assert planned(capture("copy[(0,)](x, y, 1, BLOCK=16)")).steps == ()


def test_warming_up_launches_nothing(capture: Capture) -> None:
    assert planned(capture("copy.warmup(x, y, 100, BLOCK=16, grid=(1,))")).steps == ()


OPERATORS = {
    "custom_op": """
@torch.library.custom_op("mine::copied", mutates_args=("y",))
def copied(x: torch.Tensor, y: torch.Tensor) -> None:
    copy[(1,)](x, y, 100, BLOCK=16)
""",
    "triton_op": """
@torch.library.triton_op("mine::copied", mutates_args={"y"})
def copied(x: torch.Tensor, y: torch.Tensor) -> None:
    torch.library.wrap_triton(copy)[(1,)](x, y, 100, BLOCK=16)
""",
    "Library": """
library = torch.library.Library("mine", "DEF")
library.define("copied(Tensor x, Tensor(a!) y) -> ()")
library.impl("copied", lambda x, y: copy[(1,)](x, y, 100, BLOCK=16) and None, "CUDA")
copied = torch.ops.mine.copied
""",
}


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=pytest.mark.long if way == "triton_op" else ()) for way in OPERATORS]
)
def test_an_operator_of_the_candidates_own_around_a_launch_changes_nothing(capture: Capture, way: str) -> None:
    source = f"{PRELUDE}{OPERATORS[way]}\ndef run(x, index, y, *, scale):\n    copied(x, y)\n"
    assert planned(capture(source=source)).digest == planned(capture("copy[(1,)](x, y, 100, BLOCK=16)")).digest


def test_an_operator_of_the_candidates_own_is_seen_through(capture: Capture) -> None:
    source = f"{PRELUDE}{OPERATORS['custom_op']}\n    y.copy_(x)\ndef run(x, index, y, *, scale):\n    copied(x, y)\n"
    found = capture(source=source)
    assert isinstance(found, Fault)
    assert "computes with torch operator aten.copy_" in found.message


def test_the_same_kernel_is_in_the_plan_once(capture: Capture) -> None:
    plan = planned(capture("copy[(1,)](x, y, 100, BLOCK=16)\ncopy[(2,)](x, y, 101, BLOCK=16)"))
    assert len(plan.kernels) == 1
    assert [launch.grid[0] for launch in plan.launches] == [1, 2]


@pytest.mark.parametrize(
    ("view", "offset"),
    [
        ("x[3]", 3 * 32 * 4),
        ("x[1:, 2:]", (32 + 2) * 4),
        ("x.t()[5:]", 5 * 4),
        ("x.view(-1)[40:].view(torch.int8)", 40 * 4),
        ("x.reshape(8, 8, 32).permute(2, 0, 1)[:, 1]", 8 * 32 * 4),
        ("x.as_strided((4, 4), (8, 1), 7)", 7 * 4),
        ("x[None, ..., 4].expand(6, 64)", 4 * 4),
        ("x.contiguous().detach().unbind(0)[2]", 2 * 32 * 4),
        ("x.to(y.device).to(torch.float32).cuda()[1]", 32 * 4),
        ("x.chunk(2, 1)[1]", 16 * 4),
    ],
)
def test_a_view_is_an_offset_into_its_buffer(capture: Capture, view: str, offset: int) -> None:
    plan = planned(capture(f"copy[(1,)]({view}, y, 100, BLOCK=16)"))
    assert only_launch(plan).args[0] == Pointer(0, offset)


@pytest.mark.parametrize(
    ("source", "divisible"), [("x", True), ("x[:, 4:]", True), ("x[:, 1:]", False), ("x.view(-1)[3:]", False)]
)
def test_pointers_are_specialised_by_the_alignment_of_their_offset(
    capture: Capture, source: str, divisible: bool
) -> None:
    (kernel,) = planned(capture(f"copy[(1,)]({source}, y, 100, BLOCK=16)")).kernels
    assert ("%src: !tt.ptr<f32> {tt.divisibility = 16" in kernel.ttir) is divisible


@pytest.mark.parametrize(
    ("number", "parameter"),
    [(100, "%n: i32 loc"), (112, "%n: i32 {tt.divisibility = 16"), (2**40 + 1, "%n: i64 loc"), (1, None)],
)
def test_integers_are_specialised_by_value(capture: Capture, number: int, parameter: str | None) -> None:
    plan = planned(capture(f"copy[(1,)](x, y, {number}, BLOCK=16)"))
    if parameter is None:
        assert "%n:" not in plan.kernels[0].ttir
        assert len(only_launch(plan).args) == 2
    else:
        assert parameter in plan.kernels[0].ttir
        assert only_launch(plan).args[2] == Scalar(number)


@pytest.mark.parametrize(
    ("expression", "fill"),
    [
        ("torch.empty(10, 4, device=x.device)", None),
        ("x.new_empty((40,))", None),
        ("torch.empty_like(x)[:10, :4].contiguous() if False else x.new_empty(40)", None),
        ("torch.zeros(40, device='cuda')", 0),
        ("torch.ones(40, device=x.device)", 1),
        ("torch.full((40,), float('-inf'), device=x.device)", float("-inf")),
        ("x.new_full((5, 8), 2.5)", 2.5),
        ("x.new_zeros(40)", 0),
    ],
)
def test_scratch_is_a_buffer_and_its_filling_a_step(capture: Capture, expression: str, fill: float | None) -> None:
    plan = planned(capture(f"s = {expression}\ncopy[(1,)](s, y, 40, BLOCK=16)"))
    assert plan.buffers[3].role is Role.SCRATCH
    assert (plan.buffers[3].dtype, plan.buffers[3].size) == ("float32", 40)
    assert only_launch(plan).args[0] == Pointer(3, 0)
    fills = [step for step in plan.steps if isinstance(step, Fill)]
    assert [(step.buffer, step.value) for step in fills] == ([] if fill is None else [(3, fill)])


def test_views_of_scratch_and_outputs_may_be_filled_in_order_with_the_launches(capture: Capture) -> None:
    plan = planned(capture("y.zero_()\ncopy[(1,)](x, y, 9, BLOCK=16)\ny[2:4, ::2] = 7\ny.t().fill_(1.5)"))
    assert plan.steps[0] == Fill(2, 0, (64, 32), (32, 1), 0)
    assert isinstance(plan.steps[1], Launch)
    assert plan.steps[2] == Fill(2, 64, (2, 16), (32, 2), 7)
    assert plan.steps[3] == Fill(2, 0, (32, 64), (1, 32), 1.5)


KERNEL_OF_ALL_ARGUMENTS = (
    HEADER
    + """
from triton.tools.tensor_descriptor import TensorDescriptor

@triton.jit
def inner(a, b):
    return a + b

@triton.jit
def kernel(desc, pair, one, nothing, flag, factor, n, FUNCTION: tl.constexpr, BLOCK: tl.constexpr):
    pointer, stride = pair
    tile = FUNCTION(desc.load([0, 0]), factor)
    if flag:
        tile += n + one
    rows = tl.arange(0, BLOCK)
    tl.store(pointer + rows[:, None] * stride + rows[None, :], tile)

def run(x, index, y, *, scale):
    desc = TensorDescriptor.from_tensor(x[4:], [16, 16])
    kernel[(1,)](desc, (y, 32), 1, None, True, scale, 77, FUNCTION=inner, BLOCK=16)
"""
)


def test_every_kind_of_argument_has_its_place_in_the_ir(capture: Capture) -> None:
    descriptor = Descriptor(0, 4 * 32 * 4, (60, 32), (32, 1), (16, 16), "zero")
    shape = (Scalar(60), Scalar(32), Scalar(32), Scalar(1))
    rest = (Pointer(2, 0), Scalar(32), Scalar(True), Scalar(0.5), Scalar(77))
    hopper = only_launch(planned(capture(source=KERNEL_OF_ALL_ARGUMENTS)))
    assert hopper.args == (descriptor, *shape, *rest)


def test_where_there_is_no_tma_a_descriptor_is_its_parts(capture: Capture) -> None:
    plan = planned(capture(source=KERNEL_OF_ALL_ARGUMENTS, target="a100"))
    args = only_launch(plan).args
    shape = (Scalar(60), Scalar(32), Scalar(32), Scalar(1))
    assert args[:6] == (Pointer(0, 4 * 32 * 4), *shape, Scalar(False))
    assert args[-9:-5] == shape
    header = plan.kernels[0].ttir.partition("tt.func public")[2].partition(" attributes")[0]
    assert header.count("%") == len(args)


def descriptors_made(allocator: str) -> str:
    return (
        HEADER
        + f"""
kept = torch.empty(1 << 20, dtype=torch.int8, device="cuda")

@triton.jit
def kernel(src, dst):
    a = tl.make_tensor_descriptor(src, [64, 32], [32, 1], [16, 16])
    b = tl.make_tensor_descriptor(dst, [64, 32], [32, 1], [16, 16])
    b.store([0, 0], a.load([0, 0]))

def run(x, index, y, *, scale):
    {allocator}
    kernel[(1,)](x, y)
"""
    )


@pytest.mark.parametrize("given", ["", "torch.empty(size, dtype=torch.int8, device='cuda')"])
def test_descriptors_made_in_the_kernel_need_nothing_from_the_host(capture: Capture, given: str) -> None:
    allocator = f"triton.set_allocator(lambda size, align, stream: {given})" if given else ""
    plan = planned(capture(source=descriptors_made(allocator)))
    assert only_launch(plan).args == (Pointer(0, 0), Pointer(2, 0))
    assert [buffer.name for buffer in plan.buffers] == ["x", "index", "y"]


@pytest.mark.parametrize("given", ["torch.empty(16, dtype=torch.int8, device='cuda')", "y", "kept", "None"])
def test_an_allocator_must_allocate_what_it_is_asked_for(capture: Capture, given: str) -> None:
    found = capture(source=descriptors_made(f"triton.set_allocator(lambda size, align, stream: {given})"))
    assert isinstance(found, Fault)
    assert "sets an allocator that does not allocate as many bytes as it is asked for at line" in found.message


def test_heuristics_decide_as_usual(capture: Capture) -> None:
    source = (
        HEADER
        + """
@triton.heuristics({"BLOCK": lambda args: triton.next_power_of_2(args["n"])})
@triton.jit
def kernel(dst, n, BLOCK: tl.constexpr):
    tl.store(dst + tl.arange(0, BLOCK), 1.0)

def run(x, index, y, *, scale):
    kernel[(1,)](y, 100)
"""
    )
    assert "end = 128" in planned(capture(source=source)).kernels[0].ttir


GLUON = """\
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

@gluon.jit
def kernel(desc, dst, n, BLOCK: gl.constexpr):
    i = gl.arange(0, BLOCK, gl.BlockedLayout([1], [32], [4], [0]))
    gl.store(dst + i, i.to(gl.float32), mask=i < n)

def run(x, index, y, *, scale):
    layout = gl.NVMMASharedLayout(swizzle_byte_width=64, element_bitwidth=32, rank=2)
    kernel[(3,)](TensorDescriptor.from_tensor(x, [16, 16], layout), y, 100, BLOCK=128, num_warps=4)
"""


def test_a_gluon_kernel_is_written_down_in_the_ir_that_has_its_layouts(capture: Capture) -> None:
    plan = planned(capture(source=GLUON))
    (kernel,) = plan.kernels
    assert kernel.level is Level.TTGIR
    assert "tensor<128xi32, #blocked>" in kernel.ttir
    assert "swizzlingByteWidth = 64" in kernel.ttir
    descriptor = Descriptor(0, 0, (64, 32), (32, 1), (16, 16), "zero")
    shape = (Scalar(64), Scalar(32), Scalar(32), Scalar(1))
    assert only_launch(plan) == Launch(0, (3, 1, 1), (descriptor, *shape, Pointer(2, 0), Scalar(100)))


@pytest.mark.parametrize("target", ["a100", "h100", "b200"])
def test_questions_about_the_device_are_answered_from_the_target(capture: Capture, target: str) -> None:
    known = get_target(target)
    plan = planned(
        capture(
            """
assert torch.cuda.is_available() and x.is_cuda and x.device.type == "cuda" and not x.is_meta
assert x.data_ptr() % 16 == 0 and x.data_ptr() not in (0, y.data_ptr())
with torch.cuda.device(x.device):
    assert torch.cuda.current_device() == x.get_device() == 0
major, minor = torch.cuda.get_device_capability(x.device)
properties = torch.cuda.get_device_properties(x.device)
utils = triton.runtime.driver.active.utils.get_device_properties(0)
assert properties.multi_processor_count == utils["multiprocessor_count"]
torch.cuda.synchronize()
copy[(properties.multi_processor_count, major, minor + 1)](x, y, utils["max_shared_mem"], BLOCK=16)""",
            target=target,
        )
    )
    launch = only_launch(plan)
    assert launch.grid == (known.sms, known.arch // 10, known.arch % 10 + 1)
    assert launch.args[2] == Scalar(known.shared_bytes_per_cta)


def test_arguments_have_the_strides_and_storage_that_the_call_says(capture: Capture) -> None:
    tensors = tuple(
        TensorSpec(name, "bfloat16", (3, 5), (8, 1), 40, role)
        for name, role in (("x", Role.INPUT), ("index", Role.INPUT), ("y", Role.OUTPUT))
    )
    plan = planned(
        capture(
            "assert x.shape == (3, 5) and x.dtype == torch.bfloat16\ncopy[(1,)](x, y, x.stride(0), BLOCK=16)",
            calls=[Call("padded", tensors, (("scale", 1.0),))],
        )
    )
    assert plan.case == "padded"
    assert [buffer.size for buffer in plan.buffers] == [40, 40, 40]
    assert only_launch(plan).args[2] == Scalar(8)


def test_an_entry_that_launches_nothing_is_an_empty_plan(capture: Capture) -> None:
    assert planned(capture("return None")).steps == ()


def test_each_call_has_a_plan_of_its_own(capturer: Capturer) -> None:
    source = seed_source("mha")
    shape = {64: (64 * 32 * 2, 64 * 32, 32, 1), 100: (100 * 32 * 2, 100 * 32, 32, 1)}

    def call(length: int) -> Call:
        def spec(name: str, role: Role) -> TensorSpec:
            return TensorSpec(name, "bfloat16", (1, 2, length, 32), shape[length], 2 * length * 32, role)

        tensors = (*(spec(name, Role.INPUT) for name in "qkv"), spec("out", Role.OUTPUT))
        lse = TensorSpec("lse", "float32", (1, 2, length), (2 * length, length, 1), 2 * length, Role.OUTPUT)
        return Call(f"len{length}", (*tensors, lse), (("causal", True), ("scale", 0.1)))

    plans = capturer.capture(source, "attention", [call(64), call(100)], get_target("h100"))
    assert not isinstance(plans, Fault)
    assert [plan.case for plan in plans] == ["len64", "len100"]
    assert [len(plan.launches) for plan in plans] == [1, 1]
    assert [plan.buffers[0].size for plan in plans] == [4096, 6400]
