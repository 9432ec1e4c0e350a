"""Sends a run's metrics to an OpenTelemetry collector over OTLP/HTTP, by OpenTelemetry's own exporter."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from threading import Event, Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from avo.errors import MetricsUnavailable
from avo.watch.metrics import Figures

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData

EVERY_S = 15.0
"""Seconds between two exports."""
_ANSWER_S = 10.0
"""Longest time for one export, retries included."""
_PATH = "/v1/metrics"
"""Where collectors take metrics, by the OTLP specification."""


def endpoint(url: str) -> str:
    """Return where metrics go for ``--otlp URL``; raise ``MetricsUnavailable`` for anything else."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        known = False
    if not known:
        raise MetricsUnavailable(f"--otlp: {_shown(url)!r} should be a URL, e.g. http://127.0.0.1:4318")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise MetricsUnavailable(
            f"--otlp: {_shown(url)!r} has a query or a fragment: give the address alone, e.g. http://127.0.0.1:4318"
        )
    return url if parts.path.strip("/") else f"{url.rstrip('/')}{_PATH}"


def _shown(url: str) -> str:
    """Return a URL for a message, without the user, the password and the query that it may have."""
    beginning, between, rest = url.rpartition("@")
    scheme, slashes, _ = beginning.partition("://")
    rest = re.split("[?#]", rest)[0]
    return f"{scheme if slashes else ''}{slashes}...@{rest}" if between else rest


@contextmanager
def sent(figures: Figures, url: str, say: Callable[[str], None], every_s: float = EVERY_S) -> Iterator[None]:
    """Send the metrics every ``every_s`` seconds while the context lasts, and at its end.

    A collector that does not take them is said once, until it takes some, and costs the run nothing. Raises
    ``MetricsUnavailable`` for a wrong URL, or if the package is missing.
    """
    where = endpoint(url)
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics.export import MetricExportResult
    except ImportError:
        raise MetricsUnavailable(
            "--otlp needs a package that is not installed: pip install 'avo-kernels[otlp]'"
        ) from None
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it would say each failure, and each retry
    exporter: Any = OTLPMetricExporter(endpoint=where, timeout=_ANSWER_S)
    ended, refused = Event(), False

    def send() -> None:
        nonlocal refused
        try:
            taken = exporter.export(_data(figures)) is MetricExportResult.SUCCESS
        except Exception:  # of the database, which the run itself reports, or of the exporter: it costs the run nothing
            taken = False
        if not taken and not refused and not ended.is_set():
            say(f"--otlp: {_shown(where)} takes no metrics: the run goes on, and sends them again every {every_s:g} s")
        refused = not taken and (refused or not ended.is_set())

    def work() -> None:
        send()
        while not ended.wait(every_s):
            send()

    thread = Thread(target=work, name="otlp", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        if refused:
            exporter.shutdown()  # ends a wait between two tries
            thread.join()
        else:
            thread.join()
            send()
            exporter.shutdown()


def _data(figures: Figures) -> "MetricsData":
    """Return the metrics as they are now."""
    from opentelemetry.sdk.metrics import export
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    found = list(figures.read())
    now = int(figures.clock().timestamp() * 1e9)
    began = int(figures.began.timestamp() * 1e9) if figures.began else now

    def metric(name: str, text: str, counts: bool, points: list[Any]) -> export.Metric:
        cumulative = export.AggregationTemporality.CUMULATIVE
        data = export.Sum(points, cumulative, is_monotonic=True) if counts else export.Gauge(points)
        return export.Metric(name=name, description=text, unit="", data=data)

    made = [
        metric(
            each.name,
            each.text,
            each.counts,
            [export.NumberDataPoint(dict(labels), began, now, float(value)) for labels, value in each.points],
        )
        for each in found
        if each.points
    ]
    resource = Resource({"service.name": "avo", "service.version": version("avo-kernels")})
    scope = export.ScopeMetrics(InstrumentationScope("avo"), made, "")
    return export.MetricsData([export.ResourceMetrics(resource, [scope], "")])
