"""F3: figures for Prometheus: requests as the edge saw them, and the engine's counters as they stand.

Counting is plain integers on the reactor; the exposition is made in a thread, since it takes milliseconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

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
}
_GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "queued": ("Jobs that wait for a slot.", ("task",)),
    "waiting": ("Jobs that wait for a slot or their moment.", ("tenant",)),
    "running": ("Attempts handed to workers.", ("executor",)),
    "slots": ("Attempts that may run at once.", ("executor",)),
    "orphans": ("Threads that were given up and still run.", ()),
    "module_broken": ("1 for a task module that new workers are started without.", ("module",)),
}
"""What the engine's counters and gauges tell, and the names of their labels."""


class Metrics(Collector):
    """All figures of one application, in a registry of its own.

    Args:
        counters: the engine's growing counts, read when asked.
        refusals: the store's, by reason.
    """

    def __init__(self, counters: Mapping[tuple[str, ...], int], refusals: Mapping[WriteRefusal, int]) -> None:
        self._counters = counters
        self._refusals = refusals
        self.gauges: Mapping[tuple[str, ...], int] = {}  # as they stood when the metrics were asked for
        self._requests: dict[tuple[str, str, int], int] = {}
        self._buckets: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        self.open_connections: Callable[[], int] = lambda: 0  # set by who builds the server
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def observe(self, route: str, method: str, status: int, elapsed_s: float) -> None:
        """A request has been answered."""
        key = (route, method, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        buckets = self._buckets.get(route)
        if buckets is None:
            buckets = self._buckets[route] = [0] * (len(BUCKETS_S) + 1)
            self._sums[route] = 0.0
        buckets[bisect_left(BUCKETS_S, elapsed_s)] += 1
        self._sums[route] += elapsed_s

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
        for route, counts in list(self._buckets.items()):
            latency.add_metric((route,), _cumulative(list(counts)), self._sums[route])
        yield latency
        yield GaugeMetricFamily("jobsvc_http_connections", "Open connections.", self.open_connections())
        refused = CounterMetricFamily(
            "jobsvc_refused_writes", "Writes of attempts that the store's fences refused.", labels=("reason",)
        )
        for reason, count in self._refusals.items():  # the keys never change
            refused.add_metric((reason,), count)
        yield refused
        yield from self._of_engine()

    def _of_engine(self) -> Iterable[Metric]:
        for name, (words, labels) in _COUNTERS.items():
            yield _family(
                CounterMetricFamily(f"jobsvc_{name}", words, labels=labels), name, dict(self._counters)
            )
        for name, (words, labels) in _GAUGES.items():
            yield _family(GaugeMetricFamily(f"jobsvc_{name}", words, labels=labels), name, self.gauges)


def _family(
    family: CounterMetricFamily | GaugeMetricFamily, name: str, figures: Mapping[tuple[str, ...], int]
) -> Metric:
    for (of, *values), figure in figures.items():
        if of == name:
            family.add_metric(tuple(values), figure)
    return family


def _cumulative(counts: list[int]) -> list[tuple[str, float]]:
    out: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*BUCKETS_S, None), counts, strict=True):
        total += count
        out.append(("+Inf" if bound is None else str(bound), total))
    return out
