"""Where settings come from: a TOML file and the options of a command, and what is said of one that is wrong."""

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from avo.agents.settings import ModelSettings
from avo.errors import ConfigError
from avo.flags import flag_of


def read_toml(path: Path) -> dict[str, Any]:
    """Return the contents of a TOML file; raise ``ConfigError`` where it is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}: name a TOML file that can be read") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text: name a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def options_given(options: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the options that are given. A model that is named is set up as in ``others``, if there."""
    given = {key: value for key, value in options.items() if value not in (None, [])}
    if names := given.pop("model", None):
        listed = others.get("models")
        known = {each.get("name"): each for each in listed if isinstance(each, dict)} if listed else {}
        given["models"] = [known.get(name, {"name": name}) for name in names]
    return given


def explain(
    error: ValidationError, settings: Mapping[str, FieldInfo], path: Path | None, given: Mapping[str, Any]
) -> str:
    """Return one line about the first thing that is wrong. ``given`` are options, other settings come from ``path``."""
    detail = error.errors(include_url=False, include_context=False)[0]
    setting, *within = map(str, detail["loc"])
    where = f"{path}: {setting}"
    if setting in given or path is None:
        flag = flag_of(settings[setting]) if setting in settings else None
        where = f"--{(flag and flag.name) or setting.replace('_', '-')}"
    where = ".".join((where, *within))
    if detail["type"] == "extra_forbidden":
        known = ModelSettings.model_fields if within else settings
        near = get_close_matches(str(detail["loc"][-1]), known, n=1)
        advice = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"
        return f"{where}: unknown setting: {advice}"
    if detail["type"] == "missing":
        return f"{where}: {detail['msg']}"
    said, _, wanted = detail["msg"].partition(" should ")
    return f"{where}: {detail['input']!r} should {wanted or f'be {said}'}"
