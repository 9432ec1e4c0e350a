"""Types of results, which the text of most operations leaves out or states in part."""

from collections.abc import Callable
from dataclasses import replace

from avo.evaluator.executor.errors import IRError
from avo.evaluator.executor.ir import Type
from avo.evaluator.executor.lexer import Parts

_TOKEN = Type("token")
_GIVE_TOKENS = (
    "ttg.async_copy_global_to_local",
    "ttg.async_commit_group",
    "ttg.async_wait",
    "ttng.tc_gen5_mma",
    "ttng.tc_gen5_mma_scaled",
    "ttng.tmem_store",
)
"""Operations whose only result is a token."""

_SPECIAL: dict[str, Callable[[list[Type]], Type]] = {
    "arith.cmpi": lambda types: types[0].of("i1"),
    "arith.cmpf": lambda types: types[0].of("i1"),
    "arith.select": lambda types: types[-1],
    "tt.make_tensor_descriptor": lambda types: types[-1],
    "tt.unsplat": lambda types: replace(types[0], shape=()),
}


def result_types(name: str, parts: Parts, count: int, number: int) -> list[Type]:
    """Return the types of an operation's results; raise ``IRError``, with the line ``number``, if not ``count``."""
    if count == 0:
        return []
    kinds = parts.result_types
    if name in _GIVE_TOKENS:
        kinds = [_TOKEN]
    elif name == "ttng.tmem_load" and count > len(kinds):
        kinds = [*kinds[:1], _TOKEN, *kinds[1:]]
    elif name == "ttng.warp_group_dot_wait":
        kinds = parts.types
    elif name == "arith.constant" and not parts.types:
        kinds = [Type("i1")]  # ``true`` and ``false`` are printed without their type.
    elif not kinds and parts.types:
        if name == "tt.load":
            target = parts.types[0].target
            if target is None:
                raise IRError(f"line {number} of the IR loads from {parts.types[0]}, which is not a pointer")
            kinds = [Type(target.element, parts.types[0].shape, target.target)]
        elif name in _SPECIAL:
            kinds = [_SPECIAL[name](parts.types)]
        else:
            kinds = [parts.types[0]] * count
    if name == "tt.make_tensor_descriptor" and kinds and kinds[0].element != "descriptor":
        raise IRError(f"line {number} of the IR makes a descriptor of type {kinds[0]}")
    if name == "tt.split":
        kinds = kinds * 2
    if len(kinds) != count:
        raise IRError(f"line {number} of the IR has {count} results and {len(kinds)} result types")
    return kinds
