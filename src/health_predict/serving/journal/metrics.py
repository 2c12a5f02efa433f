"""Metrics for Prometheus. Labels are names of routes, fields, bands and versions, never a value of a request.

Counts are plain numbers, changed by the event loop's thread only and rendered when Prometheus asks: the client
library's own counters take a lock each, and together an eighth more instructions for a request.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge, Info, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

NAMESPACE = "health_predict"
BUCKETS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)  # seconds

_Labels = tuple[str, ...]


@dataclass
class _Times:
    """One route's answers: counts by duration, up to each bound of BUCKETS or longer, and total seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0


class ServingMetrics:
    """All metrics of one worker, in a registry of their own. Not for use by several threads."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._seconds: dict[str, _Times] = {}
        registry.register(_Histograms(f"{NAMESPACE}_request_seconds", "Time to answer", self._seconds))
        self._requests: Counter[tuple[str, int]] = Counter()
        self._predictions = self._counter("predictions", "Scored encounters", "risk_band")
        self._unknown = self._counter("unknown_values", "Values that the model does not know", "field")
        self._missing = self._counter("missing_values", "Values that a scored encounter does not have", "field")
        self._far_more = Gauge(
            "missing_far_more_often",
            "1 where the field is missing far more often than in training, in the newest window of encounters",
            ("field",),
            namespace=NAMESPACE,
            registry=registry,
        )
        self._invalid: Counter[_Labels] = Counter()
        self._show("validation_errors", "Refused fields", ("field", "kind"), lambda: self._invalid)
        self._reloads = self._counter("reloads", "Bundles taken up, or not", "result")
        self._outside = 0
        self.count("outside_cohort", "Scored encounters that died or went to hospice", lambda: self._outside)
        self._show("requests", "Answers", ("route", "status"), self._by_status)
        self._model = Info("model", "The model version that answers", namespace=NAMESPACE, registry=registry)
        self._ready = Gauge("ready", "1 when a verified model answers", namespace=NAMESPACE, registry=registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        times = self._seconds.get(route)
        if times is None:
            times = self._seconds[route] = _Times()
        times.counts[bisect_left(BUCKETS, seconds)] += 1
        times.total += seconds
        self._requests[route, status] += 1

    def predicted(self, band: str, unknown: Iterable[str], missing: Iterable[str], outside_cohort: bool) -> None:
        self._predictions[band] += 1
        for name in unknown:
            self._unknown[name] += 1
        for name in missing:
            self._missing[name] += 1
        self._outside += outside_cohort

    @property
    def missing(self) -> dict[str, int]:
        """Number of scored encounters without a value so far, by field."""
        return dict(self._missing)

    def far_more_missing(self, fields: Mapping[str, bool]) -> None:
        """Set for each field whether it is missing far more often than in training."""
        for name, far_more in fields.items():
            self._far_more.labels(name).set(far_more)

    def refused(self, field: str | None, kind: str) -> None:
        """Count one problem of a refused request; `field` is None for a problem with the whole document."""
        self._invalid[field or "-", kind] += 1

    def loaded(self, name: str | None, version: str, sha256: str) -> None:
        self._reloads["taken_up"] += 1
        self._model.info({"name": name or "", "version": version, "sha256": sha256})
        self._ready.set(1)

    def not_loaded(self) -> None:
        self._reloads["refused"] += 1

    def draining(self) -> None:
        self._ready.set(0)

    def count(self, name: str, text: str, value: Callable[[], int]) -> None:
        """Show a count that another object keeps, read with `value`."""
        self._show(name, text, (), lambda: {(): value()})

    def exposition(self) -> bytes:
        """All metrics as text in Prometheus' format."""
        return generate_latest(self._registry)

    def _by_status(self) -> dict[_Labels, int]:
        return {(route, str(status)): count for (route, status), count in self._requests.items()}

    def _counter(self, name: str, text: str, label: str) -> Counter[str]:
        kept: Counter[str] = Counter()
        self._show(name, text, (label,), lambda: {(value,): count for value, count in kept.items()})
        return kept

    def _show(self, name: str, text: str, labels: _Labels, counts: Callable[[], Mapping[_Labels, int]]) -> None:
        self._registry.register(_Counts(f"{NAMESPACE}_{name}", text, labels, counts))


class _Counts(Collector):
    def __init__(self, name: str, text: str, labels: _Labels, counts: Callable[[], Mapping[_Labels, int]]):
        self._name, self._text, self._labels, self._counts = name, text, labels, counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, count in self._counts().items():
            family.add_metric(values, count)
        yield family


class _Histograms(Collector):
    def __init__(self, name: str, text: str, routes: Mapping[str, _Times]):
        self._name, self._text, self._routes = name, text, routes

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._text, labels=("route",))
        bounds = (*map(str, BUCKETS), "+Inf")
        for route, times in self._routes.items():
            family.add_metric((route,), list(zip(bounds, accumulate(times.counts), strict=True)), times.total)
        yield family
