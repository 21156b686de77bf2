"""What a job's code says about running again, through HTTP: Retry, Snooze, errors by class, on each executor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.daemon import Daemon, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.daemon import WheelEnv

TASKS = """
import ctypes, time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from jobsvc import Context, Retry, Snooze, command, task

class Busy(OSError):
    pass

class Broken(OSError):
    pass

def act(what, gate):
    if Path(gate).exists():
        return "done"
    if what == "retry":
        try:
            raise Busy("no line")
        except Busy as error:
            raise Retry(after=0.01) from error
    if what == "snooze":
        raise Snooze(0.01)
    if what == "hour":
        raise Snooze(3600)
    if what == "naive":
        raise Snooze(datetime(2030, 1, 1))
    raise {"busy": Busy, "broken": Broken, "value": ValueError}[what](what)

rules = dict(retry_on=OSError, give_up_on=Broken, backoff=(0.01, 0.01))

@task(executor="process", **rules)
def in_process(what: str, gate: str) -> str:
    return act(what, gate)

@task(executor="process", **rules)
def in_process_stream(what: str, gate: str) -> Iterator[int]:
    yield 1
    return act(what, gate)

@task(**rules)
def on_thread(what: str, gate: str) -> str:
    return act(what, gate)

@task(**rules)
def on_thread_stream(what: str, gate: str) -> Iterator[int]:
    yield 1
    return act(what, gate)

@task(**rules)
async def on_loop(what: str, gate: str) -> str:
    return act(what, gate)

@task(**rules)
async def on_loop_stream(what: str, gate: str) -> AsyncIterator[int]:
    yield 1
    act(what, gate)

shell = command("shell", ["sh", "-c", "{script}"], retry_codes=(75,), retries=2, backoff=(0.01, 0.01))

@task
def until_cancelled(ctx: Context) -> None:
    ctx.emit("in")
    while not ctx.cancelled:
        time.sleep(0.005)
    raise Snooze(3600)

@task(timeout={"total": 0.5})
def bounded() -> None:
    raise Snooze(3600)

@task
def segfault(ctx: Context) -> None:
    ctx.emit("in")
    ctypes.string_at(0)

@task
async def held_loop(ctx: Context, gate: str) -> int:
    import asyncio
    ctx.emit("in")
    while not Path(gate).exists():
        await asyncio.sleep(0.01)
    return ctx.epoch
"""
FORMS = ["in_process", "in_process_stream", "on_thread", "on_thread_stream", "on_loop", "on_loop_stream"]


@pytest.fixture(scope="module")
def daemon(wheel_env: WheelEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all; each test waits at a gate of its own."""
    folder = tmp_path_factory.mktemp("retries")
    with running(Daemon(wheel_env, folder, ("--cpu-workers", "2")), TASKS) as started:
        yield started


def rows(daemon: Daemon, job: str) -> list[tuple[int, int, str]]:
    """(epoch, attempt, state) of all attempts."""
    return [(row["epoch"], row["attempt"], row["state"]) for row in daemon.attempts(job)]


# -- retry --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_retry_counts_and_ends_with_the_words_raised(daemon: Daemon, form: str) -> None:
    """The moment is the job's own: a backoff of ten minutes plays no part. The error tells what led to it."""
    slow = {"base_s": 600, "max_s": 600}
    ended = daemon.done(daemon.submit(form, "retry", "never", retries=2, backoff=slow)["id"])
    assert (ended["state"], ended["attempt"], ended["max_attempts"]) == ("failed", 3, 3)
    error = ended["error"]
    assert (error["kind"], error["type"], error["message"]) == ("task_error", "jobsvc.Retry", "Busy: no line")
    assert "tasks_under_test.Busy: no line" in error["traceback"]
    assert error["retryable"] is True
    assert rows(daemon, ended["id"]) == [(1, 1, "failed"), (2, 2, "failed"), (3, 3, "failed")]


def test_retry_without_retries_is_a_failure(daemon: Daemon) -> None:
    ended = daemon.done(daemon.submit("on_thread", "retry", "never")["id"])
    assert (ended["state"], ended["attempt"]) == ("failed", 1)


# -- snooze -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_snooze_waits_and_counts_for_nothing(daemon: Daemon, form: str) -> None:
    """Several times, without any retries; then it does its work as the first attempt."""
    gate = f"snooze-{form}"
    job = daemon.submit(form, "snooze", gate)["id"]
    daemon.until(job, lambda seen: seen["epoch"] > 3)
    daemon.open_gate(gate)
    ended = daemon.done(job)
    assert (ended["state"], ended["attempt"], ended["error"]) == ("succeeded", 1, None)
    assert ended["result"] == (None if form == "on_loop_stream" else "done")
    *before, last = rows(daemon, job)
    assert before == [(n, 1, "snoozed") for n in range(1, ended["epoch"])]
    assert last == (ended["epoch"], 1, "succeeded")
    assert {str(row["error"]) for row in daemon.attempts(job)} == {"None"}


def test_snoozed_job_says_when_it_runs_again(daemon: Daemon) -> None:
    """It is retrying, reason snoozed, and run_at is the moment; it can be run now."""
    before = datetime.now(UTC)
    job = daemon.submit("on_thread", "hour", "hour-gate")["id"]
    waiting = daemon.in_state(job, "retrying")
    assert (waiting["reason"], waiting["attempt"], waiting["done"]) == ("snoozed", 0, False)
    due = datetime.fromisoformat(waiting["run_at"])
    assert before + timedelta(hours=1) <= due <= datetime.now(UTC) + timedelta(hours=1)
    reasons = [e["data"]["reason"] for e in daemon.lines(f"/v1/jobs/{job}/events?follow=0&kinds=state")]
    assert reasons == [None, "snoozed"]
    daemon.open_gate("hour-gate")
    assert daemon.post(f"/v1/jobs/{job}/run").status_code == 200
    assert daemon.succeeded(job) == "done"


def test_snoozed_job_is_kept_over_a_crash_of_the_daemon(daemon: Daemon) -> None:
    """It waits on as before, and its moment is the same."""
    job = daemon.submit("on_loop", "hour", "crash-gate")["id"]
    waiting = daemon.in_state(job, "retrying")
    daemon.kill()
    daemon.start()
    again = daemon.job(job)
    assert [again[name] for name in ("state", "reason", "run_at", "attempt")] == [
        waiting[name] for name in ("state", "reason", "run_at", "attempt")
    ]
    daemon.open_gate("crash-gate")
    daemon.post(f"/v1/jobs/{job}/run")
    assert daemon.succeeded(job) == "done"


def test_snooze_without_a_time_zone_is_the_jobs_error(daemon: Daemon) -> None:
    ended = daemon.done(daemon.submit("in_process", "naive", "never")["id"])
    assert (ended["state"], ended["error"]["type"]) == ("failed", "ValueError")
    assert "without a time zone" in ended["error"]["message"]


def test_snooze_does_not_undo_a_cancel(daemon: Daemon) -> None:
    job = daemon.submit("until_cancelled")["id"]
    daemon.first_item(job)
    assert daemon.post(f"/v1/jobs/{job}/cancel").status_code == 202
    assert daemon.done(job)["state"] == "cancelled"


def test_snoozed_job_expires_and_can_be_cancelled(daemon: Daemon) -> None:
    """As everything that waits."""
    assert daemon.done(daemon.submit("bounded")["id"])["state"] == "expired"
    job = daemon.submit("on_thread", "hour", "never")["id"]
    daemon.in_state(job, "retrying")
    assert daemon.post(f"/v1/jobs/{job}/cancel").json()["state"] == "cancelled"


# -- by the error -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_errors_are_worth_a_retry_by_their_class(daemon: Daemon, form: str) -> None:
    """`retry_on=OSError, give_up_on=Broken`: the rest ends at once, and says that it is not retryable."""
    jobs = {what: daemon.submit(form, what, "never", retries=1)["id"] for what in ("busy", "broken", "value")}
    ended = {what: daemon.done(job) for what, job in jobs.items()}
    told = {what: (job["state"], job["attempt"], job["error"]["retryable"]) for what, job in ended.items()}
    assert told == {
        "busy": ("failed", 2, True),
        "broken": ("failed", 1, False),
        "value": ("failed", 1, False),
    }
    assert ended["broken"]["error"]["type"] == "tasks_under_test.Broken"


@pytest.mark.parametrize(("code", "attempts", "retryable"), [(75, 3, True), (1, 1, False)])
def test_commands_are_worth_a_retry_by_their_exit_code(
    daemon: Daemon, code: int, attempts: int, *, retryable: bool
) -> None:
    ended = daemon.done(daemon.submit("shell", f"exit {code}")["id"])
    assert (ended["state"], ended["attempt"]) == ("failed", attempts)
    error: dict[str, Any] = ended["error"]
    assert (error["kind"], error["exit"]["code"], error["retryable"]) == ("crashed", code, retryable)


# -- who is to blame ----------------------------------------------------------------------------------------------


def test_segfault_on_a_thread_fails_its_own_job_and_no_other(daemon: Daemon) -> None:
    """F13: the coroutines beside it lose no attempt and run again in the next worker."""
    jobs = [daemon.submit("held_loop", "blame-gate")["id"] for _ in range(20)]
    for job in jobs:
        daemon.first_item(job)
    guilty = daemon.done(daemon.submit("segfault")["id"])
    assert (guilty["state"], guilty["error"]["kind"]) == ("failed", "crashed")
    assert guilty["error"]["exit"]["name"] == "SIGSEGV"
    for job in jobs:
        daemon.first_item(job, epoch=2)
    daemon.open_gate("blame-gate")
    assert [daemon.succeeded(job) for job in jobs] == [2] * 20
    assert {daemon.job(job)["attempt"] for job in jobs} == {1}
