"""No-op jobs in bulk, from the first byte of the submit to the last result: by raw HTTP and by the Python client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from time import perf_counter

from bench.bench import Bench, costs
from bench.load import LoadFailed
from bench.report import Bare, Figure, Goal
from jobsvc.client import Client
from jobsvc.client.core import Request
from jobsvc.client.replies import page_of

LINES = 5_000
REQUESTS = 16
IN_FLIGHT = 4
CLIENT_JOBS = 40_000
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
    def run(client: Client, jobs: int) -> int:
        return sum(1 for _ in client.map("noop", repeat({}, jobs)))

    return _by_client(bench, "client-map", "Python client, map", run)


def client_submit_many(bench: Bench) -> Figure:
    def run(client: Client, jobs: int) -> int:
        ids = client.submit_many(repeat(("noop", {}), jobs))
        return sum(_results(client, ids[at : at + ASK_IDS]) for at in range(0, jobs, ASK_IDS))

    return _by_client(bench, "client-submit-many", "Python client, submit_many", run)


def _results(client: Client, ids: Sequence[str]) -> int:
    """Ask for the results of some jobs until all are there; how many."""
    target = f"/v1/jobs?id={','.join(ids)}&wait={ASK_S}&until=all"
    page = page_of(client.request(Request("GET", target, wait_s=ASK_S, repeatable=True)))
    return sum(job.succeeded for job in page.jobs)


def _by_client(bench: Bench, name: str, title: str, run: Callable[[Client, int], int]) -> Figure:
    jobs = bench.some(CLIENT_JOBS)
    with bench.daemon() as daemon, daemon.client() as client:

        def once() -> float:
            began = perf_counter()
            done = run(client, jobs)
            elapsed_s = perf_counter() - began
            if done != jobs:
                raise LoadFailed(f"{done} of {jobs} jobs succeeded")
            return jobs / elapsed_s

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
