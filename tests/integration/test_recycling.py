"""Workers are recycled under load, and nobody notices: every job runs once, at its first attempt and claim."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.integration.conftest import StartDaemon

TASKS = """
from jobsvc import task

@task(executor="process")
def compute(n: int) -> int:
    return n

@task
def block(n: int) -> int:
    return n
"""
JOBS = 4_000
"""Enough for many changes of each worker, however fast they run."""


def test_recycling_loses_delays_and_repeats_nothing(start_daemon: StartDaemon) -> None:
    """Every attempt is 1 and every epoch 1, there are never fewer ready workers than configured."""
    daemon = start_daemon(TASKS, "--cpu-workers", "2", "--recycle-jobs", "50")
    lines = [{"task": ("compute", "block")[n % 2], "args": [n]} for n in range(JOBS)]
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    reply = daemon.post("/v1/jobs/bulk", content=body, headers={"Content-Type": "application/x-ndjson"})
    ids = [json.loads(line)["id"] for line in reply.text.splitlines()]
    assert len(ids) == JOBS
    fewest = {"cpu": 2, "io": 1}
    for job_id in ids[::200]:
        for kind, least in fewest.items():
            ready = sum(row["state"] == "ready" for row in daemon.workers(kind))
            fewest[kind] = min(least, ready)
        daemon.done(job_id)
    for at in range(0, JOBS, 100):
        chosen = ids[at : at + 100]
        reply = daemon.get("/v1/jobs", params={"id": ",".join(chosen), "wait": "60", "until": "all"})
        rows = {row["id"]: row for row in reply.json()["jobs"]}
        assert [
            (rows[i]["state"], rows[i]["attempt"], rows[i]["epoch"], rows[i]["result"]) for i in chosen
        ] == [("succeeded", 1, 1, at + n) for n in range(100)]
    assert fewest == {"cpu": 2, "io": 1}
    text = daemon.get("/metrics").text
    for kind in ("cpu", "io"):
        (line,) = [
            line
            for line in text.splitlines()
            if line.startswith(f'jobsvc_worker_recycled_total{{kind="{kind}"')
        ]
        assert float(line.rpartition(" ")[2]) >= 1
    assert {row["restarts"] for kind in ("cpu", "io") for row in daemon.workers(kind)} == {0}
