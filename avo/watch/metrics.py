"""Metrics: figures of a run, read from the database when Prometheus asks; ``otlp`` sends the same."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from avo.errors import MetricsUnavailable
from avo.lineage_db.errors import StoreError
from avo.lineage_db.records import RunState
from avo.lineage_db.store import Store
from avo.watch.scores import scored
from avo.watch.view import RunView, read_view

if TYPE_CHECKING:
    from prometheus_client import Metric as PrometheusMetric

LOOPBACK = "127.0.0.1"
_UP = "Whether the database could be read."
_BEST = "Geometric mean of the best version, as it is known: predicted for the target, or measured on it."


def address(text: str) -> tuple[str, int]:
    """Return host and port of ``PORT`` or ``HOST:PORT``; without a host, this machine's loopback address.

    Raises ``MetricsUnavailable`` for anything else.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) <= 65535:
        raise MetricsUnavailable(f"--metrics: {text!r} should be PORT or HOST:PORT, e.g. 9100")
    return host.strip("[]") or LOOPBACK, int(port)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a run."""

    name: str
    """Without the ``_total`` that Prometheus gives to counters."""
    text: str
    counts: bool
    """Whether it only grows."""
    points: tuple[tuple[Mapping[str, str], float], ...]
    """Labels and value of each of its series."""


class Figures:
    """Reads the metrics of one run, for one sink."""

    def __init__(self, store: Store, run_name: str, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._run_name = run_name
        self._last: RunView | None = None
        self.clock = clock

    @property
    def began(self) -> datetime | None:
        """When the run was created, from which on its counters count; None until it was read."""
        return self._last.run.created if self._last else None

    def read(self) -> Iterator[Metric]:
        """Yield the run's metrics as they are now, or only ``avo_up`` of 0 if the database cannot be read."""
        now = self.clock()
        try:
            self._last = view = read_view(self._store, self._run_name, now, self._last)
        except StoreError:
            yield Metric("avo_up", _UP, False, (({}, 0),))
            return
        yield Metric("avo_up", _UP, False, (({}, 1),))
        run = {"run": self._run_name}

        def gauge(name: str, text: str, value: float) -> Metric:
            return Metric(f"avo_{name}", text, False, ((run, value),))

        def counter(name: str, text: str, value: float) -> Metric:
            return Metric(f"avo_{name}", text, True, ((run, value),))

        verdicts = tuple(({**run, "status": verdict.value}, count) for verdict, count in view.counts.items())
        yield Metric("avo_attempts", "Candidates evaluated, by verdict.", True, verdicts)
        if view.best:
            score = scored(view.best)
            known = {**run, "kind": score.kind.value, "target": score.target, "card": score.card}
            yield Metric("avo_best_tflops", _BEST, False, ((known, score.geomean_tflops),))
        yield counter("versions", "Versions accepted.", view.versions)
        yield counter("looks", "Candidates looked at: predicted, not executed.", view.run.looks)
        yield counter("steps", "Steps begun.", view.steps)
        yield gauge("steps_running", "Steps that workers hold.", len(view.working))
        yield counter("model_calls", "Calls of models.", view.spend.calls)
        yield counter("tokens", "Tokens of models, input and output.", view.spend.tokens)
        yield counter("usd", "US dollars that models have cost, of the calls whose price is known.", view.spend.usd)
        yield gauge("paused", "Whether no new steps are started.", view.state is RunState.PAUSED)
        yield gauge("running", "Whether a process drives the run.", not view.over)
        if view.last_gain:
            since = (now - view.last_gain).total_seconds()
            yield gauge("seconds_since_gain", "Time since the last version was accepted.", since)


class Collector:
    """Collects the metrics of one run for Prometheus."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> "Iterator[PrometheusMetric]":
        """Yield them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for metric in self._figures.read():
            family = CounterMetricFamily if metric.counts else GaugeMetricFamily
            names = list(dict.fromkeys(name for labels, _ in metric.points for name in labels))
            made = family(metric.name, metric.text, labels=names)
            for labels, value in metric.points:
                made.add_metric([labels[name] for name in names], value)
            yield made


@contextmanager
def served(collector: Collector, host: str, port: int) -> Iterator[int]:
    """Answer scrapes at ``http://HOST:PORT/metrics`` while the context lasts; yield the port.

    Port 0 chooses a free one. Raises ``MetricsUnavailable`` if the package is missing or the port is not available.
    """
    try:
        from prometheus_client import start_http_server
        from prometheus_client.registry import CollectorRegistry
    except ImportError:
        raise MetricsUnavailable(
            "--metrics needs a package that is not installed: pip install 'avo-kernels[metrics]'"
        ) from None
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise MetricsUnavailable(
            f"--metrics: cannot listen at {host}:{port}: {error.strerror or error}: choose another address"
        ) from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
