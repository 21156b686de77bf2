"""When a job runs and how it ends: order, delays, timeouts, retries, keys, cancels; the defaults."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.daemon import Daemon, running
from tests.integration.stranger import TASKS, failure, result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import StartDaemon
    from tests.integration.daemon import WheelEnv


@pytest.fixture(scope="module")
def daemon(wheel_env: WheelEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all that leave it as they found it."""
    options = ("--cpu-workers", "2", "--args-max", "2M")
    with running(Daemon(wheel_env, tmp_path_factory.mktemp("jobs"), options), TASKS) as started:
        yield started


# -- when it runs -------------------------------------------------------------------------------------------------


def test_default_policy(daemon: Daemon) -> None:
    """0 retries, no timeouts, default queue, priority 0, retried when lost."""
    job = daemon.submit("plain", 1)
    assert (job["max_attempts"], job["queue"], job["priority"], job["on_lost"]) == (1, "default", 0, "retry")
    assert job["timeouts"] == {"run": None, "idle": None, "total": None}
    assert job["backoff"] == {"base_s": 1, "max_s": 600}
    assert (job["labels"], job["tenant"], job["durability"]) == ({}, "default", "power")
    failed = daemon.done(daemon.submit("fail_thread", "x")["id"])
    assert (failed["attempt"], failed["max_attempts"]) == (1, 1)


def test_concurrency_cap(daemon: Daemon) -> None:
    """Of five at most two run; the others wait and take their turn."""
    jobs = [daemon.submit("few", "few-gate")["id"] for _ in range(5)]
    for job in jobs[:2]:
        daemon.first_item(job)
    assert [daemon.job(job)["state"] for job in jobs] == ["running"] * 2 + ["queued"] * 3
    daemon.open_gate("few-gate")
    for job in jobs:
        daemon.succeeded(job)


def test_larger_priority_first(start_daemon: StartDaemon) -> None:
    """While the only worker is busy they gather; then they run by priority, equal ones by age."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1")
    busy = daemon.submit("held", "order-gate")["id"]
    daemon.first_item(busy)
    priorities = [0, -5, 10, 0, 100, 10]
    jobs = [daemon.submit("order", n, priority=p)["id"] for n, p in enumerate(priorities)]
    daemon.open_gate("order-gate")
    moments = [daemon.succeeded(job) for job in jobs]
    assert sorted(range(6), key=lambda n: moments[n]) == [4, 2, 5, 0, 3, 1]


def test_delay_and_run_now(daemon: Daemon) -> None:
    """It is scheduled until it is time, or until somebody says now."""
    soon = daemon.submit("plain", 1, delay_s=0.2)
    assert (soon["state"], soon["reason"]) == ("scheduled", "run_at")
    assert daemon.succeeded(soon["id"]) == 2
    done = daemon.job(soon["id"])
    assert done["started_at"] >= done["run_at"] == soon["run_at"]
    moment = datetime.now(UTC) + timedelta(days=30)
    far = daemon.submit("plain", 2, run_at=moment.isoformat())
    assert datetime.fromisoformat(far["run_at"]) == moment
    assert daemon.post(f"/v1/jobs/{far['id']}/run").status_code == 200
    assert daemon.succeeded(far["id"]) == 4


def test_expires(daemon: Daemon) -> None:
    """What waited too long does not start any more."""
    running_ = [daemon.submit("few", "expires-gate")["id"] for _ in range(2)]
    for job_id in running_:
        daemon.first_item(job_id)
    soon = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
    job = daemon.submit("few", "expires-gate", expires_at=soon)
    assert job["state"] == "queued"
    ended = daemon.done(job["id"])
    daemon.open_gate("expires-gate")
    assert (ended["state"], ended["error"]["kind"], ended["epoch"]) == ("expired", "expired", 0)
    assert ended["finished_at"] >= ended["expires_at"]
    never = {"task": "plain", "args": [1], "expires_at": "2026-01-01T00:00:00Z"}
    assert daemon.post("/v1/jobs", json=never).status_code == 422


# -- timeouts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["held", "held_loop", "held_command", "held_thread"])
def test_timeout_of_a_run(daemon: Daemon, task: str) -> None:
    """A process and a command are killed, a coroutine is cancelled, a thread is given up; each try counts."""
    gate = f"timeout-{task}"
    retries = 0 if task == "held_thread" else 1
    job = daemon.submit(task, gate, timeouts={"run": 0.3}, retries=retries, backoff={"base_s": 0})["id"]
    ended = daemon.done(job)
    assert (ended["state"], ended["error"]["kind"], ended["attempt"]) == ("failed", "timeout", 1 + retries)
    assert [row["state"] for row in daemon.attempts(job)] == ["failed"] * (1 + retries)
    daemon.open_gate(gate)
    assert daemon.done(daemon.submit(task, gate)["id"])["state"] == "succeeded"


def test_idle_and_total_timeouts(daemon: Daemon) -> None:
    """No sign of life for too long; too long since the submission, waiting included."""
    assert failure(daemon, daemon.submit("held", "never", timeouts={"idle": 0.3})["id"])["kind"] == "timeout"
    assert (
        failure(daemon, daemon.submit("held", "never", timeouts={"total": 0.3}, retries=5)["id"])["kind"]
        == "timeout"
    )


def test_retry_of_a_timed_out_thread_waits_for_it(daemon: Daemon) -> None:
    """Two attempts of one job never overlap: the next one begins when the given-up thread has returned."""
    job = daemon.submit(
        "held_thread", "orphan-gate", timeouts={"run": 0.2}, retries=1, backoff={"base_s": 0}
    )["id"]
    waiting = daemon.in_state(job, "retrying")
    assert waiting["reason"] == "orphan_running"
    daemon.open_gate("orphan-gate")
    assert daemon.done(job)["state"] == "succeeded"
    assert daemon.job(job)["attempt"] == 2


# -- retries and keys ---------------------------------------------------------------------------------------------


def test_retries_with_backoff(daemon: Daemon) -> None:
    """It fails twice and succeeds; all attempts are told."""
    job = daemon.submit("third_time")["id"]
    assert daemon.succeeded(job) == 3
    rows = daemon.attempts(job)
    assert [row["attempt"] for row in rows] == [1, 2, 3]
    assert [row["state"] for row in rows] == ["failed", "failed", "succeeded"]
    assert [row["error"] and row["error"]["message"] for row in rows] == ["1", "2", None]
    states = [event["data"]["state"] for event in daemon.events(job, kinds="state")]
    assert [state for state in states if state != "queued"] == [
        "running", "retrying", "running", "retrying", "running", "succeeded",
    ]  # fmt: skip


def test_manual_retry_is_a_new_job(daemon: Daemon) -> None:
    """The final one stays as it is; one that is not done is refused."""
    failed = daemon.submit("fail_thread", "again", labels={"a": "b"})["id"]
    daemon.done(failed)
    again = daemon.post(f"/v1/jobs/{failed}/retry")
    assert again.status_code == 201
    assert (again.json()["rerun_of"], again.json()["args"], again.json()["labels"]) == (
        failed,
        ["again"],
        {"a": "b"},
    )
    assert again.json()["id"] != failed
    waiting = daemon.submit("plain", 1, delay_s=3600)["id"]
    refused = daemon.post(f"/v1/jobs/{waiting}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


def test_idempotency_key(daemon: Daemon) -> None:
    """The same key and body give the same job, by header or body; another body is refused."""
    body = {"task": "plain", "args": {"a": 4, "b": 5}}
    head = {"Idempotency-Key": "order-66"}
    first = daemon.post("/v1/jobs", json=body, headers=head)
    again = daemon.post(
        "/v1/jobs",
        content=b'{"args":{"b":5, "a":4},  "task":"plain"}',
        headers={**head, "Content-Type": "application/json"},
    )
    by_body = daemon.post("/v1/jobs", json={**body, "key": "order-66"})
    assert [reply.status_code for reply in (first, again, by_body)] == [201, 200, 200]
    assert {reply.json()["id"] for reply in (first, again, by_body)} == {first.json()["id"]}
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == by_body.headers["Idempotency-Replayed"] == "true"
    other = daemon.post("/v1/jobs", json={"task": "plain", "args": [5]}, headers=head)
    assert (other.status_code, other.json()["code"]) == (422, "key_reused")
    both = daemon.post("/v1/jobs", json={**body, "key": "order-67"}, headers=head)
    assert both.status_code == 422


# -- cancel -------------------------------------------------------------------------------------------------------


def cancel(daemon: Daemon, job: str, **body: Any) -> Any:
    """Ask for it."""
    return daemon.post(f"/v1/jobs/{job}/cancel", json=body) if body else daemon.post(f"/v1/jobs/{job}/cancel")


def test_cancel_of_a_waiting_job_is_done_at_once(daemon: Daemon) -> None:
    """200 and cancelled; a second one is refused."""
    job = daemon.submit("plain", 1, delay_s=3600)["id"]
    reply = cancel(daemon, job)
    assert (reply.status_code, reply.json()["state"], reply.json()["error"]["kind"]) == (
        200,
        "cancelled",
        "cancelled",
    )
    again = cancel(daemon, job)
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize("task", ["ask_thread", "ask_process", "held_loop", "held_command"])
def test_polite_cancel(daemon: Daemon, task: str) -> None:
    """It is asked, and ends by itself: stopping, then cancelled."""
    job = daemon.submit(task, *(["never"] if task.startswith("held") else []))["id"]
    daemon.first_item(job)
    reply = cancel(daemon, job)
    assert (reply.status_code, reply.json()["state"], reply.json()["reason"]) == (
        202,
        "stopping",
        "cancel_asked",
    )
    assert daemon.done(job)["state"] == "cancelled"


@pytest.mark.parametrize(
    "body", [{"mode": "now"}, {"mode": "deadline", "grace_s": 0.1}], ids=["now", "deadline"]
)
@pytest.mark.parametrize("task", ["held", "held_command"])
def test_cancel_that_kills(daemon: Daemon, task: str, body: dict[str, Any]) -> None:
    """What does not listen is killed at once, or after the grace; its worker is replaced."""
    job = daemon.submit(task, "never", retries=5)["id"]
    daemon.first_item(job)
    assert cancel(daemon, job, **body).status_code == 202
    ended = daemon.done(job)
    assert (ended["state"], ended["attempt"]) == ("cancelled", 1)
    assert result(daemon, "squares", 1) is None


def test_polite_cancel_of_what_does_not_listen_changes_nothing_else(daemon: Daemon) -> None:
    """It stays stopping; when it returns all the same, it succeeded, and says so."""
    job = daemon.submit("held", "deaf-gate")["id"]
    daemon.first_item(job)
    assert cancel(daemon, job).json()["state"] == "stopping"
    daemon.open_gate("deaf-gate")
    assert daemon.done(job)["state"] == "succeeded"


@pytest.mark.parametrize("mode", ["now", "deadline"])
def test_thread_cannot_be_killed(daemon: Daemon, mode: str) -> None:
    """409 cannot_kill: nothing changes, and the detail offers the polite way."""
    job = daemon.submit("held_thread", f"thread-gate-{mode}")["id"]
    daemon.first_item(job)
    refused = cancel(daemon, job, mode=mode)
    assert (refused.status_code, refused.json()["code"]) == (409, "cannot_kill")
    assert "polite" in refused.json()["detail"]
    assert daemon.job(job)["state"] == "running"
    daemon.open_gate(f"thread-gate-{mode}")
    assert daemon.done(job)["state"] == "succeeded"
