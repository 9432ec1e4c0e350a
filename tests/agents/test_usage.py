"""Counts of tokens: cached ones are found in the words of each kind of server."""

from typing import Any

import pytest

from avo.agents.model import Usage
from avo.agents.usage import MOST_TOKENS, read_usage

CHAT = {"prompt_tokens": 1000, "completion_tokens": 50}


@pytest.mark.parametrize(
    "counts",
    [
        CHAT | {"prompt_tokens_details": {"cached_tokens": 600}},
        CHAT | {"prompt_cache_hit_tokens": 600, "prompt_cache_miss_tokens": 400},
        CHAT | {"cached_tokens": 600},
        CHAT | {"cache_read_input_tokens": 600, "prompt_tokens_details": None},
        {"input_tokens": 1000, "output_tokens": 50, "input_tokens_details": {"cached_tokens": 600}},
        {
            "input_tokens": 1000, "output_tokens": 50, "input_tokens_details": {"cached_tokens": 600},
            "cache_read_input_tokens": 600,
        },
        {
            "input_tokens": 300, "output_tokens": 50, "cache_read_input_tokens": 600,
            "cache_creation_input_tokens": 100,
        },
    ],
)  # fmt: skip
def test_cached_tokens_are_counted_in_each_dialect(counts: dict[str, Any]) -> None:
    assert read_usage(counts) == Usage(1000, 600, 50)


def test_there_are_never_more_cached_tokens_than_tokens() -> None:
    assert read_usage(CHAT | {"cached_tokens": 2000}) == Usage(1000, 1000, 50)
    assert read_usage(CHAT | {"prompt_tokens_details": {"cached_tokens": None}}) == Usage(1000, 0, 50)


@pytest.mark.parametrize("counts", [None, [], {}, {"prompt_tokens": 0}, {"completion_tokens": 5}])
def test_where_nothing_is_counted_there_is_no_usage(counts: object) -> None:
    assert read_usage(counts) is None


@pytest.mark.parametrize("wild", [10**30, 10**400, float("inf"), float("nan"), MOST_TOKENS + 1])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens", "cached_tokens", "total_tokens"])
def test_a_count_beyond_any_context_is_doubted(name: str, wild: float) -> None:
    usage = read_usage(CHAT | {name: wild})
    assert usage is not None
    assert (usage.tokens, "is not believed" in usage.doubt) == (0, True)


def test_figures_that_count_no_tokens_are_left_alone() -> None:
    assert read_usage(CHAT | {"started": 1.8e9, "prompt_tokens_details": {"cached_tokens": 1e30}}) == Usage(
        1000, 1000, 50
    )
