"""How a setting becomes an option of the command line."""

from dataclasses import dataclass

from pydantic.fields import FieldInfo

RUN = ("run",)
RUN_AND_RESUME = ("run", "resume")
STEPS_OF_A_RUN = ("run", "resume", "mcp")
EVERY_JUDGE = ("run", "resume", "mcp", "evaluate", "export")
ONE_FILE = ("run", "evaluate", "baselines")


@dataclass(frozen=True, slots=True)
class Flag:
    """How a setting is given on the command line. Its help is the text below the setting."""

    group: str
    """Heading in the help of a command."""
    metavar: str = ""
    """What stands for the value in the help; by default the values that can be chosen."""
    default: str = ""
    """The default in words, where the value does not say it."""
    commands: tuple[str, ...] = RUN_AND_RESUME
    """The commands that have the option."""
    name: str = ""
    """Name of the option, where it is not that of the setting."""


SUBJECT, SEARCH, LIMITS, STEP = "What is judged", "Search", "Limits of the run", "Limits of each step"
MODELS, WORKERS, JUDGE, WATCH = "Models", "Workers", "Judge", "Watching"
MEASURING = "With --target cuda"
"""Options of this group are refused where speed is predicted."""


def flag_of(setting: FieldInfo) -> Flag | None:
    """Return how a setting is given on the command line; None where it is given in a file alone."""
    return next((each for each in setting.metadata if isinstance(each, Flag)), None)
