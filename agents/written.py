"""Recognises calls of tools that a model writes as text, because its server has no parser for its format."""

import re
from collections.abc import Iterable

PARSER_OPTIONS = ("--enable-auto-tool-choice", "--tool-call-parser", "--jinja")
"""The options of vLLM, two, and of llama.cpp."""
PARSER_MISSING = (
    "the model writes its calls as text, and the server does not read them: start vLLM with {} {} NAME, "
    "llama.cpp with {}".format(*PARSER_OPTIONS)
)
"""What to do about it: how vLLM's and llama.cpp's documentation say that calls are parsed."""
_MARKS = re.compile(
    r"<tool_call|<function[=_]|<invoke name=|\[TOOL_CALLS\]|<\|python_tag\|>|<\|tool_call|<\uff5ctool\u2581call"
    r"|to=functions\."
)
"""How calls begin in the chat templates of Hermes and Qwen, Llama, Mistral, DeepSeek, Kimi and gpt-oss."""


def is_written(text: str, tools: Iterable[str]) -> bool:
    """Return whether ``text`` has a call of one of the ``tools``, in the format of a model or as JSON."""
    names = "|".join(map(re.escape, tools))
    called = rf'"(?:name|tool|function|action)"\s*:\s*"(?:{names})"|^\W{{0,3}}(?:Action: *)?(?:{names})\(.*\)\W{{0,3}}$'
    return bool(_MARKS.search(text) or re.search(called, text, re.MULTILINE))
