"""How soon work goes on after a kill -9 of a worker or of the daemon, and how soon a daemon under load has stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any
from uuid import uuid4

from bench import bare
from bench.bench import Bench
from bench.daemon import Measured, family
from bench.load import LoadFailed
from bench.report import Bare, Figure, Goal, percentiles
from jobsvc.client.core import Request
from jobsvc.client.replies import value_of

KILLS = 40
"""Of workers: enough for a p99 that is not the maximum of a handful."""
QUEUED = 10_000
QUEUED_MANY = 100_000
DRAIN_LOOPS = 200_000
"""Of the jobs that run while a daemon is told to stop: about 20 ms each."""
LINES = 2_000
WAIT_S = 30.0
LOOK_S = 0.005


def worker_killed(bench: Bench) -> Figure:
    """The moment of the second begin, which the task itself writes down, less the moment of the kill."""
    with bench.daemon() as daemon, daemon.client() as client:

        def killed() -> float:
            marks = daemon.data_dir.parent / f"marks-{uuid4().hex}"
            job = client.submit("mark_begin", {"path": str(marks)})
            _lines(daemon, marks, 1)
            [running] = [worker["pid"] for worker in _cpu_workers(daemon) if worker["running"]]
            killed_at = monotonic()
            for pid in reversed(family(running)):
                os.kill(pid, signal.SIGKILL)
            again_at = _lines(daemon, marks, 2)[1]
            client.result(job, WAIT_S)
            return again_at - killed_at

        values = [killed() for _ in range(bench.some(KILLS))]
    return Figure(
        name="worker-killed",
        title="killed worker → its job runs again",
        unit="s",
        better="less",
        values=values,
        bare=[Bare("start of a Python with msgspec", bare.python_start_s())],
        floor=Goal(1.0, p99=1.0),
        aim=Goal(0.2, p99=0.2),
        latencies_s=percentiles(values),
    )


def daemon_killed(bench: Bench) -> Figure:
    return _daemon_killed(bench, "daemon-killed", QUEUED, floor=3.0, aim=1.0)


def daemon_killed_many(bench: Bench) -> Figure:
    return _daemon_killed(bench, "daemon-killed-many", QUEUED_MANY)


def _daemon_killed(
    bench: Bench, name: str, queued: int, *, floor: float | None = None, aim: float | None = None
) -> Figure:
    """From the start of the new daemon to its first 200 on /readyz."""
    jobs = bench.some(queued)
    with bench.daemon() as daemon:
        with daemon.client() as client:
            client.submit_many(("hold", {}) for _ in range(jobs))

        def once() -> float:
            daemon.kill()
            began = perf_counter()
            daemon.start()
            return perf_counter() - began

        values = bench.repeat(once)
        with daemon.client() as client:
            left = sum(1 for _ in client.list(state=["queued", "running"]))
        if left != jobs:
            raise LoadFailed(f"{left} of {jobs} jobs are left after the kills")
    return Figure(
        name=name,
        title=f"killed daemon → ready, {jobs:,} jobs queued",
        unit="s",
        better="less",
        values=values,
        bare=[Bare("start of a Klein hello", bare.hello_start_s())],
        floor=None if floor is None else Goal(floor),
        aim=None if aim is None else Goal(aim),
    )


def drain(bench: Bench) -> Figure:
    """From SIGTERM to the end of the process, while every worker computes and thousands of jobs wait."""
    jobs = bench.some(QUEUED)
    values: list[float] = []
    for _ in range(bench.repeats):
        with bench.daemon() as daemon:
            with daemon.client() as client:
                client.submit_many(("burn", {"loops": DRAIN_LOOPS}) for _ in range(jobs))
                while not any(worker["running"] for worker in _cpu_workers(daemon)):
                    daemon.pause(LOOK_S)
            began = perf_counter()
            status = daemon.stop()
            values.append(perf_counter() - began)
            if status != 0:
                raise LoadFailed(f"the daemon ended with {status} after SIGTERM")
            daemon.start()
            with daemon.client() as client:
                left = list(client.list())
            if len(left) != jobs or any(job.reason == "lost" for job in left):
                raise LoadFailed(f"of {jobs} jobs {len(left)} are left after a drain, or some count as lost")
    return Figure(
        name="drain",
        title=f"SIGTERM → exit 0, workers busy, {jobs:,} jobs wait",
        unit="s",
        better="less",
        values=values,
        bare=[Bare("stop of a Klein hello", bare.hello_stop_s())],
    )


def _cpu_workers(daemon: Measured) -> list[dict[str, Any]]:
    with daemon.client() as client:
        workers = value_of(client.request(Request("GET", "/v1/workers", repeatable=True)))["workers"]
    return [worker for worker in workers if worker["kind"] == "cpu"]


def _lines(daemon: Measured, path: Path, count: int) -> list[float]:
    """The moments in a file, once there are so many."""
    give_up_at = monotonic() + WAIT_S
    while monotonic() < give_up_at:
        if path.exists() and path.read_text().count("\n") >= count:
            return [float(line) for line in path.read_text().splitlines()]
        daemon.pause(LOOK_S)
    raise LoadFailed(f"the job has not begun {count} times within {WAIT_S:g} s")
