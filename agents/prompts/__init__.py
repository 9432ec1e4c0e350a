"""Prompts: every sentence that a model is told, as Jinja2 templates, and the descriptions of tools."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from avo.evaluator.units import figure

_FOLDER = Path(__file__).parent


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    made.filters["figure"] = figure
    return made


def render(name: str, **values: Any) -> str:
    """Return the prompt called ``name``; raise ``jinja2.UndefinedError`` for a value that is missing."""
    return _environment().get_template(f"{name}.j2").render(values).strip()


@cache
def tool_descriptions() -> dict[str, dict[str, Any]]:
    """Return, by tool, its ``description`` and under ``arguments`` that of each argument."""
    return tomllib.loads((_FOLDER / "tools.toml").read_text(encoding="utf-8"))
