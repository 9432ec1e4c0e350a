"""Calls that came as text are told from prose about tools."""

import pytest

from avo.agents.written import is_written

TOOLS = ("view_source", "evaluate")


@pytest.mark.parametrize(
    "text",
    [
        'I look.\n<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>',
        "<function=view_source></function>",
        '[TOOL_CALLS][{"name": "look"}]',
        "<|python_tag|>look.call()",
        "<\uff5ctool\u2581calls\u2581begin\uff5c>",
        "<|tool_calls_section_begin|>",
        "<|channel|>commentary to=functions.look <|message|>{}",
        '```json\n{"name": "view_source", "arguments": {}}\n```',
        "First:\n[view_source(first=1, last=9)]",
        'Action: evaluate({"change": "x"})',
    ],
)
def test_calls_are_recognised_in_the_format_of_each_family(text: str) -> None:
    assert is_written(text, TOOLS)


@pytest.mark.parametrize(
    "text",
    ["", "I would call view_source next.", "Use `evaluate()` to see.", '{"name": "other"}', "def f(x):\n    g(x)"],
)
def test_prose_about_tools_is_none(text: str) -> None:
    assert not is_written(text, TOOLS)
