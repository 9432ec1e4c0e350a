"""Arguments of the tools: their schemas, and the answer to a call that does not fit."""

import json
import math
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from avo.agents.prompts import tool_descriptions
from avo.evaluator.inspection import Show

MOST_SOURCE_CHARS = 200_000
"""Largest size of a working source: twenty times a long kernel."""
MOST_EDITS = 20
"""Most edits of one call or variant."""
BASE = "base"
"""The name of what variants are made from."""
MOST_VARIANTS = 16
"""Most variants that are looked at in one call."""
MOST_DIRECTIONS = 20
"""Most directions of one call; their tests and the base fit into the default budget of a step's looks."""

_Model = TypeVar("_Model", bound=BaseModel)


class BadCall(Exception):
    """A call that cannot be performed; the message says what to send instead."""


class _Arguments(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReadLineage(_Arguments):
    attempts: int = Field(default=12, ge=0, le=200)
    failures_only: bool = False


class ReadVersion(_Arguments):
    version: int | None = Field(default=None, ge=0)
    attempt: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one(self) -> Self:
        return _exactly_one(self, "version", "attempt")


class DiffVersions(_Arguments):
    old: int | None = Field(default=None, ge=0)
    new: int | None = Field(default=None, ge=0)
    old_attempt: int | None = Field(default=None, ge=0)
    new_attempt: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one(self) -> Self:
        return _at_most_one(_exactly_one(self, "old", "old_attempt"), "new", "new_attempt")


class SearchKnowledge(_Arguments):
    query: str = Field(min_length=1, max_length=500)
    limit: int = Field(default=6, ge=1, le=20)


class ReadNote(_Arguments):
    id: str = Field(min_length=1)


class Sources(_Arguments):
    name: str | None = Field(default=None, min_length=1, max_length=200)
    first: int = Field(default=1, ge=1)


class ViewSource(_Arguments):
    first: int = Field(default=1, ge=1)
    last: int | None = Field(default=None, ge=1)
    function: str | None = Field(default=None, min_length=1, max_length=200)

    @model_validator(mode="after")
    def _one(self) -> Self:
        return _at_most_one(self, "last", "function")


class Edit(_Arguments):
    old: str = Field(min_length=1)
    new: str
    everywhere: bool = False


class EditSource(_Arguments):
    old: str | None = Field(default=None, min_length=1)
    new: str | None = None
    everywhere: bool = False
    edits: tuple[Edit, ...] = Field(default=(), max_length=MOST_EDITS)
    patch: str | None = Field(default=None, min_length=1, max_length=MOST_SOURCE_CHARS)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.old is None) != (self.new is None):
            raise PydanticCustomError("pair", "old and new belong together")
        if [self.old is not None, bool(self.edits), self.patch is not None].count(True) != 1:
            raise PydanticCustomError("one", "give exactly one of old and new, edits, patch")
        return self


class WriteSource(_Arguments):
    source: str | None = Field(default=None, min_length=1, max_length=MOST_SOURCE_CHARS)
    version: int | None = Field(default=None, ge=0)
    attempt: int | None = Field(default=None, ge=0)
    variant: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        return _exactly_one(self, "source", "version", "attempt", "variant")


class Variant(_Arguments):
    name: str = Field(min_length=1, max_length=40)
    edits: tuple[Edit, ...] = Field(default=(), max_length=MOST_EDITS)
    patch: str = Field(default="", max_length=MOST_SOURCE_CHARS)


class Parameter(_Arguments):
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    name: str = Field(pattern=r"^[A-Za-z_]\w*$", max_length=40)
    values: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = Field(
        min_length=1, max_length=MOST_VARIANTS
    )

    @field_validator("values", mode="before")
    @classmethod
    def _flags(cls, given: Any) -> Any:
        return [str(each) if isinstance(each, bool) else each for each in given] if isinstance(given, list) else given


class TryVariants(_Arguments):
    variants: tuple[Variant, ...] = Field(default=(), max_length=MOST_VARIANTS)
    grid: tuple[Parameter, ...] = Field(default=(), max_length=6)
    version: int | None = Field(default=None, ge=0)
    attempt: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len({variant.name for variant in self.variants}) < len(self.variants):
            raise PydanticCustomError("names", "give each variant a name of its own")
        if len({each.name for each in self.grid}) < len(self.grid):
            raise PydanticCustomError("parameters", "give each parameter of the grid once")
        if any(variant.name == BASE for variant in self.variants):
            raise PydanticCustomError("base", "the first row is called base: choose another name")
        if not (self.variants or self.grid):
            raise PydanticCustomError("none", "give variants, or a grid, or both")
        count = len(self.variants) + (math.prod(len(each.values) for each in self.grid) if self.grid else 0)
        if count > MOST_VARIANTS:
            raise PydanticCustomError(
                "many", "{count} variants are asked for, the most are {most}", {"count": count, "most": MOST_VARIANTS}
            )
        return _at_most_one(self, "version", "attempt")


class ListedDirection(Variant):
    hypothesis: str = Field(min_length=15, max_length=1000)


class ExploreDirections(_Arguments):
    directions: tuple[ListedDirection, ...] = Field(max_length=MOST_DIRECTIONS)
    version: int | None = Field(default=None, ge=0)
    attempt: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = {each.name.lower() for each in self.directions}
        if not names or BASE in names or len(names) < len(self.directions):
            raise PydanticCustomError("names", "give directions, each a name of its own other than base")
        return _at_most_one(self, "version", "attempt")


class Check(_Arguments):
    source: str | None = Field(default=None, min_length=1, max_length=MOST_SOURCE_CHARS)


class Evaluate(_Arguments):
    hypothesis: str = Field(min_length=15, max_length=2000)
    change: str = Field(min_length=3, max_length=1000)
    expected: str = Field(min_length=1, max_length=500)
    also_from: tuple[int, ...] = ()
    suite: str | None = None
    wait: bool = True


class Collect(_Arguments):
    pass


class Profile(_Arguments):
    show: Show = Show.PIPES
    case: str | None = None
    version: int | None = Field(default=None, ge=0)
    attempt: int | None = Field(default=None, ge=0)
    variant: str | None = None
    against: str | None = Field(default=None, min_length=1, max_length=60)
    source: str | None = Field(default=None, min_length=1, max_length=MOST_SOURCE_CHARS)
    before: str | None = Field(default=None, min_length=1, max_length=100)
    first: int = Field(default=1, ge=1)
    loop: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.against is not None and self.show is not Show.SASS:
            raise PydanticCustomError("against", "against compares machine code: show: sass")
        return _at_most_one(self, "version", "attempt", "variant", "source")


class RunPython(_Arguments):
    code: str = Field(min_length=1, max_length=MOST_SOURCE_CHARS)


class Remember(_Arguments):
    note: str = Field(min_length=10, max_length=1000)


class Recall(_Arguments):
    query: str = Field(min_length=1, max_length=500)
    limit: int = Field(default=8, ge=1, le=40)


class Submit(_Arguments):
    attempt: int | None = Field(ge=0)
    change: str = Field(min_length=3, max_length=2000)
    seen: str = Field(min_length=1, max_length=2000)
    handover: str = Field(default="", max_length=20_000)


TOOLS: dict[str, type[_Arguments]] = {
    "read_lineage": ReadLineage,
    "read_version": ReadVersion,
    "diff_versions": DiffVersions,
    "search_knowledge": SearchKnowledge,
    "read_note": ReadNote,
    "sources": Sources,
    "view_source": ViewSource,
    "edit_source": EditSource,
    "write_source": WriteSource,
    "try_variants": TryVariants,
    "explore_directions": ExploreDirections,
    "check": Check,
    "evaluate": Evaluate,
    "collect": Collect,
    "profile": Profile,
    "run_python": RunPython,
    "remember": Remember,
    "recall": Recall,
    "submit": Submit,
}
_WRITING = {
    "edit_source", "write_source", "try_variants", "explore_directions", "evaluate", "collect", "remember", "submit",
}  # fmt: skip
READ_ONLY = frozenset(TOOLS) - _WRITING
"""The tools that change neither the step nor the run: calls of them may be performed side by side."""


def parse(name: str, arguments: str) -> BaseModel:
    """Parse the JSON arguments of a call of tool ``name``; raise ``BadCall``."""
    if name not in TOOLS:
        raise BadCall(f"there is no tool {name!r}: call one of {', '.join(TOOLS)}")
    try:
        data = json.loads(arguments or "{}")
    except (ValueError, RecursionError) as error:
        raise BadCall(f"the arguments of {name} are not JSON: {error}: send {_form(name)}") from None
    try:
        return TOOLS[name].model_validate(data)
    except ValidationError as error:
        wrong = (_wrong(detail) for detail in error.errors(include_url=False, include_input=False)[:5])
        raise BadCall(f"{name} was not called: {'; '.join(wrong)}: send {_form(name)}") from None


def tool_specs(suites: tuple[str, ...], cases: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the tools as chat completions expect them; ``suites`` and ``cases`` are the names that may be used."""
    return [_spec(name, {"suite": suites, "case": cases}) for name in TOOLS]


def _spec(name: str, choices: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    told = tool_descriptions()[name]
    properties = _properties(name)
    for argument, schema in properties.items():
        schema["description"] = told["arguments"][argument]
        if argument in choices:
            schema["enum"] = list(choices[argument])
    required = [key for key, field in TOOLS[name].model_fields.items() if field.is_required()]
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {
        "type": "function",
        "function": {"name": name, "description": told["description"], "parameters": parameters},
    }


def _properties(name: str) -> dict[str, dict[str, Any]]:
    """Return the schema of each argument, without references and, where it may be left out, without null: not every
    server's grammar has them.
    """
    schema = TOOLS[name].model_json_schema()
    properties = {}
    for argument, given in schema.get("properties", {}).items():
        plain = _inlined(given, schema.get("$defs", {}))
        if (kinds := plain.pop("anyOf", None)) is not None:
            required = TOOLS[name].model_fields[argument].is_required()
            plain |= {"type": [kinds[0]["type"], "null"]} if required else kinds[0]
        if plain.get("default", "") is None:
            del plain["default"]
        properties[argument] = plain
    return properties


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return a part of a schema with the definitions that it refers to in their place, and without titles."""
    if isinstance(schema, list):
        return [_inlined(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: value for key, value in schema.items() if key not in ("$ref", "title")}
    if reference := schema.get("$ref", ""):
        plain = definitions[reference.rpartition("/")[2]] | plain
        plain.pop("title", None)
    return {key: _inlined(value, definitions) for key, value in plain.items()}


def _form(name: str) -> str:
    """Return one line that says what a call needs."""
    fields = TOOLS[name].model_fields
    properties = _properties(name)

    def kind(argument: str) -> str:
        schema = properties[argument]
        choices = "|".join(map(str, schema.get("enum", ())))
        types = schema.get("type", "value")
        words = types if isinstance(types, str) else " or ".join(types)
        return choices or words + ("" if fields[argument].is_required() else ", optional")

    return "{" + ", ".join(f'"{argument}": {kind(argument)}' for argument in fields) + "}"


def _wrong(detail: Any) -> str:
    place = ".".join(map(str, detail["loc"]))
    return f"{place}: {detail['msg']}" if place else str(detail["msg"])


def _exactly_one(model: _Model, *names: str) -> _Model:
    return _some_of(model, "exactly", (1,), names)


def _at_most_one(model: _Model, *names: str) -> _Model:
    return _some_of(model, "at most", (0, 1), names)


def _some_of(model: _Model, how: str, counts: tuple[int, ...], names: tuple[str, ...]) -> _Model:
    if sum(getattr(model, name) is not None for name in names) not in counts:
        raise PydanticCustomError("one", "give {how} one of {names}", {"how": how, "names": ", ".join(names)})
    return model
