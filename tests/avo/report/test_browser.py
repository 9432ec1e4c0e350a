"""The page in a real browser: it loads nothing, complains of nothing, opens, and fits a telephone.

pytest -m browser tests/avo/report
"""

import json
import re
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from avo.evaluator.evaluation import CaseScore
from avo.evaluator.profile import Profile
from avo.evaluator.target import ScoreKind
from avo.lineage_db.store import Store
from avo.report.data import Report
from avo.report.reading import read_report
from avo.report.render import to_html
from tests.avo.browsing import browser as browser
from tests.avo.report.hostile import MARKUP, make_hostile_run
from tests.avo.report.test_timeline import LANES
from tests.avo.sample_run import START

pytestmark = pytest.mark.browser

PROFILE = Profile(ScoreKind.PREDICTED, "h100", CaseScore("8k-full", 100.0, 50.0, "exp"), (), (), (), LANES)


def visit(browser: Any, file: Path, html: str, width: int) -> None:
    """Open ``html`` in a window of ``width`` pixels; fail if the browser complains or asks for anything else."""
    file.write_text(html, encoding="utf-8")
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(file.as_uri())
    assert browser.get_log("browser") == []
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:image/svg+xml")] == [file.as_uri()]


def shown(browser: Any, selector: str) -> int:
    """How many elements that match ``selector`` can be seen, on the screen or by scrolling."""
    script = "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility()).length"
    return int(browser.execute_script(script, selector))


@pytest.mark.parametrize("width", [1000, 375])
def test_the_page_loads_nothing_and_shows_every_mark(browser: Any, sample: Report, tmp_path: Path, width: int) -> None:
    visit(browser, tmp_path / "report.html", to_html(sample, START, (PROFILE,)), width)
    counts = {name: shown(browser, name) for name in (
        "svg", "circle.record", "path.running", "path.level", "rect.bar", "path.whisker",
    )}  # fmt: skip
    assert counts == {
        "svg": 2, "circle.record": 4, "path.running": 1, "path.level": 4, "rect.bar": 12, "path.whisker": 0,
    }  # fmt: skip
    assert browser.execute_script("return document.querySelector('.timeline img').naturalWidth") > 500
    wide, window = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= window == width


def test_the_tree_opens_and_can_be_searched(browser: Any, sample: Report, tmp_path: Path) -> None:
    visit(browser, tmp_path / "report.html", to_html(sample, START), 1000)
    assert (shown(browser, ".tree li"), shown(browser, ".tree .body")) == (4, 0)
    browser.find_element("css selector", "#v1 summary").click()
    assert shown(browser, "#v1 .body .a") == 1
    browser.find_element("css selector", "[data-do=open]").click()
    assert shown(browser, ".tree .body") == 4
    browser.find_element("css selector", "[data-do=close]").click()
    browser.find_element("css selector", ".tools input").send_keys("v2 210")
    assert shown(browser, ".tree li") == 1
    browser.find_element("css selector", ".wide [data-version='3']").click()
    assert shown(browser, "#v3 .body") == 1


def test_the_gain_of_the_best_version_does_not_run_into_what_it_changed(
    browser: Any, sample: Report, tmp_path: Path
) -> None:
    visit(browser, tmp_path / "report.html", to_html(sample, START), 1000)
    script = """
        const gain = document.querySelector(".tree .best .gain")
        gain.textContent = "+1234% ±12%"
        return [gain.scrollWidth, gain.clientWidth]
    """
    needed, given = browser.execute_script(script)
    assert needed <= given


def test_the_source_can_be_copied(browser: Any, sample: Report, tmp_path: Path) -> None:
    visit(browser, tmp_path / "report.html", to_html(sample, START), 1000)
    browser.find_element("xpath", "//summary[text()='Source of the best version']").click()
    assert shown(browser, "#source .sk") > 0
    button = browser.find_element("css selector", ".copy")
    button.click()
    for _ in range(12_000):
        if button.text != "Copy":
            break
        time.sleep(0.05)
    # The text is selected where the browser gives no leave to write to the clipboard.
    assert sample.view.best is not None
    source = sample.view.best.attempt.source
    assert (
        button.text == "Copied" or browser.execute_script("return getSelection().toString()").strip() == source.strip()
    )
    assert browser.execute_script("return document.getElementById('source').textContent") == source


def test_a_page_is_printed_on_few_sheets(browser: Any, sample: Report, tmp_path: Path) -> None:
    visit(browser, tmp_path / "report.html", to_html(sample, START), 1000)
    printed = b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    sheets = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert 1 <= sheets <= 4


def test_the_tree_is_a_list_that_opens_without_the_script(browser: Any, sample: Report, tmp_path: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        visit(browser, tmp_path / "report.html", to_html(sample, START), 375)
        assert not browser.find_element("css selector", ".tools").is_displayed()
        browser.find_element("css selector", "#v1 summary").click()
        assert browser.find_element("css selector", "#v1 .body pre").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_hostile_text_is_shown_and_runs_nothing(browser: Any, store: Store, tmp_path: Path) -> None:
    html = to_html(read_report(store, make_hostile_run(store), START), START)
    visit(browser, tmp_path / "report.html", html, 375)
    assert browser.execute_script("return [document.images.length, document.scripts.length]") == [0, 1]
    assert MARKUP in browser.find_element("css selector", ".paid").text
    wide, window = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= window


def test_the_policy_stops_a_script_that_got_in(browser: Any, sample: Report, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(
        to_html(sample, START).replace("<main>", "<main><img src=x onerror=\"document.title='owned'\">"
                                       "<script>document.title='owned'</script>")
    )  # fmt: skip
    browser.get((tmp_path / "report.html").as_uri())
    assert browser.title == "mha on H100 by mutate: an AVO run"
    assert "Content Security Policy" in json.dumps(browser.get_log("browser"))
