"""The text of the IR is read with care: what is not understood is refused by name, never guessed."""

import contextlib

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

from avo.evaluator.executor import Allocation, IRError, Launch, UnsupportedOperation, load
from avo.evaluator.executor.errors import EvaluatorError
from avo.evaluator.executor.ir import parse_type
from avo.evaluator.executor.parser import MAX_DEPTH
from avo.evaluator.locations import Locations, split_locations
from avo.evaluator.plan import Pointer, Scalar

ORACLE = "the expected messages and locations"


def module(*lines, signature="%x: !tt.ptr<f32>, %n: i32"):
    return "\n".join(["module {", f"  tt.func public @k({signature}) {{", *lines, "    tt.return", "  }", "}"])


def partitions(inner):
    begin = "ttg.warp_specialize(%x) attributes {requestedRegisters = array<i32: 24>}\ndefault {\nttg.warp_yield\n}"
    return (
        f"{begin}\npartition0(%arg: !tt.ptr<f32>) num_warps(4) {{\n{inner}ttg.warp_return\n}} : (!tt.ptr<f32>) -> ()\n"
    )


NESTED = partitions(partitions("").replace("%x", "%arg").replace("(%arg:", "(%further:"))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("%a = tt.make_tensor_ptr %x, %n : i32", "tt.make_tensor_ptr"),
        ("%a = math.unheard %n : i32", "math.unheard"),
        (NESTED, "ttg.warp_specialize in a partition"),
        ("%a = arith.addi %n, %n {mystery = 1 : i32} : i32", "arith.addi with mystery"),
        ("%a = arith.addi %n, %n sideways : i32", "arith.addi with sideways"),
        ("%a = arith.cmpi near, %n, %n : i32", "arith.cmpi with near"),
        ("%a = tt.load %x, %n {padding = 1 : i32} : !tt.ptr<f32>", "tt.load with padding"),
        ("%a = tt.atomic_rmw wrap, relaxed, gpu, %x, %n : (!tt.ptr<f32>, i32) -> i32", "tt.atomic_rmw wrap"),
        ("%a = arith.truncf %n downward : f32 to f16", "arith.truncf with downward"),
        ("%a = arith.addi %n, %n {tt.unheard} : i32", "arith.addi with tt.unheard"),
        ("%a = arith.addi %n, %n {llvm.unheard = 1 : i32} : i32", "arith.addi with llvm.unheard"),
        ("%a = arith.addi %n, %n overflow<nsw> : i32", "arith.addi with overflow<nsw>"),
        ("%a = arith.addi %n, %n {tt.divisibility = dense<[1, 2]> : tensor<2xi32>} : i32", "with tt.divisibility"),
        ("%a = arith.constant {ttg.unheard} 1 : i32", "arith.constant with ttg.unheard"),
        ("%a = tt.get_program_id x {tt.unheard} : i32", "tt.get_program_id with tt.unheard"),
        ("%a = tt.dot %n, %n, %n {fma = true} : i32", "tt.dot with fma"),
    ],
)
def test_what_might_change_the_meaning_is_refused_by_name(line, name):
    with pytest.raises(UnsupportedOperation, match=name):
        load(module(line))


def test_a_block_of_one_element_becomes_a_scalar_without_saying_its_type():
    lines = [
        "%block = tt.splat %n : i32 -> tensor<1xi32>",
        "%one = tt.unsplat %block : tensor<1xi32>",
        "%twice = arith.addi %one, %n : i32",
        "%value = arith.sitofp %twice : i32 to f32",
        "tt.store %x, %value : !tt.ptr<f32>",
    ]
    out = torch.zeros(1)
    memory = [Allocation("x", out, torch.zeros(1, dtype=torch.bool), False)]
    assert load(module(*lines)).run(Launch(memory, [Pointer(0, 0), Scalar(21)], (1, 1, 1))).faults == ()
    assert out.item() == 42


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 public functions"),
        ("hello", "0 public functions"),
        (module("    %a = arith.addi %n, %missing : i32"), "%missing, which is not defined"),
        (module("    %a:2 = arith.addi %n, %n : i32 -> i32"), "2 results and 1 result types"),
        (module("    what is this"), "cannot read line 3"),
        (module("    %a = tt.load %n : i32"), "loads from i32"),
        (module("    %a = arith.addi %n, %n : nonsense<4>"), "expected a type"),
        (module("    %a = arith.constant twelve : i32"), "cannot read the constant"),
        ("\n".join([*module().splitlines()[:2], "    cf.br ^bb9", "  }", "}"]), "does not exist"),
        (module("    scf.if %n {"), "a block ends with scf.if"),
        (module(*["    scf.if %n {"] * (MAX_DEPTH + 2)), "nested more than"),
        (module("    tt.call @k(%x, %n) : (!tt.ptr<f32>, i32) -> ()"), "recursive"),
        (module("    tt.call @nobody(%x) : (!tt.ptr<f32>) -> ()"), "no function 'nobody'"),
        (module("    scf.yield"), "out of place"),
        (module("    %a = scf.if %c -> (i32) {", "    }", signature="%c: i1"), "different numbers of values"),
        (module("    cf.br ^bb1(%n : i32)", "  ^bb1:"), "different numbers of values"),
        (module(signature="%x: tensor<9999999999xf32>"), "unknown type"),
        (module(signature="%x: tensor<999999999xf32>"), "invalid block type"),
        (module(signature="%x: " + "!tt.ptr<" * 3000 + "f32" + ">" * 3000), "unknown type"),
        (module(" " * 200_000 + "what is this"), "cannot read line 3"),
        (
            module("    %r = tt.make_range {end = 300000000 : i32, start = 0 : i32} : tensor<16xi32>"),
            "from 0 to 300000000 does not make tensor<16xi32>",
        ),
        (module("    gpu.barrier tt.store %x, %n : !tt.ptr<f32>"), "line 3 of the IR has more than gpu.barrier"),
        (module("    gpu.barrier %a = arith.constant 1 : i32"), "more than gpu.barrier"),
        (module("    gpu.barrier {tt.unheard} scf.if %n {"), "more than gpu.barrier"),
        (module('    gpu.barrier "tt.store"(%x, %n) : (!tt.ptr<f32>, i32) -> ()'), "within another"),
        (module('    tt.print "a" {hex = false} : %n : i32 tt.return'), "expected a type, not 'tt.return'"),
        (module('    tt.print "a" {hex = false} : %n, %missing : i32, i32'), "%missing, which is not defined"),
        (module("    %a = arith.addi scale %n, %n : i32"), "more than arith.addi"),
        (module("    tt.reshape %n allow_reorder : i32 -> i32"), "cannot execute tt.reshape"),
        (module("    tt.assert %n : i32"), "tt.assert without a message"),
        (module("    scf.if %c {", "    } sideways", signature="%c: i1"), "line 4 of the IR has more than the end of"),
        (module("    scf.if %c {", "    } otherwise {", "    }", signature="%c: i1"), "never closed"),
        (module("    %p = tt.get_program_id x tt.return : i32"), "more than tt.get_program_id"),
        (module("    arith.addi %n, %n : i32"), "cannot execute arith.addi"),
        (module("    tt.addptr %x, %n : !tt.ptr<f32>, i32"), "cannot execute tt.addptr"),
        (
            module("    %w = scf.while (%a = %n) : (i32) -> i32 {", "    scf.condition(%n) %a : i32", "    }"),
            "scf.while",
        ),
        (module() + "\nmodule {\n}", "nested modules"),
        (module().replace("module {", "module attributes {ttg.x = 1 : i32} {"), "module with attributes"),
        (module().replace("i32) {", "i32) attributes {tt.unheard = 1 : i32} {"), "tt.func with tt.unheard"),
        ("\n".join([*module().splitlines()[:-1], *module().splitlines()[1:]]), "two functions 'k'"),
    ],
)
def test_malformed_text_is_one_clear_line(text, message):
    with pytest.raises((IRError, UnsupportedOperation), match=message) as caught:
        load(text)
    assert "\n" not in str(caught.value)


@triton.jit
def sample(X, Y, n, N: tl.constexpr):
    i = tl.arange(0, N)
    total = tl.zeros((N,), tl.float32)
    for j in range(n):
        x = tl.load(X + i + j, mask=i < n, other=0.0)
        if j > 2:
            total += tl.sum(x, 0)
        else:
            total = tl.cumsum(total + x, 0)
    tl.store(Y + i, total)


@pytest.fixture(scope="module")
def sample_text(executor):
    return executor.lower(sample, {"X": "*fp32", "Y": "*fp32", "n": "i32"}, {"N": 16})


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_text_never_raises_anything_but_its_own_errors(sample_text, data):
    text = sample_text
    start = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(0, 40))
    patch = data.draw(st.sampled_from(["", "{", "}", "<", ">", "%x", ":", "(", '"', "9", " loc(", "scf.yield", "i64"]))
    with contextlib.suppress(EvaluatorError):
        load(text[:start] + patch + text[start + length :])


def test_a_type_that_breaks_off_is_no_valid_text():
    with pytest.raises(IRError, match="'<' is never closed"):
        load(module("    %a = arith.addf %v, %v : tensor<", signature="%v: f32"))


def test_text_reads_the_same_without_locations(executor):
    text = executor.lower(sample, {"X": "*fp32", "Y": "*fp32", "n": "i32"}, {"N": 16})
    bare = "\n".join(split_locations(line)[0] for line in text.splitlines() if not line.startswith("#loc"))
    assert "loc(" not in bare
    located, anonymous = load(text), load(bare)
    assert [loop.block for loop in located.loops] == [loop.block for loop in anonymous.loops]
    assert located.loops[0].location.startswith("test_executor_text.py:")
    assert "of the IR" in anonymous.loops[0].location


def test_the_same_text_is_built_once():
    text = module("    tt.store %x, %v : !tt.ptr<f32>", signature="%x: !tt.ptr<f32>, %v: f32") + "\n"
    with pytest.raises(IRError):
        load("")
    assert load(module()) is load(module())
    assert load(text) is not load(module())


@triton.jit
def talkative(X, n):
    tl.device_print("a = b, tt.store (x) // {y}", n)
    tl.debug_barrier()
    tl.store(X, tl.multiple_of(n, 1) + 1)


def test_what_a_kernel_prints_is_no_operation(executor):
    x = torch.zeros(1, dtype=torch.int32)
    assert "tt.print" in executor.prepare(talkative, x, 4).ttir
    executor.run(talkative, x, 4)
    assert x.item() == 5


@triton.jit
def hinted(X, n):
    s = 0
    for j in tl.range(
        0, n, 4, num_stages=2, loop_unroll_factor=1, flatten=True, disallow_acc_multi_buffer=True, disable_licm=True
    ):
        j = tl.multiple_of(j, 4)
        s = tl.multiple_of(s, 2)
        s += tl.load(X + j, cache_modifier=".ca", eviction_policy="evict_last", volatile=True)
    tl.store(X, s, cache_modifier=".wb", eviction_policy="evict_first")


def test_hints_of_the_front_end_are_known(executor):
    x = torch.ones(8, dtype=torch.int32)
    launch = executor.prepare(hinted, x, 8)
    for name in ("tt.num_stages", "tt.flatten", "llvm.loop_annotation", "tt.divisibility_arg1"):
        assert name in launch.ttir
    assert "cachePolicy" in launch.ttir or "cacheModifier" in launch.ttir
    assert launch.run().faults == ()
    assert x[0].item() == 2


def test_what_the_compiler_notes_for_its_own_passes_changes_nothing(executor):
    x = torch.ones(8, dtype=torch.int32)
    text = executor.prepare(hinted, x, 8).ttir
    notes = "ttg.partition = array<i32: 1>, ttg.warp_specialize.tag = 0 : i32, tt.self_latency = 1 : i32"
    assert text.count("tt.flatten") == 1
    kernel = load(text.replace("tt.flatten", f"{notes}, tt.flatten"))
    assert kernel.run(Launch([Allocation("x", x)], (Pointer(0, 0), Scalar(8)), (1, 1, 1))).faults == ()
    assert x[0].item() == 2


def test_locations_prefer_the_authors_line_to_that_of_the_library():
    lines = [
        '#loc1 = loc("/lib/triton/language/standard.py":10:2)',
        '#loc2 = loc("/home/me/kernel (1).py":7:3)',
        '#loc3 = loc("name"(#loc2))',
        "#loc4 = loc(callsite(#loc1 at #loc3))",
        "#loc5 = loc(#loc5)",
    ]
    locations = Locations(lines)
    assert locations.resolve("#loc4", 1) == "kernel (1).py:7"
    assert locations.resolve('callsite("/lib/triton/language/core.py":1:1 at "a.py":5:1)', 1) == "a.py:5"
    assert locations.resolve("#loc1", 1) == "standard.py:10"
    assert locations.resolve("#loc5", 9) == "line 9 of the IR"
    assert locations.resolve("unknown", 9) == "line 9 of the IR"
    assert split_locations('  %a = x "loc(" : i32 loc("a)b"(#loc3))') == ('  %a = x "loc(" : i32', '"a)b"(#loc3)')


def test_types_of_both_triton_spellings():
    assert str(parse_type("tensor<64x1x!tt.ptr<bf16>>")) == "tensor<64x1xptr<bf16>>"
    assert parse_type("!tt.tensordesc<tensor<16x32xf16>>") == parse_type("!tt.tensordesc<16x32xf16>")
    assert parse_type("!tt.ptr<f32, 1>") == parse_type("!tt.ptr<f32>")
    with pytest.raises(IRError):
        parse_type("tensor<4xtensor<4xf32>>")
