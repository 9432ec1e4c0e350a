"""Where settings come from: a TOML file and the options of a command."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avo.errors import ConfigError


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
