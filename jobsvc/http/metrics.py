"""F3: figures for Prometheus: requests as the edge saw them, the engine's counters, and what other rooms hand in.

Counting is plain integers on the reactor; the exposition is made in a thread, since it takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from jobsvc.model.histogram import Histogram
from jobsvc.ports import WriteRefusal

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency histogram: from one durable submit to a long poll."""

_COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "submitted": ("Jobs accepted.", ()),
    "ended": ("Jobs that came to their end, by state.", ("task", "state")),
    "back": ("Attempts after which the job went back to waiting, by reason.", ("task", "reason")),
    "refused": ("Late or unknown reports of workers that never reached the store.", ("what",)),
    "dropped": ("Times the oldest items or log lines of a job were dropped by its quota.", ("what",)),
    "not_admitted": ("Jobs refused because a limit was reached, by code.", ("code",)),
    "unkept": ("Results given up because the disk was full and too many waited in memory.", ()),
    "worker_died": ("Workers that ended, and how.", ("kind", "how")),
    "worker_recycled": ("Workers replaced by age, jobs or memory.", ("kind", "why")),
    "bulk_refusals": ("Lines of bulk submits refused, by the code of their problem.", ("code",)),
    "http_refusals": ("Requests refused, by the code of their problem.", ("code",)),
}
_GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "queued": ("Jobs that wait for a slot.", ("task",)),
    "waiting": ("Jobs that wait for a slot or their moment.", ("tenant",)),
    "running": ("Attempts handed to workers.", ("executor",)),
    "slots": ("Attempts that may run at once.", ("executor",)),
    "orphans": ("Threads that were given up and still run.", ()),
    "module_broken": ("1 for a task module that new workers are started without.", ("module",)),
    "workers": ("Processes of workers, by state.", ("kind", "state")),
    "task_run_seconds": ("Run time of a task's attempts, smoothed over the last few.", ("task",)),
    "waiters": ("Requests that wait for a job to move, and tails that streams read together.", ()),
    "http_streams": ("Replies that are being streamed.", ()),
    "store_waiting_calls": ("Calls that wait for the store's writer.", ()),
    "store_reads": ("Reads that wait or run.", ()),
    "store_last_commit_seconds": ("How long the newest commit took.", ()),
    "ready": ("1 while jobs are taken and run.", ()),
}
"""What the engine's counters and gauges tell, and the names of their labels."""

OPEN_LABELS = frozenset({"task", "module", "tenant"})
"""Labels whose values come from outside: authors of tasks, whoever makes tokens."""
LABEL_VALUES_MAX = 200
"""Values of such a label that get series of their own, first come; the rest shares `other`. Each value costs the one
who scrapes a few series for ever."""
OTHER = "other"


class Metrics(Collector):
    """All figures of one application, in a registry of its own.

    Args:
        counters: the engine's growing counts, read when asked.
        refusals: the store's, by reason.
    """

    def __init__(self, counters: Mapping[tuple[str, ...], int], refusals: Mapping[WriteRefusal, int]) -> None:
        self._counters = counters
        self._refusals = refusals
        self.gauges: Mapping[tuple[str, ...], float] = {}  # as they stood when the metrics were asked for
        self._requests: dict[tuple[str, str, int], int] = {}
        self._latency: dict[str, Histogram] = {}
        self.open_connections: Callable[[], int] = lambda: 0  # set by who builds the server
        self._histograms: dict[str, tuple[str, Histogram]] = {}
        self._totals: dict[
            str, tuple[str, tuple[str, ...], Callable[[], Mapping[tuple[str, ...], float]]]
        ] = {}
        self._known: dict[str, set[str]] = {label: set() for label in OPEN_LABELS}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def add_histogram(self, name: str, words: str, histogram: Histogram) -> None:
        """A histogram of another room, as `jobsvc_<name>`; the name ends with its unit."""
        self._histograms[name] = (words, histogram)

    def add_total(
        self,
        name: str,
        words: str,
        labels: tuple[str, ...],
        read: Callable[[], Mapping[tuple[str, ...], float]],
    ) -> None:
        """Growing counts of another room, as `jobsvc_<name>_total`.

        Args:
            read: label values → count. Runs on: the thread that makes the text.
        """
        self._totals[name] = (words, labels, read)

    def observe(self, route: str, method: str, status: int, elapsed_s: float) -> None:
        """A request has been answered."""
        key = (route, method, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        latency = self._latency.get(route)
        if latency is None:
            latency = self._latency[route] = Histogram(BUCKETS_S)
        latency.observe(elapsed_s)

    def exposition(self) -> bytes:
        """The text format. Runs on: any thread; each table is copied in one step."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time: names of the engine's counters come as they appear."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Every family."""
        requests = CounterMetricFamily(
            "jobsvc_http_requests", "Requests answered.", labels=("route", "method", "status")
        )
        for (route, method, status), count in dict(self._requests).items():
            requests.add_metric((route, method, str(status)), count)
        yield requests
        latency = HistogramMetricFamily(
            "jobsvc_http_request_seconds", "From the head to the end of the reply.", labels=("route",)
        )
        for route, seen in list(self._latency.items()):
            latency.add_metric((route,), seen.buckets(), seen.sum)
        yield latency
        yield GaugeMetricFamily("jobsvc_http_connections", "Open connections.", self.open_connections())
        refused = CounterMetricFamily(
            "jobsvc_refused_writes", "Writes of attempts that the store's fences refused.", labels=("reason",)
        )
        for reason, count in self._refusals.items():  # the keys never change
            refused.add_metric((reason,), count)
        yield refused
        yield from self._of_engine()
        for name, (words, histogram) in self._histograms.items():
            family = HistogramMetricFamily(f"jobsvc_{name}", words)
            family.add_metric((), histogram.buckets(), histogram.sum)
            yield family
        for name, (words, labels, read) in self._totals.items():
            yield self._family(
                CounterMetricFamily(f"jobsvc_{name}", words, labels=labels), labels, dict(read())
            )

    def _of_engine(self) -> Iterable[Metric]:
        for name, (words, labels) in _COUNTERS.items():
            counter = CounterMetricFamily(f"jobsvc_{name}", words, labels=labels)
            yield self._family(counter, labels, _of(name, dict(self._counters)))
        for name, (words, labels) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"jobsvc_{name}", words, labels=labels)
            yield self._family(gauge, labels, _of(name, self.gauges))

    def _family(
        self,
        family: CounterMetricFamily | GaugeMetricFamily,
        labels: tuple[str, ...],
        figures: Mapping[tuple[str, ...], float],
    ) -> Metric:
        bounded: dict[tuple[str, ...], float] = {}
        for values, figure in figures.items():
            key = tuple(self._bounded(label, value) for label, value in zip(labels, values, strict=True))
            bounded[key] = bounded.get(key, 0) + figure
        for values, figure in bounded.items():
            family.add_metric(values, figure)
        return family

    def _bounded(self, label: str, value: str) -> str:
        """The value, or `other` when there are too many of this label. Runs on: the one thread that makes the text."""
        known = self._known.get(label)
        if known is None or value in known:
            return value
        if len(known) >= LABEL_VALUES_MAX:
            return OTHER
        known.add(value)
        return value


def _of(name: str, figures: Mapping[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    return {key[1:]: figure for key, figure in figures.items() if key[0] == name}
