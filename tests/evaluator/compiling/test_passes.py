"""What a compiler writes about its passes tells which one it died in, on what, and what the IR was before each."""

import pytest

from avo.evaluator.compiling.passes import read

BEFORE = "// -----// IR Dump Before {}: {}{{num-stages=2}} ('builtin.module' operation) //----- //\n"
MODULE = """\
#mma = #ttg.nvidia_mma<{versionMajor = 3}>
#loc1 = loc("kernel.ttir":7:5)
module attributes {"ttg.num-warps" = 4 : i32} {
  tt.func public @f(%q: i32 loc("kernel.ttir":3:1)) {
    %1 = ttng.warp_group_dot %q, %q : i32 loc(#loc1)
    %2 = ttng.warp_group_dot %1, %q : i32 loc(#loc2)
    %3 = scf.for %i = %q to %q step %q iter_args(%a = %q) -> (i32) {
      %5 = math.exp2 %a : f32 loc(#loc3)
      scf.yield %5 : f32 loc(#loc3)
    } {tt.warp_specialize} loc(#loc4)
  } loc(#loc)
} loc(#loc)
#loc2 = loc("kernel.ttir":8:5)
#loc3 = loc("kernel.ttir":10:5)
#loc4 = loc("kernel.ttir":9:5)

"""
COALESCE = BEFORE.format("TritonGPUCoalesce", "tritongpu-coalesce") + MODULE.replace("exp2", "exp")
SPECIALISE = BEFORE.format("NVGPUWarpSpecialization", "nvgpu-warp-specialization") + MODULE
DIED = """\
module {
  tt.func public @f(%q: i32) {
  }
}

{-#
#-}
kernel.ttir:2:1: error: A signal was caught while processing the MLIR module:reproducer generated at `std::errs`
"""


def died(said: str) -> str:
    return COALESCE + "[tritongpu-coalesce]: %9 = tt.load %8 : i32\n" + SPECIALISE + said + DIED


def test_the_pass_that_was_begun_last_is_the_one_that_failed_with_the_ir_before_it() -> None:
    found = read(died(""), None)
    assert found["failed"]
    assert found["passes"] == ["tritongpu-coalesce", "nvgpu-warp-specialization"]
    assert (found["shown"], found["ir"]) == (1, MODULE.strip())
    assert "operation" not in found


def test_older_headers_are_read_too() -> None:
    older = COALESCE.replace(": tritongpu-coalesce{num-stages=2}", " (tritongpu-coalesce)")
    unnamed = COALESCE.replace(": tritongpu-coalesce{num-stages=2}", "")
    assert read(older + unnamed, None)["passes"] == ["tritongpu-coalesce", "TritonGPUCoalesce"]


@pytest.mark.parametrize(
    ("said", "operation", "places"),
    [
        ("[nvgpu-ws]: at\n%2 = ttng.warp_group_dot %1, %q {id = 1 : i32} : i32\n", "ttng.warp_group_dot", [8]),
        ("[nvgpu-ws]: %9 = ttng.warp_group_dot %8, %8 : i32\n", "ttng.warp_group_dot", [7, 8]),
        ("[nvgpu-ws]: %3 = scf.for %i = %q to %q step %q iter_args(%a\n  %5 = math.exp2 %a : f32\n}\n", "scf.for", [9]),
        ("[nvgpu-ws]: %5 = math.exp2 %a : f32\n// -----// internal IR Dump After: first\n" + MODULE, "math.exp2", [10]),
        ("[nvgpu-ws]: ttg.unknown_here\n", "ttg.unknown_here", []),
    ],
)
def test_the_operation_is_the_one_it_wrote_of_last_and_where_the_ir_before_the_pass_has_it(
    said: str, operation: str, places: list[int]
) -> None:
    found = read(died(said), None)
    assert found["operation"] == operation
    assert found["places"] == [f"kernel.ttir:{line}:1" for line in places]
    assert not found.get("blamed")


def test_an_operation_that_triton_blames_itself_comes_before_what_it_wrote_of_last() -> None:
    blame = "kernel.ttir:8:5: error: 'tt.dot' op shapes differ\n"
    found = read(died("[nvgpu-ws]: %5 = math.exp2 %a : f32\n" + blame), None)
    assert (found["operation"], found["places"], found["blamed"]) == ("tt.dot", ["kernel.ttir:8:5"], True)


def test_what_cannot_be_reached_is_told_with_the_line_before_it() -> None:
    said = read(died("Unexpected op\nUNREACHABLE executed at /a/b/WS.cpp:330!\n"), None)["said"]
    assert said.splitlines()[:2] == ["Unexpected op", "UNREACHABLE executed at /a/b/WS.cpp:330!"]
    assert "tt.func" not in said


def test_a_compilation_that_ends_well_has_no_failed_pass_and_shows_none_unasked() -> None:
    found = read(COALESCE + SPECIALISE, None)
    assert (found["failed"], found["shown"], found["said"]) == (False, None, "")
    assert not read("ptxas fatal: out of memory", None)["failed"]


@pytest.mark.parametrize(
    ("wanted", "shown"), [("1", 0), ("2", 1), ("tritongpu-coalesce", 0), ("0", None), ("3", None), ("nope", None)]
)
def test_the_ir_before_any_pass_is_found_by_number_or_name(wanted: str, shown: int | None) -> None:
    found = read(COALESCE + SPECIALISE, wanted)
    assert found["shown"] == shown
    assert ("math.exp " in found.get("ir", "")) is (shown == 0)
