"""Options of commands that are made from the settings of a run: ``RunConfig`` has their types, defaults and help."""

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_origin

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from avo.flags import Flag

_FOR_A_STORED_RUN = ("resume", "mcp")
"""Commands whose options replace settings of a run. The defaults of a new run say nothing there."""

Function = Callable[..., None]


def takes_settings(function: Function) -> Function:
    """Give the command ``function(..., **settings)`` an option for each setting whose ``Flag`` names the command.

    ``settings`` holds the values by the names of the options, None for an option that is not given.
    """
    own = [each for each in inspect.signature(function).parameters.values() if each.kind is not each.VAR_KEYWORD]
    function.__dict__["__signature__"] = inspect.Signature(own)
    return function


def command_class(function: Function) -> type[TyperCommand]:
    """Return the class with which Typer has to make a command of ``function``."""
    return SettingsCommand if "__signature__" in vars(function) else TyperCommand


class SettingsCommand(TyperCommand):
    """A command of a function that ``takes_settings``.

    It has the options of the settings only once it is called, or its help is asked for: they need pydantic, which would
    slow the start of every other command.
    """

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Make the options, then read the arguments."""
        assert self.name is not None
        assert self.callback is not None
        app = typer.Typer(add_completion=False)
        app.command()(_with_options(inspect.unwrap(self.callback), self.name))
        whole = typer.main.get_command(app)
        self.params, self.callback = whole.params, whole.callback
        return super().make_context(*args, **kwargs)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the help of the options under the headings of their groups."""
        groups: dict[str, list[Any]] = {}
        for each in self.get_params(ctx):
            heading = "Arguments" if each.param_type_name == "argument" else "Options"
            if (record := each.get_help_record(ctx)) is not None:
                groups.setdefault(getattr(each, "rich_help_panel", None) or heading, []).append(record)
        groups["Options"] = groups.pop("Options")  # last, as they are the least particular to a command
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _with_options(function: Function, command: str) -> Function:
    @wraps(function)
    def called(**given: Any) -> None:
        function(**given)

    own = [each.replace(kind=each.KEYWORD_ONLY) for each in inspect.signature(function).parameters.values()]
    required = [each for each in own if each.default is each.empty]
    others = [each for each in own if each not in required]
    called.__dict__["__signature__"] = inspect.Signature([*required, *_options(command), *others])
    return called


def _options(command: str) -> Iterator[inspect.Parameter]:
    """Yield the options that ``command`` has for settings, in the order of the settings."""
    from avo.cli.completion import OF_SETTINGS
    from avo.config import RunConfig
    from avo.flags import flag_of

    for setting, field in RunConfig.model_fields.items():
        flag = flag_of(field)
        if flag is None or command not in flag.commands:
            continue
        name = flag.name or setting
        words = " ".join((field.description or "").split())
        if command not in _FOR_A_STORED_RUN and (flag.default or field.default not in (None, ())):
            words += f" Default: {flag.default or field.default}."
        option = typer.Option(
            None,
            f"--{name.replace('_', '-')}",
            metavar=_metavar(flag, field.annotation),
            help=words,
            rich_help_panel=flag.group,
            show_default=False,
            autocompletion=OF_SETTINGS.get(setting),
        )
        kind = _kind(field.annotation) | None
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)


def _metavar(flag: "Flag", annotation: Any) -> str:
    return flag.metavar or "|".join(get_args(annotation))


def _kind(annotation: Any) -> Any:
    """Return what Typer reads for a setting: a number, a list of names, or text of which the setting is made."""
    if get_origin(annotation) is tuple:
        return list[str]
    kind, *others = [each for each in get_args(annotation) or (annotation,) if each is not NoneType]
    return kind if kind in (int, float) and not others else str
