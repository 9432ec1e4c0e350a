"""Coroutines whose bodies are ordinary functions."""

from avo.evaluator.executor.coroutines import Coroutine


def test_a_coroutine_is_cancelled_where_one_that_it_resumed_hands_over_for_it() -> None:
    passed: list[str] = []

    def inside() -> None:
        outer.hand_over()
        passed.append("inside")

    def around() -> None:
        Coroutine(inside).resume()
        passed.append("around")

    outer = Coroutine(around)
    outer.resume()
    outer.cancel()
    assert outer.done
    assert passed == []
