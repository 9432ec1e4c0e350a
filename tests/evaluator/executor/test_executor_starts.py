"""Which programs start, and which are taken over by others."""

import torch

from evaluator.executor.starts import Starts

IDS = torch.tensor([7, 3, 5, 1])


def test_half_start_and_the_others_are_taken_over_while_there_are_some() -> None:
    starts = Starts(IDS, 10, may_be_taken=True)
    first = starts.start()
    assert first is not None
    assert first.tolist() == [0, 1]
    assert starts.take(1).tolist() == [5]
    assert starts.take(3).tolist() == [1]
    assert starts.take(1).tolist() == []
    assert starts.start() is None


def test_nobody_is_taken_over_where_nobody_may_be() -> None:
    starts = Starts(IDS, 3)
    first = starts.start()
    assert first is not None
    assert first.tolist() == [0, 1, 2]
    assert starts.take(1).tolist() == []
    last = starts.start()
    assert last is not None
    assert last.tolist() == [3]
