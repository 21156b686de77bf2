"""The metrics: each explained, each with its unit, none without bound; a scraper can read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred

from jobsvc.http.metrics import LABEL_VALUES_MAX, OTHER, Metrics
from jobsvc.model.histogram import Histogram
from tests.http.house import House

COUNTED = (
    "queued",
    "waiting",
    "running",
    "slots",
    "orphans",
    "connections",
    "streams",
    "waiters",
    "workers",
    "calls",
    "reads",
)
"""What a gauge counts is its unit, and stands at its end."""
STATES = ("ready", "module_broken")
"""Gauges that are 0 or 1."""
LABELS = {
    "task", "module", "state", "reason", "what", "kind", "how", "why", "executor", "route", "method", "status", "code",
    "le", "level", "tenant",
}  # fmt: skip
"""Every label there is; a new one must be looked at: who chooses its values, and how many can there be?"""


def busy_house() -> House:
    """One of everything."""
    house = House()
    house.done()
    house.submit("idle")
    house.ask("GET", "/nowhere")
    house.ask("POST", "/v1/jobs", {"task": "unheard of"})
    house.ask("POST", "/v1/jobs", raw=b"{")
    house.engine.counters["worker_died", "cpu", "lost"] += 1
    house.engine.counters["worker_recycled", "cpu", "age"] += 1
    house.engine.counters["back", "echo", "retry"] += 1
    house.api.edge.metrics.add_histogram("reactor_turn_seconds", "Turns.", Histogram((0.1, 1)))
    house.api.edge.metrics.add_total("log_lines", "Lines.", ("level",), lambda: {("info",): 2})
    return house


def scrape(house: House) -> str:
    """The text."""
    return house.ask("GET", "/metrics").body.decode()


def test_every_metric_is_explained_and_has_its_unit() -> None:
    """HELP and TYPE for each; counters end in _total, histograms and times in their unit, gauges in what they count."""
    house = busy_house()
    text = scrape(house)
    families = [
        family for family in text_string_to_metric_families(text) if family.name.startswith("jobsvc_")
    ]
    assert len(families) > 20
    for family in families:
        assert family.documentation.endswith("."), family.name
        assert f"# HELP {family.name}" in text
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        elif family.type == "histogram":
            assert family.name.endswith(("_seconds", "_bytes", "_calls")), family.name
        else:
            assert family.type == "gauge"
            assert family.name.endswith((*COUNTED, *STATES, "_seconds", "_bytes")), family.name
        for sample in family.samples:
            assert set(sample.labels) <= LABELS, sample
    house.close()


def test_names_are_unique_and_series_too() -> None:
    """A scraper refuses a text that says the same twice."""
    house = busy_house()
    series = Counter(line.rpartition(" ")[0] for line in scrape(house).splitlines() if line[0] != "#")
    assert [name for name, count in series.items() if count > 1] == []
    names = Counter(line.split()[2] for line in scrape(house).splitlines() if line.startswith("# TYPE"))
    assert set(names.values()) == {1}
    house.close()


def test_refusals_are_counted_by_code() -> None:
    """The code of the problem, from a closed list; also where routing refused."""
    house = busy_house()
    wire = house.wire()
    wire.request("GET", "/v1/jobs", headers={"Authorization": "Bearer nonsense"})
    assert wire.reply().status == 401
    house.ask("POST", "/v1/jobs/bulk", raw=b'{"task":"echo"}\nnonsense\n{"task":"none"}\n[]\n')
    text = scrape(house)
    assert 'jobsvc_bulk_refusals_total{code="bad_json"} 1.0' in text
    assert 'jobsvc_bulk_refusals_total{code="no_such_task"} 1.0' in text
    for code in ("not_found", "no_such_task", "bad_json", "unauthenticated"):
        assert f'jobsvc_http_refusals_total{{code="{code}"}} 1.0' in text
    house.close()


def test_labels_from_outside_are_bounded() -> None:
    """A thousand task names make no more series than the cap and one; their sum stays right, scrape after scrape."""
    counters: Counter[tuple[str, ...]] = Counter()
    metrics = Metrics(counters, {})

    def ended() -> dict[str, float]:
        text = metrics.exposition().decode()
        families = {family.name: family for family in text_string_to_metric_families(text)}
        return {sample.labels["task"]: sample.value for sample in families["jobsvc_ended"].samples}

    for n in range(LABEL_VALUES_MAX):
        counters["ended", f"t{n}", "succeeded"] += 1
    first = ended()
    assert len(first) == LABEL_VALUES_MAX
    for n in range(1_000):
        counters["ended", f"u{n}", "succeeded"] += 1
    later = ended()
    assert len(later) == LABEL_VALUES_MAX + 1
    assert later.pop(OTHER) == 1_000
    assert later == first


def test_tenants_are_bounded_too() -> None:
    """Whoever makes tokens can make a tenant with each."""
    metrics = Metrics({}, {})
    metrics.gauges = {("waiting", f"t{n}"): 1 for n in range(LABEL_VALUES_MAX + 50)}
    families = text_string_to_metric_families(metrics.exposition().decode())
    [waiting] = [family for family in families if family.name == "jobsvc_waiting"]
    assert len(waiting.samples) == LABEL_VALUES_MAX + 1
    assert {s.labels["tenant"]: s.value for s in waiting.samples}[OTHER] == 50


@pytest.mark.parametrize("name", ['a"b\\c\nd', "x\x1b[2J", "\u2028", "ü" * 200])
def test_hostile_label_values_stay_values(name: str) -> None:
    """P11: quotes and line breaks are escaped; a scraper gets the very text back."""
    counters: Counter[tuple[str, ...]] = Counter({("ended", name, "failed"): 3})
    text = Metrics(counters, {}).exposition().decode()
    (family,) = [f for f in text_string_to_metric_families(text) if f.name == "jobsvc_ended"]
    assert [(sample.labels["task"], sample.value) for sample in family.samples] == [(name, 3)]


def test_histogram() -> None:
    """Cumulative, on the bound counts as below it, with a sum."""
    histogram = Histogram((0.1, 1))
    for figure in (0.05, 0.1, 0.5, 7):
        histogram.observe(figure)
    assert histogram.buckets() == [("0.1", 2), ("1", 3), ("+Inf", 4)]
    assert (histogram.count, round(histogram.sum, 6)) == (4, 7.65)


def test_the_text_is_made_off_the_reactor() -> None:
    """It takes milliseconds: `in_thread` is asked for it, after the figures were taken on the reactor."""
    house = busy_house()
    asked: list[bool] = []
    edge = house.api.edge
    inline = edge.in_thread

    def in_thread(function: Callable[[], bytes]) -> Deferred[bytes]:
        asked.append(bool(edge.metrics.gauges))
        return inline(function)

    edge.in_thread = in_thread
    assert house.ask("GET", "/metrics").status == 200
    assert asked == [True]
    house.close()


def test_readiness_tells_all_checks(house: House) -> None:
    """What decides and what is only told, each with its name."""
    body = house.ask("GET", "/readyz?verbose").json()
    assert [check["check"] for check in body["checks"]] == ["store", "accepting"]
    house.flawed = True
    body = msgspec.json.decode(house.ask("GET", "/readyz?verbose").body)
    assert [(check["check"], check["ok"]) for check in body["checks"]][-1] == ("module other", False)
    assert body["ready"] is True
