"""Tensors that are held without the memory between their rows."""

import torch

from avo.evaluator.executor import Allocation, Launch, Sparse, load
from avo.evaluator.plan import Pointer

FAR = Sparse((3, 2, 16), (2**32, 2**20, 1))
COPY = """module {
  tt.func public @copy(%from: !tt.ptr<f32>, %to: !tt.ptr<f32>) {
    %p = tt.get_program_id x : i32
    %wide = arith.extsi %p : i32 to i64
    %stride = arith.constant STRIDE : i64
    %at = arith.muli %wide, %stride : i64
    %a = tt.addptr %from, %at : !tt.ptr<f32>, i64
    %b = tt.addptr %to, %at : !tt.ptr<f32>, i64
    %i = tt.make_range {end = 16 : i32, start = 0 : i32} : tensor<16xi32>
    %as = tt.splat %a : !tt.ptr<f32> -> tensor<16x!tt.ptr<f32>>
    %bs = tt.splat %b : !tt.ptr<f32> -> tensor<16x!tt.ptr<f32>>
    %x = tt.addptr %as, %i : tensor<16x!tt.ptr<f32>>, tensor<16xi32>
    %y = tt.addptr %bs, %i : tensor<16x!tt.ptr<f32>>, tensor<16xi32>
    %v = tt.load %x : tensor<16x!tt.ptr<f32>>
    tt.store %y, %v : tensor<16x!tt.ptr<f32>>
    tt.return
  }
}
"""


def copied(stride: int) -> tuple[torch.Tensor, list[str]]:
    """Copy 16 elements at each of three places that are so far apart; return the copy and the kinds of faults."""
    held = torch.arange(96.0)
    memory = [
        Allocation("from", held, readonly=True, sparse=FAR),
        Allocation("to", torch.zeros(96), written=torch.zeros(96, dtype=torch.bool), sparse=FAR),
    ]
    kernel = load(COPY.replace("STRIDE", str(stride)))
    execution = kernel.run(Launch(memory, [Pointer(0, 0), Pointer(1, 0)], (3, 1, 1)), sanitize=True)
    return memory[1].data.view(FAR.shape), [fault.kind for fault in execution.faults]


def test_rows_that_are_far_apart_are_read_and_written_where_they_are_held() -> None:
    found, faults = copied(2**32)
    assert faults == []
    assert torch.equal(found[:, 0], torch.arange(96.0).view(FAR.shape)[:, 0])
    assert not found[:, 1].any()


def test_memory_between_the_rows_is_out_of_bounds() -> None:
    assert copied(2**31)[1] == ["read out of bounds", "write out of bounds"]
    assert copied(2**20 + 8)[1] == ["read out of bounds", "write out of bounds"], "half of a row"


def test_a_view_of_a_sparse_tensor_has_the_places_of_its_elements() -> None:
    places = FAR.places((3, 4), (2**32, 1), 2**20 + 2)
    assert places.tolist() == [18, 19, 20, 21, 50, 51, 52, 53, 82, 83, 84, 85]
