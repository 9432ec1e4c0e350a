"""Metrics: what Prometheus is given, over the network as it asks."""

import sys
from urllib.request import urlopen

import pytest

from avo.errors import MetricsUnavailable
from avo.evaluator.evaluation import Status
from avo.lineage_db.records import Request
from avo.lineage_db.store import Store
from avo.watch.metrics import Collector, Figures, address, served
from tests.avo.recorded import Recorded


@pytest.fixture
def run(store: Store) -> Recorded:
    made = Recorded(store)
    made.store.driving.take(made.run.id, "box:7", now=made.now)
    made.step(100.0)
    made.step(Status.INCORRECT, (0,))
    return made


def collector(run: Recorded, name: str = "live") -> Collector:
    return Collector(Figures(run.store, name, lambda: run.now))


def scrape(port: int) -> list[str]:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=600) as answer:
        return [line for line in answer.read().decode().splitlines() if not line.startswith("#")]


def test_a_scrape_has_the_figures_of_the_run(run: Recorded) -> None:
    with served(collector(run), "127.0.0.1", 0) as port:
        lines = scrape(port)
        assert set(lines) >= {
            "avo_up 1.0",
            'avo_attempts_total{run="live",status="correct"} 1.0',
            'avo_attempts_total{run="live",status="incorrect"} 1.0',
            'avo_looks_total{run="live"} 0.0',
            'avo_versions_total{run="live"} 1.0',
            'avo_steps_running{run="live"} 0.0',
            'avo_tokens_total{run="live"} 0.0',
            'avo_usd_total{run="live"} 0.0',
            'avo_paused{run="live"} 0.0',
            'avo_seconds_since_gain{run="live"} 6.0',
        }
        (best,) = (line for line in lines if line.startswith("avo_best_tflops"))
        assert best.startswith('avo_best_tflops{card="",kind="predicted",run="live",target="h100"} ')
        assert float(best.split()[-1]) == pytest.approx(100.0)
        run.store.driving.ask(run.run.id, Request.PAUSE, now=run.now)
        assert 'avo_paused{run="live"} 1.0' in scrape(port)


def test_a_run_that_cannot_be_read_is_down(run: Recorded) -> None:
    with served(collector(run, "nope"), "127.0.0.1", 0) as port:
        assert scrape(port) == ["avo_up 0.0"]


def test_a_port_in_use_is_refused(run: Recorded) -> None:
    with (
        served(collector(run), "127.0.0.1", 0) as port,
        pytest.raises(MetricsUnavailable, match=rf"cannot listen at 127.0.0.1:{port}: .*: choose another address"),
        served(collector(run), "127.0.0.1", port),
    ):
        pass


def test_a_missing_package_is_named_with_its_command(run: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with (
        pytest.raises(MetricsUnavailable, match=r"pip install 'avo-kernels\[metrics\]'"),
        served(collector(run), "127.0.0.1", 0),
    ):
        pass


def test_an_address_is_of_this_machine_unless_it_names_another() -> None:
    assert address("9100") == ("127.0.0.1", 9100)
    assert address("0.0.0.0:9100") == ("0.0.0.0", 9100)
    assert address("[::1]:9100") == ("::1", 9100)
    for wrong in ("", "x", "host:", "1:x", "0", "70000"):
        with pytest.raises(MetricsUnavailable, match="should be PORT or HOST:PORT"):
            address(wrong)
