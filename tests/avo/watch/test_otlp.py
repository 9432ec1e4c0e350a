"""Metrics that are sent: what a collector on the loopback interface takes, read by OpenTelemetry's own messages."""

import gzip
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from avo.errors import MetricsUnavailable
from avo.evaluator.evaluation import Status
from avo.lineage_db.errors import DatabaseUnavailable
from avo.lineage_db.store import Store
from avo.watch.metrics import Figures
from avo.watch.otlp import endpoint, sent
from tests.avo.recorded import Recorded

PATIENCE_S = 600


@pytest.fixture
def figures(store: Store) -> Figures:
    made = Recorded(store)
    made.step(100.0)
    made.step(Status.INCORRECT, (0,))
    return Figures(store, "live", lambda: made.now)


class Collector:
    """Takes what is posted to /v1/metrics, or refuses it with ``code``."""

    def __init__(self) -> None:
        self.code = 200
        self.taken: list[ExportMetricsServiceRequest] = []
        self.asked = threading.Semaphore(0)
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                known = self.path == "/v1/metrics" and self.headers["Content-Type"] == "application/x-protobuf"
                if known and collector.code == 200:
                    collector.taken.append(ExportMetricsServiceRequest.FromString(body))
                self.send_response(collector.code if known else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                collector.asked.release()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def never(line: str) -> None:
    raise AssertionError(line)


def test_a_collector_takes_what_prometheus_would_be_given(figures: Figures, collector: Collector) -> None:
    with sent(figures, collector.url, never):
        assert collector.asked.acquire(timeout=PATIENCE_S)
    (resource,) = collector.taken[0].resource_metrics
    assert {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"] == "avo"
    (scope,) = resource.scope_metrics
    found = {}
    for metric in scope.metrics:
        counts = metric.WhichOneof("data") == "sum"
        if counts:
            assert metric.sum.is_monotonic
            assert metric.sum.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        for point in (metric.sum if counts else metric.gauge).data_points:
            labels = {each.key: each.value.string_value for each in point.attributes}
            found[metric.name, counts, *sorted(labels.items())] = point.as_double
            assert point.start_time_unix_nano <= point.time_unix_nano
    wanted = {
        (metric.name, metric.counts, *sorted(labels.items())): value
        for metric in figures.read()
        for labels, value in metric.points
    }
    assert found == wanted
    assert found["avo_attempts", True, ("run", "live"), ("status", "incorrect")] == 1
    assert len(collector.taken) == 2, "one at the start, one at the end"


def test_metrics_are_sent_again_and_again(figures: Figures, collector: Collector) -> None:
    with sent(figures, f"{collector.url}/v1/metrics", never, every_s=0.01):
        for _ in range(4):
            assert collector.asked.acquire(timeout=PATIENCE_S)


@contextmanager
def refusing(collector: Collector) -> Iterator[str]:
    collector.code = 400
    yield collector.url


@contextmanager
def absent(collector: Collector) -> Iterator[str]:
    yield "http://127.0.0.1:1"


@pytest.mark.parametrize("how", [refusing, pytest.param(absent, marks=pytest.mark.long)])
def test_a_collector_that_takes_nothing_is_said_once(
    figures: Figures, collector: Collector, how: Callable[[Collector], object], caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []
    heard = threading.Semaphore(0)

    def say(line: str) -> None:
        said.append(line)
        heard.release()

    with how(collector) as url, sent(figures, url, say, every_s=0.01):  # type: ignore[attr-defined]
        assert heard.acquire(timeout=PATIENCE_S)
        if how is refusing:
            for _ in range(3):
                assert collector.asked.acquire(timeout=PATIENCE_S)
    assert said == [f"--otlp: {url}/v1/metrics takes no metrics: the run goes on, and sends them again every 0.01 s"]
    assert not caplog.records, "the exporter would say more"


def test_what_fails_in_sending_ends_neither_the_run_nor_the_sending(
    figures: Figures, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    faults = iter([OSError("the disk is full"), DatabaseUnavailable("away")])
    whole = figures.read

    def read() -> Any:
        for fault in faults:
            raise fault
        return whole()

    monkeypatch.setattr(Figures, "read", lambda self: read())
    url = collector.url.replace("//", "//user:secret@")
    with sent(figures, url, said.append, every_s=0.01):
        assert collector.asked.acquire(timeout=PATIENCE_S)
    assert len(said) == 1
    assert "secret" not in said[0]
    assert collector.url.removeprefix("http://") in said[0]


def test_the_last_sending_does_not_end_a_run(
    figures: Figures, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: Figures) -> Any:
        raise DatabaseUnavailable("away")

    with sent(figures, collector.url, never):
        assert collector.asked.acquire(timeout=PATIENCE_S)
        monkeypatch.setattr(Figures, "read", away)


def test_a_missing_package_is_named_with_its_command(figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    with (
        pytest.raises(MetricsUnavailable, match=r"pip install 'avo-kernels\[otlp\]'"),
        sent(figures, "http://127.0.0.1:4318", never),
    ):
        pass


def test_a_url_is_that_of_a_collector_or_of_its_metrics() -> None:
    assert endpoint("http://box:4318") == endpoint("http://box:4318/") == "http://box:4318/v1/metrics"
    assert endpoint("https://box/otlp/v1/metrics") == "https://box/otlp/v1/metrics"
    for wrong in ("", "box:4318", "4318", "grpc://box:4317", "http://", "http://box:x", "http://[box"):
        with pytest.raises(MetricsUnavailable, match=r"should be a URL, e\.g\. http://127\.0\.0\.1:4318"):
            endpoint(wrong)
    for wrong in ("http://box:4318?x=1", "http://box:4318/v1/metrics?x=1", "http://box:4318#a", "http://box:4318?"):
        with pytest.raises(MetricsUnavailable, match="has a query or a fragment: give the address alone"):
            endpoint(wrong)
    for secret in (
        "http://user:secret@box:4318?key=secret",
        "http://user:secret@",
        "http://us@er:secret@box:x",
        "u:?secret@b",
    ):
        with pytest.raises(MetricsUnavailable) as refused:
            endpoint(secret)
        assert "secret" not in str(refused.value)
