"""Tools for an agent with a folder of its own: where a tool takes a source, it takes a path in that folder too."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from avo.agents.tools.arguments import MOST_SOURCE_CHARS, BadCall, parse

PATH = "path"
_SOURCES = {"write_source": "source", "check": "source", "profile": "source", "run_python": "code"}
"""The tools that take a source, and as which argument."""
_WORKING = "evaluate"
"""The tool that takes the working source only: a path becomes the working source first."""
_TOLD = "Path of a file in your folder, in place of {}."


def with_paths(specs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return descriptions of tools in which those that take a source take a path in its place."""
    found = deepcopy(list(specs))
    for spec in found:
        name, parameters = spec["function"]["name"], spec["function"]["parameters"]
        replaced = _SOURCES.get(name, "the working source" if name == _WORKING else "")
        if replaced:
            parameters["properties"][PATH] = {"type": "string", "description": _TOLD.format(replaced)}
            parameters["required"] = [each for each in parameters["required"] if each != replaced]
    return found


def with_source(name: str, arguments: str, folder: Path | None) -> list[tuple[str, str]]:
    """Return the calls that a call with a path stands for: tools and their arguments, as JSON.

    Raises ``BadCall`` where the path leads to no text of ``folder``. Where a tool takes the working source, it does so
    before that is replaced if the other arguments are wrong.
    """
    try:
        given = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        given = None
    if folder is None or not isinstance(given, Mapping) or PATH not in given:
        return [(name, arguments)]
    others = {key: value for key, value in given.items() if key != PATH}
    source = _read(folder, given[PATH])
    if name == _WORKING:
        parse(name, json.dumps(others))
        return [("write_source", json.dumps({"source": source})), (name, json.dumps(others))]
    if name not in _SOURCES:
        raise BadCall(f"{name} takes no path")
    if _SOURCES[name] in others:
        raise BadCall(f"give {PATH} or {_SOURCES[name]}, not both")
    return [(name, json.dumps({**others, _SOURCES[name]: source}))]


def _read(folder: Path, path: object) -> str:
    try:
        file = (folder / str(path)).resolve()
        if not file.is_relative_to(folder.resolve()) or not file.is_file():
            raise BadCall(f"{path} is no file in your folder")
        if file.stat().st_size > 4 * MOST_SOURCE_CHARS:  # bytes of UTF-8
            raise BadCall(f"{path} is too long: the limit is {MOST_SOURCE_CHARS} characters")
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadCall(f"{path} cannot be read: {error}") from None
