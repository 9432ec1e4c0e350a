"""Reads what a function says of its parameters: their names, their types, and what it promises the compiler of them."""

import re
from collections.abc import Mapping

from avo.evaluator.executor.errors import IRError, UnsupportedOperation
from avo.evaluator.executor.ir import Type, parse_type
from avo.evaluator.executor.lexer import attributes, tokens
from avo.evaluator.executor.operations.registry import VALUE_HINTS

FUNCTION = re.compile(r'tt\.func\s+(?:(public|private)\s+)?@("[^"]*"|[\w$.\-]+)\s*\((.*)\{')
_AMOUNT = re.compile(r"([1-9]\d{0,18}) : i(?:32|64)")


def signature(header: str) -> list[tuple[str, Type, Mapping[str, str]]]:
    """Return name, type and attributes of each parameter of a ``tt.func`` line."""
    match = FUNCTION.match(header)
    if match is None:
        raise IRError(f"cannot read the function {header[:80]!r}")
    stream = list(tokens(match[3]))
    of_function: dict[str, str] = {}
    of_params: list[dict[str, str]] = []
    i = 0
    inside = True
    while i < len(stream):
        kind, token = stream[i]
        i += 1
        if inside and kind == "value":
            of_params.append({})
        elif token == ")":
            inside = False
        elif token == "{":
            i = attributes(stream, i, of_params[-1] if inside and of_params else of_function)
    for attribute in of_function:
        if attribute not in ("noinline", "allocation.offset"):
            raise UnsupportedOperation(f"tt.func with {attribute}", f"function {match[2]}")
    pairs = typed_names("(" + match[3])
    if len(pairs) != len(of_params):
        raise IRError(f"cannot read the function {header[:80]!r}")
    return [(name, kind, hints) for (name, kind), hints in zip(pairs, of_params, strict=True)]


def divisor(hints: Mapping[str, str], location: str) -> int:
    """Return the declared divisor of a parameter, the only attribute that is known."""
    for name, value in hints.items():
        match = re.fullmatch(r"([1-9]\d{0,8}) : i32", value)
        if name != "tt.divisibility" or match is None:
            raise UnsupportedOperation(f"tt.func with an argument of {name} = {value[:60]}", location)
        return int(match[1])
    return 1


def promises(hints: Mapping[str, str], kind: Type, location: str) -> dict[str, str]:
    """Return what a private function promises of an argument, as hints on its value are written; {} if that is nothing.

    The compiler notes there what it found out about the arguments of all calls (``ModuleAxisInfoAnalysis::update``).
    """
    amounts = {}
    for name, value in hints.items():
        match = _AMOUNT.fullmatch(value)
        if name not in VALUE_HINTS or match is None:
            raise UnsupportedOperation(f"private tt.func with an argument of {name} = {value[:60]}", location)
        amounts[name] = int(match[1])
    said = {name: amount for name, amount in amounts.items() if amount > 1}
    # With a divisor, a contiguity of one says that all elements are divisible; of floats it says nothing.
    kept = said if kind.floating or not said else amounts
    return {name: f"dense<{amount}> : tensor<1xi32>" for name, amount in kept.items()}


def typed_names(text: str) -> list[tuple[str, Type]]:
    """Return the names and types in ``(%a: type {...}, %b: type)``, up to its closing parenthesis."""
    pairs: list[tuple[str, Type]] = []
    name = ""
    depth = 0
    for kind, token in tokens(text):
        depth += (token in ("(", "{", "[")) - (token in (")", "}", "]"))
        if depth == 0:
            return pairs
        if depth == 1 and kind == "value":
            name = token
        elif depth == 1 and kind == "word" and name:
            pairs.append((name, parse_type(token)))
            name = ""
    raise IRError(f"a list of arguments is never closed: {text[:80]!r}")
