"""The served page in a real browser: it complains of nothing, is live, and stays quick with 100,000 attempts.

pytest -m browser tests/avo/serve
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from avo.lineage_db.records import RunState
from avo.lineage_db.store import Store
from avo.serve.app import make_app
from avo.serve.reading import Reader
from tests.avo.browsing import browser as browser
from tests.avo.report.hostile import MARKUP
from tests.avo.sample_run import START
from tests.avo.serve.conftest import TOKEN, make_long, no_judge

pytestmark = pytest.mark.browser


@contextmanager
def served(db: str) -> Iterator[str]:
    """Serve a database while the context lasts; yield the address."""
    uvicorn = pytest.importorskip("uvicorn")
    app = make_app(Reader(db, lambda: START), TOKEN, lambda: START, no_judge)
    with socket.create_server(("127.0.0.1", 0)) as opened:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
        thread = threading.Thread(target=lambda: server.run(sockets=[opened]))
        thread.start()
        try:
            yield f"http://127.0.0.1:{opened.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def until(true: Callable[[], bool]) -> None:
    """Wait until something is so; the limit only ends a hang."""
    for _ in range(6_000):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it never came")


def text(browser: Any) -> str:
    """Return what the page says; nothing while another one is loaded."""
    return str(browser.execute_script("return document.querySelector('main')?.innerText ?? ''"))


def test_a_visit_leaves_the_token_behind_and_each_page_opens_without_a_complaint(browser: Any, db: str) -> None:
    with served(db) as address:
        browser.get_log("browser")
        browser.get(f"{address}/?token={TOKEN}")
        assert browser.current_url == f"{address}/"
        browser.find_element("link text", "mha-h100").click()
        until(lambda: browser.find_element("id", "live").text == "live")
        assert len(browser.find_elements("css selector", "#trajectory .wide circle.record")) == 12
        browser.find_element("css selector", "#lineage tbody a").click()
        until(lambda: "What it changes in v2" in text(browser))
        browser.get(f"{address}/")
        for box in browser.find_elements("css selector", "[name=run]")[1:]:
            box.click()
        browser.find_element("xpath", "//button[text()='Compare the ticked runs']").click()
        until(lambda: "Best predicted TFLOPS of each" in text(browser))
        assert len(browser.find_elements("css selector", ".wide path.course")) == 4
        browser.get(f"{address}/runs/hostile")
        assert MARKUP in text(browser)
        assert browser.execute_script("return [document.images.length, document.scripts.length]") == [0, 1]
        assert browser.get_log("browser") == []


def test_a_page_follows_the_database_and_says_when_nobody_answers(browser: Any, db: str) -> None:
    with served(db) as address:
        browser.get(f"{address}/runs/mha-h100?token={TOKEN}")
        browser.find_element("css selector", "#cases details summary").click()
        with Store.open(db) as store:
            store.set_run_state(store.run("mha-h100").id, RunState.STOPPED, now=START)
        until(lambda: "Run stopped" in text(browser))
        assert browser.execute_script("return document.querySelector('#cases details').open")
        browser.get(f"{address}/")
        browser.find_element("css selector", "[name=run]").click()
        with Store.open(db) as store:
            store.set_run_state(store.run("mha-h100").id, RunState.FINISHED, now=START)
        until(lambda: "held" in browser.find_element("id", "live").text)
        browser.find_element("css selector", "[name=run]").click()
        browser.execute_script("document.activeElement.blur()")
        until(lambda: browser.find_element("id", "live").text == "live" and "finished" in text(browser))
    until(lambda: "does not answer" in browser.find_element("id", "live").text)
    browser.get_log("browser")


@pytest.mark.long
def test_fifty_runs_and_a_hundred_thousand_attempts_can_be_looked_through(browser: Any, db: str) -> None:
    make_long(db, 47, 100_000)
    with served(db) as address:
        browser.get(f"{address}/?token={TOKEN}")
        assert "1 to 50 of 50" in text(browser)
        assert "100,000" in text(browser)
        browser.find_element("link text", "mha-h100-49").click()
        until(lambda: "99,992 attempts\nsince v3" in text(browser))
        browser.find_element("link text", "Attempts").click()
        until(lambda: "1 to 50 of 100,000" in text(browser))
        browser.find_element("link text", "next").click()
        until(lambda: "51 to 100 of 100,000" in text(browser))
        browser.find_element("name", "words").send_keys("262144 bytes")
        browser.find_element("xpath", "//button[text()='Show']").click()
        until(lambda: "1 to 50 of 33," in text(browser))
