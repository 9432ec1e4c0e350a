"""Metrics: figures of a run for Prometheus, read from the database when somebody asks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from avo.errors import MetricsUnavailable
from avo.lineage_db.errors import StoreError
from avo.lineage_db.records import RunState
from avo.lineage_db.store import Store
from avo.watch.scores import scored
from avo.watch.view import RunView, read_view

if TYPE_CHECKING:
    from prometheus_client import Metric

LOOPBACK = "127.0.0.1"


def address(text: str) -> tuple[str, int]:
    """Return host and port of ``PORT`` or ``HOST:PORT``; without a host, this machine's loopback address.

    Raises ``MetricsUnavailable`` for anything else.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) <= 65535:
        raise MetricsUnavailable(f"--metrics: {text!r} should be PORT or HOST:PORT, e.g. 9100")
    return host.strip("[]") or LOOPBACK, int(port)


class Collector:
    """Collects the metrics of one run for Prometheus."""

    def __init__(self, store: Store, run_name: str, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._run_name = run_name
        self._clock = clock
        self._last: RunView | None = None

    def collect(self) -> "Iterator[Metric]":
        """Yield the run's metrics, or only ``avo_up 0`` if the database cannot be read."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        now = self._clock()
        try:
            self._last = view = read_view(self._store, self._run_name, now, self._last)
        except StoreError:
            yield GaugeMetricFamily("avo_up", "Whether the database could be read.", 0)
            return
        yield GaugeMetricFamily("avo_up", "Whether the database could be read.", 1)
        run = [self._run_name]

        def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
            made = GaugeMetricFamily(f"avo_{name}", text, labels=["run"])
            made.add_metric(run, value)
            return made

        def counter(name: str, text: str, value: float) -> CounterMetricFamily:
            made = CounterMetricFamily(f"avo_{name}", text, labels=["run"])
            made.add_metric(run, value)
            return made

        attempts = CounterMetricFamily("avo_attempts", "Candidates evaluated, by verdict.", labels=["run", "status"])
        for verdict, count in view.counts.items():
            attempts.add_metric([*run, verdict.value], count)
        yield attempts
        best = GaugeMetricFamily(
            "avo_best_tflops",
            "Geometric mean of the best version, as it is known: predicted for the target, or measured on it.",
            labels=["run", "kind", "target", "card"],
        )
        if view.best:
            score = scored(view.best)
            best.add_metric([*run, score.kind.value, score.target, score.card], score.geomean_tflops)
        yield best
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
