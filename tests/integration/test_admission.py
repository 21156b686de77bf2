"""A real daemon with a small queue: what is beyond it is refused, before and after a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration.stranger import TASKS

if TYPE_CHECKING:
    from tests.integration.conftest import StartDaemon
    from tests.integration.daemon import Daemon


def full(daemon: Daemon) -> None:
    refused = daemon.post("/v1/jobs", json={"task": "plain", "args": [1]})
    assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
    assert 1 <= int(refused.headers["retry-after"]) <= 300
    assert refused.headers["ratelimit"].startswith('"queue";r=0')


def test_the_queue_is_as_full_after_a_crash(start_daemon: StartDaemon) -> None:
    """--queue-max counts what waits in the database, whoever put it there; one that is cancelled makes room for one."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1", "--queue-max", "3")
    jobs = [daemon.submit("plain", n, delay_s=3600)["id"] for n in range(3)]
    full(daemon)
    daemon.kill()
    daemon.start()
    full(daemon)
    assert daemon.get("/v1/info").json()["limits"]["queue_max"] == 3
    assert daemon.post(f"/v1/jobs/{jobs[0]}/cancel").status_code == 200
    daemon.submit("plain", 4, delay_s=3600)
    full(daemon)
