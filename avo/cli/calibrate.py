"""``avo calibrate``: learn a card from what kernels took on it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avo.cli.common import JsonOption, console, err, print_json
from avo.cli.ingest import read_measurement
from avo.watch.tables import row, table

if TYPE_CHECKING:
    from avo.evaluator.calibration import Calibration

_UNNAMED = "this-card"


def calibrate(
    files: Annotated[list[Path], typer.Argument(metavar="MEASURED.JSON", help="What measure.py of shortlists wrote.")],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Keep the card under this name, for --target. Default: only report."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fit the model's constants for one card to measured times, and keep it as a target.

    What differs between cards of a kind is fitted within its published range: the clock under load, the power of
    arithmetic, the rates of L2 and HBM, what a launch costs. Errors are those on the half of the kernels that nothing
    was fitted to. The card is kept if they fall; then all times are fitted.

    Cards are kept in $AVO_CARDS, or avo/cards.json in the user's data folder. A run takes its card along.

    Exit code 0: done. 2: the call is wrong, or the times are too few, contradict each other or teach nothing.

    Example: avo calibrate measured.json --name h100-lab
    """
    from avo.evaluator.calibration import calibrated_by
    from avo.evaluator.known import check_name, keep

    if name is not None:
        check_name(name)
    measured = [read_measurement(file) for file in files]
    with err.status("reading times ...") as status:
        found = calibrated_by(measured, name or _UNNAMED, lambda doing: status.update(f"{doing} ..."))
    if as_json:
        print_json(asdict(found))
    else:
        _show(found)
        console.print(found.card.standing, soft_wrap=True)
    if name is not None:
        err.print(f"{name} is kept in {keep(found.card)}: avo run --target {name}")


def _show(found: "Calibration") -> None:
    """Print what the times say of each constant, and what that is worth."""
    constants = table("constant", ">cards of this kind", ">this card", "slow to fast")
    for each in found.constants:
        kind, own = each.published, each.found
        if own is None:
            row(constants, each.name, f"{kind.value:.3g}", "", "not determined by these times")
        else:
            end = ", an end of what was published" if each.at_end else ""
            row(constants, each.name, f"{kind.value:.3g}", f"{own.value:.3g}", f"{own.slow:.3g} to {own.fast:.3g}{end}")
    console.print(constants)
    errors = table("half of the kernels that nothing was fitted to", ">before", ">after")
    row(errors, "mean error of predicted times", f"{found.before.error:.1%}", f"{found.after.error:.1%}")
    row(
        errors,
        "pairs in the right order",
        *("" if order is None else f"{order:.0%}" for order in (found.before.order, found.after.order)),
    )
    console.print("", errors, "", sep="\n")
