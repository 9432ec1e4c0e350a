"""Targets as users name them."""

import pytest

from avo.errors import ConfigError
from avo.targets import find_target
from evaluator.errors import UnknownTarget
from evaluator.target import TARGETS


def test_every_architecture_is_found_by_its_name() -> None:
    assert [find_target(name) for name in TARGETS] == list(TARGETS.values())


def test_a_gpu_to_measure_on_is_refused_with_the_architectures_to_predict_for() -> None:
    with pytest.raises(ConfigError, match=f"not part of this version; .*: {', '.join(TARGETS)}$"):
        find_target("cuda")


def test_what_is_no_target_is_unknown() -> None:
    with pytest.raises(UnknownTarget, match="'tpu'"):
        find_target("tpu")
