"""How soon work goes on after a kill -9: of a worker, and of the daemon with 10,000 jobs queued."""

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
from bench.report import Bare, Figure, Goal
from jobsvc.client.core import Request
from jobsvc.client.replies import value_of

QUEUED = 10_000
LINES = 2_000
WAIT_S = 30.0
LOOK_S = 0.005


def worker_killed(bench: Bench) -> Figure:
    """The moment of the second begin, which the task itself writes down, less the moment of the kill."""
    with bench.daemon() as daemon, daemon.client() as client:

        def once() -> float:
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

        values = bench.repeat(once)
    return Figure(
        name="worker-killed",
        title="killed worker → its job runs again",
        unit="s",
        better="less",
        values=values,
        bare=[Bare("start of a Python with msgspec", bare.python_start_s())],
        floor=Goal(1.0),
        aim=Goal(0.2),
    )


def daemon_killed(bench: Bench) -> Figure:
    """From the start of the new daemon to its first 200 on /readyz."""
    jobs = bench.some(QUEUED)
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
        name="daemon-killed",
        title=f"killed daemon → ready, {jobs:,} jobs queued",
        unit="s",
        better="less",
        values=values,
        bare=[Bare("start of a Klein hello", bare.hello_start_s())],
        floor=Goal(3.0),
        aim=Goal(1.0),
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
