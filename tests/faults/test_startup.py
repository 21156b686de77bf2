"""F29: workers that are started again and cannot load a module; and workers that are replaced because they are worn."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.daemon import START_DEADLINE_S

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import StartDaemon
    from tests.integration.daemon import Daemon

SOUND = """
import os
from jobsvc import Context, task

@task(executor="process")
def pid() -> int:
    return os.getpid()

@task(executor="process")
def held(ctx: Context) -> int:
    ctx.emit(os.getpid())
    while not ctx.cancelled and ctx.epoch == 1:
        os.sched_yield()
    return ctx.epoch
"""
FRAGILE = """
import os
from pathlib import Path
from jobsvc import task

@task(executor="process")
def fragile() -> str:
    return "whole"

if Path("broken").exists():
    exec(Path("broken").read_text())
"""
HOW = {
    "raises": ("raise RuntimeError('no such library')", "RuntimeError: no such library"),
    "segfaults": ("import ctypes; ctypes.string_at(0)", "was ended by SIGSEGV"),
    "exits": ("os._exit(0)", "exited with status 0"),
}
JOBS = 2_000
LINES = 500
RECYCLE_AFTER = 50


def checks(daemon: Daemon) -> tuple[int, dict[str, tuple[bool, str]]]:
    """Status and checks of /readyz."""
    reply = daemon.get("/readyz", params={"verbose": "1"})
    return reply.status_code, {row["check"]: (row["ok"], row["detail"]) for row in reply.json()["checks"]}


@pytest.mark.parametrize("how", HOW)
def test_a_module_that_no_longer_loads_stops_its_own_tasks_only(
    start_daemon: StartDaemon, tmp_path: Path, how: str
) -> None:
    """F29: the others work on, its jobs wait, /readyz says why and stays 200; a reload after the mend runs them."""
    code, words = HOW[how]
    (tmp_path / "fragile.py").write_text(FRAGILE)
    daemon = start_daemon(SOUND, "--cpu-workers", "1", "--tasks", "fragile", "--path", str(tmp_path))
    assert daemon.succeeded(daemon.submit("fragile")["id"]) == "whole"
    (daemon.folder / "broken").write_text(code)
    job = daemon.submit("held")["id"]
    os.kill(daemon.first_item(job), signal.SIGKILL)
    assert daemon.succeeded(job) == 2, "it runs again, in a worker without the broken module"

    status, found = checks(daemon)
    assert status == 200
    ok, detail = found["module fragile"]
    assert not ok
    assert words in detail
    waiting = daemon.submit("fragile")["id"]
    assert daemon.succeeded(daemon.submit("pid")["id"])
    shown = daemon.job(waiting)
    assert (shown["state"], shown["reason"]) == ("queued", "module_broken")
    assert 'jobsvc_module_broken{module="fragile"} 1.0' in daemon.get("/metrics").text

    (daemon.folder / "broken").unlink()
    assert daemon.post("/v1/reload").status_code == 200
    assert daemon.succeeded(waiting) == "whole"
    assert "module fragile" not in checks(daemon)[1]


def test_recycled_workers_lose_and_delay_nothing(start_daemon: StartDaemon) -> None:
    """Every worker is replaced after fifty jobs, under load: each job runs once, at its first try, and all succeed."""
    daemon = start_daemon(SOUND, "--cpu-workers", "2", "--recycle-jobs", str(RECYCLE_AFTER))
    ends: list[dict[str, Any]] = []
    body = b"\n".join([json.dumps({"task": "pid"}).encode()] * LINES)
    for _ in range(JOBS // LINES):
        lines = daemon.lines(
            "/v1/jobs/bulk", method="POST", content=body, params={"follow": "out"},
            headers={"Content-Type": "application/x-ndjson"},
        )  # fmt: skip
        ends += [line for line in lines if "state" in line]
    assert [end["state"] for end in ends] == ["succeeded"] * JOBS
    assert len({end["result"] for end in ends}) > 2, "workers were replaced"
    assert all(daemon.job(end["id"])["epoch"] == 1 for end in ends[:: JOBS // 50])
    assert daemon.get("/v1/jobs", params={"state": "failed,queued,running"}).json()["jobs"] == []
    ready = [row for row in daemon.workers("cpu") if row["state"] == "ready"]
    assert len(ready) >= 2
    daemon.wait_log("is recycled: jobs", START_DEADLINE_S)
