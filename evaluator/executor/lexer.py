"""Splits the text of an operation into operands, keywords, attributes and types, whatever its own syntax."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from avo.evaluator.executor.errors import IRError
from avo.evaluator.executor.ir import Type, parse_type

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<string>"(?:[^"\\]|\\.)*")
    |(?P<value>%[\w$.\-]+(?:\#\d+)?)
    |(?P<block>\^[\w$.\-]+)
    |(?P<symbol>@(?:"[^"]*"|[\w$.\-]+))
    |(?P<number>-?(?:0x[0-9A-Fa-f]+|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?))
    |(?P<word>[\#!]?[A-Za-z_][\w.$]*)
    |(?P<properties><\{|\}>)
    |(?P<group><)
    |(?P<punctuation>->|[{}()\[\],:=*])
    )""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\([0-9A-Fa-f]{2}|.)", re.DOTALL)
_ANGLE = re.compile(r'"(?:[^"\\]|\\.)*"|->|[<>]')
_TYPE_WORD = re.compile(r"tensor<|!tt(?:g|ng)?\.|<|(?:i\d+|bf16|f\d\w*|index)$")

Token = tuple[str, str]


def tokens(text: str) -> Iterator[Token]:
    """Yield (kind, text); a group in angle brackets is part of the word before it. Raises ``IRError``."""
    position = 0
    end = len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise IRError(f"cannot read the IR at {text[position : position + 60].strip()!r}")
        kind, token, position = match.lastgroup, match[match.lastgroup], match.end()
        opens = text.startswith("<", position) and not text.startswith("<{", position)
        if kind == "group" or (kind == "word" and opens):
            position = _closing_angle(text, match.end() - (kind == "group"))
            token = (token if kind == "word" else "") + text[match.end() - (kind == "group") : position]
            kind = "word"
        yield kind, token


def _closing_angle(text: str, start: int) -> int:
    depth = 0
    for match in _ANGLE.finditer(text, start):
        if match[0] == "<":
            depth += 1
        elif match[0] == ">":
            depth -= 1
            if depth == 0:
                return match.end()
    raise IRError(f"'<' is never closed in {text[start : start + 60]!r}")


@dataclass
class Parts:
    """The parts of one operation's text, in order of appearance."""

    operands: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)
    successors: list[tuple[str, list[str]]] = field(default_factory=list)
    symbol: str = ""
    scales: list[int] = field(default_factory=list)
    """Places of the operands that the keyword ``scale`` precedes."""
    types: list[Type] = field(default_factory=list)
    """Types after the colon: those of operands, or of operands and results."""
    result_types: list[Type] = field(default_factory=list)
    """Types after the arrow or ``to``."""


def split(text: str) -> Parts:
    """Split the text after an operation's name, without its location and regions."""
    parts = Parts()
    stream = list(tokens(text))
    types: list[Type] | None = None
    i = 0
    while i < len(stream):
        kind, token = stream[i]
        following = stream[i + 1][1] if i + 1 < len(stream) else ""
        i += 1
        if token == "->" or (token == "to" and types is not None):
            types = parts.result_types
        elif token == ":" and not following.startswith("%"):
            types = parts.types
        elif token in ("{", "<{"):
            i = attributes(stream, i, parts.attributes)
        elif types is not None:
            if kind == "word" and _TYPE_WORD.match(token):
                types.append(parse_type(token))
            elif kind != "punctuation":
                raise IRError(f"expected a type, not {token[:60]!r}")
        elif kind == "value":
            if parts.words[-1:] == ["scale"]:
                parts.words.pop()
                parts.scales.append(len(parts.operands))
            parts.operands.append(token)
        elif kind == "block":
            values: list[str] = []
            if following == "(":
                while i < len(stream) and stream[i][1] != ")":
                    values += [stream[i][1]] if stream[i][0] == "value" else []
                    i += 1
            parts.successors.append((token, values))
        elif kind == "symbol":
            parts.symbol = token
        elif kind == "word" and following == "=" and i + 1 < len(stream):
            parts.attributes[token] = stream[i + 1][1]
            i += 2
        elif kind == "string" and following == "(":
            raise IRError(f"{token[:60]} is an operation within another")
        elif kind != "punctuation":
            parts.words.append(token)
    return parts


def unquoted(text: str) -> str:
    """Return the contents of a quoted string, in which the IR writes special characters as two hexadecimal digits."""
    inner = _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if len(match[1]) == 2 else match[1], text[1:-1])
    return inner.encode("latin-1", "replace").decode("utf-8", "replace")


def attributes(stream: list[Token], i: int, into: dict[str, str]) -> int:
    """Read ``key = value`` entries up to the closing brace; return the index after it."""
    depth = 0
    key = ""
    value: list[str] = []
    while i < len(stream):
        kind, token = stream[i]
        i += 1
        if depth == 0 and token in ("}", "}>", ","):
            if key:
                into[key] = " ".join(value)
            key, value = "", []
            if token != ",":
                return i
        elif depth == 0 and not key and kind in ("word", "string"):
            key = token.strip('"')
        elif token != "=" or depth:
            depth += (token in "([{") - (token in ")]}")
            value.append(token)
    raise IRError("an attribute list is never closed")
