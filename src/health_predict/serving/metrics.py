"""What Prometheus is told. Labels hold names of routes, fields, bands and versions; never a value of a request."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

NAMESPACE = "health_predict"
BUCKETS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)  # seconds


class Metrics:
    """All metrics of one worker, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace=NAMESPACE, registry=registry)

        self._seconds = Histogram(
            "request_seconds", "Time to answer", ["route"], namespace=NAMESPACE, buckets=BUCKETS, registry=registry
        )
        self._requests = counter("requests", "Answers", "route", "status")
        self._predictions = counter("predictions", "Scored encounters", "risk_band")
        self._unknown = counter("unknown_values", "Values that the model does not know", "field")
        self._invalid = counter("validation_errors", "Refused fields", "field", "kind")
        self._outside = counter("outside_cohort", "Scored encounters that died or went to hospice")
        self._reloads = counter("reloads", "Bundles taken up, or not", "result")
        self._model = Info("model", "The model version that answers", namespace=NAMESPACE, registry=registry)
        self._ready = Gauge("ready", "1 when a verified model answers", namespace=NAMESPACE, registry=registry)
        self._observe: dict[tuple[str, int], tuple[Callable[[float], None], Callable[[], None]]] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one answer. Children are looked up once: the look-up costs more than the count."""
        observe = self._observe.get((route, status))
        if observe is None:
            children = self._seconds.labels(route).observe, self._requests.labels(route, str(status)).inc
            observe = self._observe[route, status] = children
        observe[0](seconds)
        observe[1]()

    def predicted(self, band: str, unknown: Iterable[str], outside_cohort: bool) -> None:
        self._predictions.labels(band).inc()
        for field in unknown:
            self._unknown.labels(field).inc()
        if outside_cohort:
            self._outside.inc()

    def refused(self, field: str | None, kind: str) -> None:
        """Count one problem; `field` is None where the document is wrong as a whole."""
        self._invalid.labels(field or "-", kind).inc()

    def loaded(self, name: str | None, version: str, sha256: str) -> None:
        self._reloads.labels("taken_up").inc()
        self._model.info({"name": name or "", "version": version, "sha256": sha256})
        self._ready.set(1)

    def not_loaded(self) -> None:
        self._reloads.labels("refused").inc()

    def draining(self) -> None:
        self._ready.set(0)

    def count(self, name: str, text: str, value: Callable[[], int]) -> None:
        """Also show a count that something else keeps."""
        self._registry.register(_Kept(f"{NAMESPACE}_{name}", text, value))

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)


class _Kept(Collector):
    def __init__(self, name: str, text: str, value: Callable[[], int]):
        self._name, self._text, self._value = name, text, value

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(self._name, self._text, value=self._value())
