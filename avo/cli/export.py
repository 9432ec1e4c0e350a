"""``avo export``: a version as an installable package."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from avo.cli.common import DbOption, JsonOption, err, load_version, open_store, print_json
from avo.cli.show import VersionArgument


def export(
    version: VersionArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; must be empty or not exist.")],
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a version as an installable package.

    It holds the kernel as it is, its provenance, a README and a test.

    Example: avo export mha-h100@3 --out my-kernel
    """
    from avo.export.package import render_package, write_package
    from evaluator.problem import get_problem

    with open_store(db) as store:
        run, found = load_version(store, version)
        versions = store.versions(run.id)
    files = render_package(run, get_problem(run.problem), versions, found.number, datetime.now(UTC))
    write_package(files, out, force)
    err.print(f"{run.name}@{found.number} is in {out}; next: pip install {out}")
    if as_json:
        print_json({"run": run.name, "version": found.number, "folder": str(out), "files": sorted(files)})
    else:
        for place in sorted(files):
            print(out / place)
