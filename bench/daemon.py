"""The daemon under measurement: default settings, a data directory of its own on a real disk, and what it costs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from bench.load import LoadFailed, Outcome, Plan, request, run
from examples.daemon import Daemon
from jobsvc.client import Client

TASKS = "bench.tasks"
WAIT_S = 60
"""What a request waits for its job: longer than any of them takes."""
SETTLE_S = 30.0
"""How long the daemon may take to finish what a run has left."""
SETTLE_LOOK_S = 0.02
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_BUSY_STATES = "queued,running,retrying,stopping"
_SUCCEEDED = b'"state":"succeeded"'


class Usage(NamedTuple):
    """What the daemon and all its children take."""

    pss_bytes: int
    cpu_s: float
    processes: int


class Measured(Daemon):
    """A daemon with what the figures need of it."""

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        super().__init__(folder, [TASKS], options=options)

    def client(self) -> Client:
        """A blocking client of it."""
        return Client(self.url, self.token)

    def request(self, method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
        """The bytes of a request to it; header names with underscores."""
        common = {"Host": urlsplit(self.url).netloc, "Authorization": f"Bearer {self.token}"}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return request(method, target, {**common, **given}, body)

    def submit(self, task: str, args: object, *, wait: bool = False) -> bytes:
        """A single submit; with `wait` its reply comes when the job is done."""
        prefer = {"Prefer": f"wait={WAIT_S}"} if wait else {}
        body = msgspec.json.encode({"task": task, "args": args})
        return self.request("POST", "/v1/jobs", body, Content_Type="application/json", **prefer)

    def bulk(self, task: str, args: object, lines: int) -> bytes:
        """A bulk submit of equal jobs, with their outcomes in the reply."""
        line = msgspec.json.encode({"task": task, "args": args}) + b"\n"
        return self.request(
            "POST", "/v1/jobs/bulk?follow=out", line * lines, Content_Type="application/x-ndjson"
        )

    def plan(self, *requests: bytes, **fields: Any) -> Plan:
        """A plan of requests to it."""
        where = urlsplit(self.url)
        return Plan(host=where.hostname or "", port=where.port or 0, requests=list(requests), **fields)

    def run(self, plan: Plan, *, succeeded: int = 0) -> Outcome:
        """Carry out a plan. With `succeeded` each reply must tell of so many jobs that did.

        Raises:
            LoadFailed: not all requests were answered as they should.
        """
        if succeeded:
            plan.marker, plan.marks = _SUCCEEDED, succeeded
        before_s = self.usage().cpu_s
        outcome = run(plan)
        outcome.server_cpu_s = self.usage().cpu_s - before_s
        return outcome

    def settle(self) -> None:
        """Wait until no job is left to do.

        Raises:
            LoadFailed: there still are after a while.
        """
        give_up_at = monotonic() + SETTLE_S
        with self.client() as client:
            while any(client.list(state=_BUSY_STATES, limit=1)):
                if monotonic() > give_up_at:
                    raise LoadFailed(f"jobs are left unfinished after {SETTLE_S:g} s")
                self.pause(SETTLE_LOOK_S)

    def usage(self) -> Usage:
        """Memory and processor time of it and all that it has started."""
        pids = family(self.process.pid)
        return Usage(sum(map(pss_bytes, pids)), sum(map(cpu_s, pids)), len(pids))


@contextmanager
def fresh(folder: Path, *options: str) -> Iterator[Measured]:
    """A daemon with an empty data directory below `folder`; both are gone afterwards."""
    with TemporaryDirectory(prefix="daemon-", dir=folder) as own:
        daemon = Measured(Path(own), options)
        try:
            daemon.start()
            yield daemon
        finally:
            if daemon.running:
                daemon.stop(hurry=True)


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def pss_bytes(pid: int) -> int:
    """Memory of a process, pages shared with others counted in part; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def cpu_s(pid: int) -> float:
    """Processor time that a process has taken; 0 when it is gone."""
    stat = _stat(pid)
    return (int(stat[11]) + int(stat[12])) / _TICKS_PER_S if stat else 0.0


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
