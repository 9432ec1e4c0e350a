"""The main loop of compiled code is found where a reader would look for it."""

from avo.agents.tools.code import main_loop, page

MLIR = """\
module {
  tt.func @f() {
    %0:2 = scf.for %i = %a to %b step %c -> (i32, i32) {
      %1 = ttng.warp_group_dot %q, %k : i32
      scf.yield %1
    } {tt.warp_specialize}
    scf.while (%x = %y) : (i32) -> i32 {
      scf.condition(%z)
    } do {
    ^bb0(%n: i32):
      scf.for %j = %a to %b step %c {
        %2 = ttng.tc_gen5_mma %q, %k : i32
        %3 = tt.dot %q, %k : i32
      }
      scf.yield
    }
  }
}
"""
PTX = """\
.visible .entry f(
$L__BB0_1:                              // =>This Inner Loop Header: Depth=1
    add.s32 %r1, %r1, 1;
    @%p1 bra $L__BB0_1;
$L__BB0_2:                              // %body
    mov.b32 %r2, 0;
$L__BB0_3:                              // =>This Inner Loop Header: Depth=1
    wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%f1}, %rd1;
    @%p2 bra $L__BB0_3;
    ret;
"""


def test_the_loop_with_most_products_is_the_main_one_and_the_innermost_of_equals() -> None:
    assert main_loop(MLIR) == 11
    assert main_loop(MLIR.replace("%3 = tt.dot", "%3 = tt.add").replace("tc_gen5_mma", "other")) == 3
    assert main_loop(PTX) == 7


def test_code_without_a_loop_has_none() -> None:
    assert main_loop("module {\n}\n") is None
    assert main_loop("") is None


def test_a_page_ends_with_a_whole_line_and_has_one_at_least() -> None:
    text = "\n".join(("one", "three", "a line that no page holds"))
    assert page(text, 1, 9) == "one\nthree\n[... lines 3 to 3: call again with first: 3]"
    assert page(text, 1, 8) == "one\n[... lines 2 to 3: call again with first: 2]"
    assert page(text, 3, 9) == "a line that no page holds"
    assert page(text, 4, 9) == "there are no such lines"
