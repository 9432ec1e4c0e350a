"""Strict schemas: nothing is optional, everything can be left null, and the nulls do not reach the tools."""

import json
from typing import Any

import pytest

from avo.agents.strict import strict_schema, without_nulls
from avo.agents.tools.arguments import tool_specs

EDITS = {
    "type": "object",
    "properties": {
        "edits": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "old": {"type": "string", "minLength": 1},
                    "times": {"type": "integer", "minimum": 1, "default": 1, "description": "How often."},
                    "where": {"type": "string", "enum": ["here", "there"]},
                },
                "required": ["old"],
            },
        },
        "attempt": {"type": ["integer", "null"]},
    },
    "required": ["edits", "attempt"],
}


def test_what_may_be_left_out_may_be_null_instead() -> None:
    assert strict_schema(EDITS) == {
        "type": "object",
        "properties": {
            "edits": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {
                        "old": {"type": "string"},
                        "times": {"type": ["integer", "null"], "minimum": 1, "description": "How often. null: 1."},
                        "where": {"type": ["string", "null"], "enum": ["here", "there", None]},
                    },
                    "required": ["old", "times", "where"],
                    "additionalProperties": False,
                },
            },
            "attempt": {"type": ["integer", "null"]},
        },
        "required": ["edits", "attempt"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}]}}},
        {"type": "object", "properties": {"a": {"type": "array"}}},
    ],
)
def test_a_schema_that_cannot_be_strict_has_no_strict_form(schema: dict[str, Any]) -> None:
    assert strict_schema(schema) is None


def test_nulls_for_what_was_left_out_are_removed_and_others_stay() -> None:
    given = {"edits": [{"old": "a", "times": None, "where": None}], "attempt": None, "more": None}
    kept = {"edits": [{"old": "a"}], "attempt": None, "more": None}
    assert json.loads(without_nulls(json.dumps(given), EDITS)) == kept
    for text in ("{", "[1]", '{"attempt":  1}'):
        assert without_nulls(text, EDITS) == text


def test_every_tool_is_strict_and_null_for_all_that_is_optional_is_a_call_without_it() -> None:
    for spec in tool_specs(("quick",), ("8k",)):
        parameters = spec["function"]["parameters"]
        schema = strict_schema(parameters)
        assert schema is not None, spec["function"]["name"]
        given = {name: "x" if name in parameters["required"] else None for name in schema["required"]}
        assert sorted(json.loads(without_nulls(json.dumps(given), parameters))) == sorted(parameters["required"])
