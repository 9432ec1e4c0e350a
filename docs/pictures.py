"""Draw the README's pictures from a finished run.

    python docs/pictures.py [RUN] [--db URL]

Writes docs/pictures/run.svg, the live display as it stood at the end of the run, and docs/pictures/ui.svg, the terminal
UI on its best version.
"""

import argparse
import asyncio
import io
from pathlib import Path

from rich.console import Console

from avo.cli.common import database_url
from avo.panel import Budget, panel
from avo.snapshot import Snapshot, read_snapshot
from avo.tui.app import AvoApp
from evaluator.problem import get_problem
from lineage_db.store import Store

PICTURES = Path(__file__).parent / "pictures"
COLUMNS, LINES = 100, 32


def draw_run(snapshot: Snapshot) -> None:
    """Write the live display of ``snapshot``."""
    run = snapshot.run
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    baselines = [b for b in get_problem(run.problem).baselines if b.target == run.target]
    console.print(panel(snapshot, now=run.updated, budget=Budget(None, run.updated, run.created), baselines=baselines))
    console.save_svg(str(PICTURES / "run.svg"), title=f"avo run --problem {run.problem} --target {run.target}")


async def draw_ui(url: str, run: str) -> None:
    """Write the terminal UI."""
    app = AvoApp(url, run)
    async with app.run_test(size=(COLUMNS, LINES)) as pilot:
        await pilot.pause(2)
        await pilot.press("b")
        await pilot.pause(1)
        app.save_screenshot("ui.svg", str(PICTURES))


def main() -> None:
    """Draw both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default="mha-h100")
    parser.add_argument("--db")
    options = parser.parse_args()
    url = database_url(options.db)
    with Store.open(url, create=False) as store:
        draw_run(read_snapshot(store, options.run))
    asyncio.run(draw_ui(url, options.run))


if __name__ == "__main__":
    main()
