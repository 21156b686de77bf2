"""No-op jobs in bulk, from the first byte of the submit to the last result: by raw HTTP and by the Python client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from statistics import median
from time import perf_counter
from typing import Unpack
from uuid import uuid4

from bench.bench import Bench, costs
from bench.load import LoadFailed
from bench.report import Bare, Figure, Goal
from jobsvc.client import Client
from jobsvc.client.core import Request
from jobsvc.client.replies import page_of
from jobsvc.client.shapes import Options

LINES = 5_000
REQUESTS = 16
IN_FLIGHT = 4
CLIENT_JOBS = 40_000
EXECUTOR_JOBS = 5_000
ASK_IDS = 256
"""Ids in one request: the daemon takes 16 KiB of headers."""
ASK_S = 30


def raw(bench: Bench) -> Figure:
    requests = bench.some(REQUESTS)
    notes: list[str] = []
    with bench.daemon() as daemon:
        body = daemon.bulk("noop", {}, LINES)

        def once() -> float:
            outcome = daemon.run(daemon.plan(body, connections=IN_FLIGHT, count=requests), succeeded=LINES)
            notes[:] = costs(outcome, LINES * requests, "job")
            return LINES * requests / outcome.elapsed_s

        once()  # the first run finds empty caches and new files
        values = bench.repeat(once)
    figure = _figure(bench, "bulk", "bulk NDJSON, no-op on processes", values, floor=25_000, aim=60_000)
    figure.notes += notes
    return figure


def client_map(bench: Bench) -> Figure:
    return _by_client(bench, "client-map", "Python client, map", _mapped)


def client_submit_many(bench: Bench) -> Figure:
    def run(client: Client, jobs: int) -> int:
        ids = client.submit_many(repeat(("noop", {}), jobs))
        return sum(_results(client, ids[at : at + ASK_IDS]) for at in range(0, jobs, ASK_IDS))

    return _by_client(bench, "client-submit-many", "Python client, submit_many", run)


def client_executor(bench: Bench) -> Figure:
    """One by one through futures, each with a key; beside it the same jobs by `map`, without and with keys."""
    jobs = bench.some(EXECUTOR_JOBS)
    by_map: list[float] = []
    by_keyed_map: list[float] = []
    with bench.daemon() as daemon, daemon.client() as client, client.executor() as executor:

        def once() -> float:
            by_map.append(_rate(jobs, lambda: _mapped(client, jobs)))
            by_keyed_map.append(_rate(jobs, lambda: _mapped(client, jobs, key=uuid4().hex)))
            return _rate(jobs, submitted)

        def submitted() -> int:
            futures = [executor.submit("noop") for _ in range(jobs)]
            return sum(future.result() is None for future in futures)

        once()
        by_map.clear()
        by_keyed_map.clear()
        values = bench.repeat(once)
    title = "Client.executor(), one by one"
    figure = _figure(bench, "client-executor", title, values, floor=8_000, aim=20_000)
    beside = [("map", median(by_map)), ("map with keys", median(by_keyed_map))]
    figure.bare += [Bare(f"{name}, the same jobs", rate) for name, rate in beside]
    figure.notes += [f"{median(values) / rate:.2f} of {name} in the same minute" for name, rate in beside]
    return figure


def _mapped(client: Client, jobs: int, **options: Unpack[Options]) -> int:
    return sum(1 for _ in client.map("noop", repeat({}, jobs), **options))


def _rate(jobs: int, run: Callable[[], int]) -> float:
    """Jobs a second of a run that gives how many succeeded."""
    began = perf_counter()
    done = run()
    elapsed_s = perf_counter() - began
    if done != jobs:
        raise LoadFailed(f"{done} of {jobs} jobs succeeded")
    return jobs / elapsed_s


def _results(client: Client, ids: Sequence[str]) -> int:
    """Ask for the results of some jobs until all are there; how many."""
    target = f"/v1/jobs?id={','.join(ids)}&wait={ASK_S}&until=all"
    page = page_of(client.request(Request("GET", target, wait_s=ASK_S, repeatable=True)))
    return sum(job.succeeded for job in page.jobs)


def _by_client(bench: Bench, name: str, title: str, run: Callable[[Client, int], int]) -> Figure:
    jobs = bench.some(CLIENT_JOBS)
    with bench.daemon() as daemon, daemon.client() as client:

        def once() -> float:
            return _rate(jobs, lambda: run(client, jobs))

        once()
        values = bench.repeat(once)
    return _figure(bench, name, title, values, floor=15_000, aim=40_000)


def _figure(bench: Bench, name: str, title: str, values: list[float], *, floor: float, aim: float) -> Figure:
    return Figure(
        name=name,
        title=title,
        unit=" jobs/s",
        better="more",
        values=values,
        bare=[Bare("our schema, in groups of 500", bench.sqlite_grouped_per_s())],
        floor=Goal(floor),
        aim=Goal(aim),
    )
