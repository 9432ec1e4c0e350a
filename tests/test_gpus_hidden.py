"""Tests see no GPU unless they ask for one."""

import os

import pytest

from tests.conftest import sees_gpus


def test_this_test_sees_no_gpu(request: pytest.FixtureRequest) -> None:
    if not sees_gpus(request.config.option.markexpr):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("marks", "seen"),
    [
        ("", True),
        ("gpu", True),
        ("gpu and long", True),
        ("not gpu and not long", False),
        ("(long or soak or hypothesis) and not gpu", False),
        ("long", False),
    ],
)
def test_gpus_are_seen_where_tests_that_need_one_may_run(marks: str, seen: bool) -> None:
    assert sees_gpus(marks) is seen
