"""Draws the pictures of the pages from a finished run. ``make pictures`` makes that run first.

    python -m docs.pictures [RUN] [--db URL]

Writes to docs/pictures:

    run.svg         the live display as it stood at the end of the run
    ui-80.svg, ui.svg, ui-140.svg    the terminal UI at three sizes, on the run's best version and on its attempts
    profile.svg     the beginning of what `avo profile RUN` prints for one case; starts a judge
    report.png      the trajectories of `avo report RUN`, if chromium and chromedriver are installed
    export.svg      the beginning of the README of the package that `avo export RUN` makes
    serve.png       the page of RUN that `avo serve` serves, likewise

The commands are run as a reader would run them. RUN is mha-h100 unless given.
"""

import argparse
import asyncio
import base64
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from avo.cli.database import database_url
from avo.evaluator.catalogue import get_problem
from avo.lineage_db.store import Store
from avo.report.data import Report
from avo.report.reading import read_report
from avo.report.render import to_html
from avo.tui.app import AvoApp
from avo.watch.panel import Budget, panel
from avo.watch.view import RunView

PICTURES = Path(__file__).parent / "pictures"
COLUMNS = 100
UI = (
    ("ui-80.svg", (80, 24), "b", "Version "),
    ("ui.svg", (COLUMNS, 32), "b", "this one"),
    ("ui-140.svg", (140, 40), "a", "newest first"),
)
"""File, size, key to press and words to wait for of each picture of the terminal UI."""
MOST_LINES = 52
"""Number of lines of a command's output that are drawn."""
PAGE_WIDTH, PAGE_SCALE = 860, 1.5
"""Width of the report's window in pixels, and how many pixels of the picture each of them becomes."""


def draw_run(view: RunView) -> None:
    """Write the live display of a run."""
    run = view.run
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    baselines = [b for b in get_problem(run.problem).baselines if b.target == run.target]
    console.print(panel(view, now=run.updated, budget=Budget(run.updated, run.created), baselines=baselines))
    console.save_svg(str(PICTURES / "run.svg"), title=f"avo run --problem {run.problem} --target {run.target}")


async def draw_ui(url: str, run: str, name: str, size: tuple[int, int], key: str, words: str) -> None:
    """Write the terminal UI after ``key``, once it shows ``words``."""
    app = AvoApp(url, run)
    async with app.run_test(size=size) as pilot:
        while "★" not in app.export_screenshot():
            await pilot.pause(0.2)
        await pilot.press(key)
        while words.replace(" ", "&#160;") not in app.export_screenshot():
            await pilot.pause(0.2)
        app.save_screenshot(name, str(PICTURES))


def draw_command(url: str, name: str, *words: str) -> None:
    """Write what ``avo WORDS`` prints to a terminal of ``COLUMNS`` columns."""
    environment = os.environ | {"AVO_DB": url, "COLUMNS": str(COLUMNS), "FORCE_COLOR": "1"}
    command = [sys.executable, "-m", "avo", *words]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    draw_lines(name, f"avo {' '.join(words)}", Text.from_ansi(printed.rstrip()))


def draw_readme(url: str, run: str) -> None:
    """Write the beginning of the README of an exported package."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "package"
        command = [sys.executable, "-m", "avo", "export", run, "--out", str(package), "--db", url]
        subprocess.run(command, check=True, capture_output=True)
        shown = Console(width=COLUMNS, file=io.StringIO(), force_terminal=True)
        shown.print(Markdown((package / "README.md").read_text(encoding="utf-8").partition("\n---\n")[2]))
        draw_lines("export", "README.md", Text.from_ansi(shown.file.getvalue().rstrip()))  # type: ignore[attr-defined]


def draw_lines(name: str, title: str, text: Text) -> None:
    """Write the first ``MOST_LINES`` of a text."""
    lines = text.split("\n", allow_blank=True)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text("\n").join(lines[:MOST_LINES]))
    if len(lines) > MOST_LINES:
        console.print(f"... and {len(lines) - MOST_LINES} more lines", style="dim", highlight=False)
    console.save_svg(str(PICTURES / f"{name}.svg"), title=title)


@contextmanager
def browsing(scale: float) -> Iterator[Any]:
    """Yield a browser with a window of ``PAGE_WIDTH`` pixels; None, with a warning, if there is none."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        print("pages are left as they were: there is no chromium or no chromedriver", file=sys.stderr)
        yield None
        return
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for flag in (*flags.split(), "disable-component-update", "disable-sync", f"user-data-dir={folder}/profile"):
            options.add_argument(f"--{flag}")
        browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
        try:
            size = {"width": PAGE_WIDTH, "height": 1000, "deviceScaleFactor": scale, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            yield browser
        finally:
            browser.quit()


def shoot(browser: Any, name: str, top: float, height: float) -> None:
    """Write what the browser shows from ``top`` on."""
    clip = {"x": 0, "y": top, "width": PAGE_WIDTH, "height": height, "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    (PICTURES / name).write_bytes(base64.b64decode(shot["data"]))


def draw_report(report: Report) -> None:
    """Write the trajectories of the report's page as a browser shows them."""
    with browsing(PAGE_SCALE) as browser, tempfile.TemporaryDirectory() as folder:
        if browser is None:
            return
        page = Path(folder) / "report.html"
        page.write_text(to_html(report, datetime.now(UTC)), encoding="utf-8")
        browser.get(page.as_uri())
        top, height = browser.execute_script(
            "const box = document.getElementById('trajectory').getBoundingClientRect();"
            "return [box.top + scrollY, box.height]"
        )
        shoot(browser, "report.png", top - 16, height + 16)


def draw_served(url: str, run: str) -> None:
    """Write the top of the run's page as ``avo serve`` serves it."""
    command = [sys.executable, "-m", "avo", "serve", "--port", "0", "--db", url]
    with browsing(PAGE_SCALE) as browser, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            if browser is not None:
                browser.get(server.stdout.readline().strip().replace("/?", f"/runs/{run}?"))
                end = "return document.getElementById('cases').getBoundingClientRect().top + scrollY"
                shoot(browser, "serve.png", 0, browser.execute_script(end))
        finally:
            server.terminate()


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default="mha-h100")
    parser.add_argument("--db")
    options = parser.parse_args()
    url = database_url(options.db)
    with Store.read(url) as store:
        report = read_report(store, options.run, datetime.now(UTC))
    if not report.view.versions:
        parser.error(f"{options.run} has no version: search longer")
    draw_run(report.view)
    draw_report(report)
    draw_served(url, options.run)
    case = report.trajectories[0].cases[-1].name
    draw_command(url, "profile", "profile", options.run, "--case", case)
    draw_readme(url, options.run)
    for name, size, key, words in UI:
        asyncio.run(draw_ui(url, options.run, name, size, key, words))


if __name__ == "__main__":
    main()
