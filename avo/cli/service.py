"""``avo service``: what starts a run again by itself, for systemd and for Slurm."""

import getpass
import math
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from avo.cli.common import DbOption, RunArgument, read_store

_YEAR_H = 8760


def service(
    run: RunArgument,
    slurm: Annotated[bool, typer.Option("--slurm", help="Print a batch script for Slurm instead.")] = False,
    hours: Annotated[
        float,
        typer.Option(
            "--max-hours", metavar="HOURS", min=0.1, max=_YEAR_H, help="How long it may take from each start."
        ),
    ] = 168.0,
    db: DbOption = None,
) -> None:
    """Print a systemd unit, or a Slurm script, that keeps a run going here through power cuts and kills.

    Keys and a database's password belong into the file of environment variables that it names.

    Example: avo service mha-h100 | sudo tee /etc/systemd/system/avo-mha-h100.service
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    with read_store(db) as store:
        record, url = store.run(run), store.url
    templates = Environment(
        loader=PackageLoader("avo.cli"), undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True,
    )  # fmt: skip
    templates.filters["escaped"] = _escaped
    templates.filters["quoted"] = (lambda text: shlex.quote(str(text))) if slurm else _quoted
    days, rest = divmod(math.ceil(hours), 24)
    text = templates.get_template("slurm.j2" if slurm else "systemd.j2").render(
        run=record.name,
        avo=Path(sys.executable).with_name("avo"),
        folder=Path.cwd(),
        db=url if url.startswith("sqlite:") else None,
        environment=Path.home() / ".config" / "avo.env",
        user=getpass.getuser(),
        hours=f"{hours:g}",
        time=f"{days}-{rest:02}:00:00",
    )
    print(text, end="")


def _escaped(text: object) -> str:
    """Return a value for a systemd unit, where ``%`` begins a specifier (systemd.unit(5))."""
    return str(text).replace("%", "%%")


def _quoted(text: object) -> str:
    """Return one word of a systemd command line (systemd.service(5))."""
    escaped = _escaped(text).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"'
