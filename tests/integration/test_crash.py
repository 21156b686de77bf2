"""What a crash costs: of a worker its own attempts, of the daemon nothing that was acknowledged; and the drain."""

from __future__ import annotations

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.integration.daemon import Daemon, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import StartDaemon
    from tests.integration.daemon import WheelEnv

TASKS = """
import asyncio, ctypes, os, signal, time
from pathlib import Path
from jobsvc import Context, command, task

def wait_for(gate):
    while not Path(gate).exists():
        time.sleep(0.005)

@task(executor="process")
def add(a: int, b: int) -> int:
    return a + b

@task(executor="process")
def held(ctx: Context, gate: str) -> int:
    ctx.emit(os.getpid())
    wait_for(gate)
    return ctx.epoch

@task
def held_thread(ctx: Context, gate: str) -> int:
    ctx.emit(os.getpid())
    wait_for(gate)
    return ctx.epoch

@task
async def held_loop(ctx: Context, gate: str) -> int:
    ctx.emit(os.getpid())
    while not Path(gate).exists():
        await asyncio.sleep(0.01)
    return ctx.epoch

held_command = command("held_command", ["sh", "-c", "echo $$; until [ -e {gate} ]; do sleep 0.02; done"])

@task(executor="process")
def deaf(ctx: Context) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    ctx.emit(os.getpid())
    while True:
        time.sleep(60)

@task(executor="process")
def leave(code: int) -> None:
    print("last words", flush=True)
    os._exit(code)

@task(executor="process")
def segfault() -> None:
    ctypes.string_at(0)

@task(executor="process")
def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

@task
def exit_of_thread() -> None:
    raise SystemExit(3)
"""

CLIENTS = 4
ACKNOWLEDGED_BEFORE_KILL = 400
BATCH_LINES = 50


@pytest.fixture(scope="module")
def daemon(wheel_env: WheelEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the deaths of workers: they must not trouble it."""
    folder = tmp_path_factory.mktemp("crash")
    with running(Daemon(wheel_env, folder, ("--cpu-workers", "2")), TASKS) as started:
        yield started


# -- workers ------------------------------------------------------------------------------------------------------


def test_killed_cpu_worker_costs_its_own_attempt_alone(daemon: Daemon) -> None:
    """Killed by SIGKILL: the running attempt is lost and runs again uncounted; its neighbour is not touched."""
    first, second = (daemon.submit("held", "cpu-gate")["id"] for _ in range(2))
    victim, other = daemon.first_item(first), daemon.first_item(second)
    waiting = [daemon.submit("add", n, 1)["id"] for n in range(20)]
    os.kill(victim, signal.SIGKILL)
    assert daemon.first_item(first, epoch=2) not in {victim, other}
    daemon.open_gate("cpu-gate")
    assert daemon.succeeded(first) == 2
    assert daemon.succeeded(second) == 1
    assert [daemon.succeeded(job) for job in waiting] == list(range(1, 21))
    lost, again = daemon.attempts(first)
    assert (lost["epoch"], lost["attempt"], lost["state"]) == (1, 1, "lost")
    assert (again["epoch"], again["attempt"], again["state"]) == (2, 1, "succeeded")
    assert [row["epoch"] for row in daemon.attempts(second)] == [1]
    assert all(daemon.job(job)["epoch"] == 1 for job in waiting), "what had not begun lost nothing"


def test_lost_attempt_of_at_most_once_job_ends_it(daemon: Daemon) -> None:
    """on_lost=fail: it fails as lost and is not started again."""
    job = daemon.submit("held", "never", on_lost="fail")["id"]
    os.kill(daemon.first_item(job), signal.SIGKILL)
    ended = daemon.done(job)
    assert (ended["state"], ended["error"]["kind"], ended["epoch"]) == ("failed", "lost", 1)


@pytest.mark.parametrize(
    ("task", "args", "exit_"),
    [
        ("leave", [3], {"code": 3, "signal": None, "name": None, "oom": False}),
        ("segfault", [], {"code": None, "signal": 11, "name": "SIGSEGV", "oom": False}),
    ],
)
def test_worker_that_dies_by_its_job_is_a_crash_that_counts(
    daemon: Daemon, task: str, args: list[Any], exit_: dict[str, Any]
) -> None:
    """os._exit and a segmentation fault: kind crashed with how it ended; each try counts."""
    job = daemon.submit(task, *args, retries=1, backoff={"base_s": 0})["id"]
    ended = daemon.done(job)
    assert (ended["state"], ended["error"]["kind"]) == ("failed", "crashed"), ended
    shown = {"code": None, "signal": None, "name": None, "oom": False, **ended["error"]["exit"]}
    assert shown == exit_
    assert (ended["attempt"], ended["max_attempts"], ended["epoch"]) == (2, 2, 2)
    assert [row["state"] for row in daemon.attempts(job)] == ["failed", "failed"]


def test_last_words_of_a_crashed_worker_are_kept(daemon: Daemon) -> None:
    """What the job printed before os._exit is in its log, before its outcome."""
    job = daemon.submit("leave", 4)["id"]
    daemon.done(job)
    kinds = [(event["kind"], event["data"].get("message")) for event in daemon.events(job)]
    assert ("log", "last words") in kinds
    assert kinds[-1][0] == "end"


def test_job_that_is_lost_three_times_is_given_up(daemon: Daemon) -> None:
    """A job that gets its worker killed with SIGKILL is poison: the third loss fails it."""
    ended = daemon.done(daemon.submit("kill_myself")["id"])
    assert (ended["state"], ended["error"]["kind"], ended["epoch"]) == ("failed", "lost", 3)


def test_system_exit_in_a_task_is_its_error_alone(daemon: Daemon) -> None:
    """SystemExit ends the attempt, not the worker."""
    before = daemon.workers("io")[0]["pid"]
    ended = daemon.done(daemon.submit("exit_of_thread")["id"])
    assert (ended["error"]["kind"], ended["error"]["type"]) == ("crashed", "SystemExit")
    assert ended["error"]["exit"]["code"] == 3
    assert daemon.workers("io")[0]["pid"] == before


def test_killed_io_worker_runs_all_its_attempts_again(daemon: Daemon) -> None:
    """A hundred coroutines and a few threads on it: all run again, none is counted or forgotten."""
    jobs = [daemon.submit("held_loop", "io-gate")["id"] for _ in range(100)]
    jobs += [daemon.submit("held_thread", "io-gate")["id"] for _ in range(8)]
    pids = {daemon.first_item(job) for job in jobs}
    (worker,) = daemon.workers("io")
    assert pids == {worker["pid"]}
    os.kill(worker["pid"], signal.SIGKILL)
    again = {daemon.first_item(job, epoch=2) for job in jobs}
    assert len(again) == 1
    assert again != pids
    daemon.open_gate("io-gate")
    assert [daemon.succeeded(job) for job in jobs] == [2] * len(jobs)
    assert {daemon.job(job)["attempt"] for job in jobs} == {1}


# -- the daemon ---------------------------------------------------------------------------------------------------


class Uploads:
    """Clients that send batches without end and write down every id that was acknowledged, and every key sent."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._url, self._token = daemon.url, daemon.token
        self._changed = threading.Condition()
        self.sent: set[str] = set()
        self.acknowledged: dict[str, str] = {}
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._running = [self._pool.submit(self._run, client) for client in range(CLIENTS)]

    def _run(self, client: int) -> None:
        with httpx2.Client(
            base_url=self._url, headers={"Authorization": f"Bearer {self._token}"}, trust_env=False
        ) as http:
            batch = 0
            while True:
                keys = [f"{client}-{batch}-{line}" for line in range(BATCH_LINES)]
                batch += 1
                with self._changed:
                    self.sent.update(keys)
                try:
                    with http.stream("POST", "/v1/jobs/bulk?live=1", content=body_of(keys)) as reply:
                        for line in reply.iter_lines():
                            self._note(keys, line)
                except httpx2.TransportError:
                    return  # the daemon is dead

    def _note(self, keys: list[str], text: str) -> None:
        if not text:
            return
        line = json.loads(text)
        with self._changed:
            self.acknowledged[keys[line["line"] - 1]] = line["id"]
            self._changed.notify_all()

    def wait_acknowledged(self, number: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.acknowledged) >= number, timeout=60)

    def wait_ended(self) -> None:
        for client in self._running:
            client.result(timeout=60)
        self._pool.shutdown()


def body_of(keys: list[str]) -> bytes:
    """Bulk lines, one per key."""
    return b"".join(json.dumps({"task": "add", "args": [1, 2], "key": key}).encode() + b"\n" for key in keys)


def test_killed_daemon_keeps_all_it_acknowledged(start_daemon: StartDaemon) -> None:
    """Killed by SIGKILL in the middle of bulk uploads: every acknowledged job is there, ends, and is there once."""
    daemon = start_daemon(TASKS)
    held = [daemon.submit("held", "after")["id"], daemon.submit("held_thread", "after")["id"]]
    held += [daemon.submit("held_loop", "after")["id"], daemon.submit("held_command", "after")["id"]]
    for job in held:
        daemon.first_item(job)
    uploads = Uploads(daemon)
    uploads.wait_acknowledged(ACKNOWLEDGED_BEFORE_KILL)
    daemon.kill()
    uploads.wait_ended()
    daemon.wait_no_orphans()

    daemon.start()
    for job in held:  # no waiting here: what was interrupted had to be queued before /readyz said ready
        again = daemon.job(job)
        assert (again["state"], again["epoch"]) in {("queued", 1), ("running", 2)}, again
        assert daemon.attempts(job)[0]["state"] == "lost"
    daemon.open_gate("after")
    keys = sorted(uploads.sent)
    replies = list(
        daemon.lines("/v1/jobs/bulk", method="POST", content=body_of(keys), params={"follow": "out"})
    )
    ids = {keys[line["line"] - 1]: line["id"] for line in replies if "state" not in line}
    assert {key: ids[key] for key in uploads.acknowledged} == uploads.acknowledged
    assert len(set(ids.values())) == len(keys)
    outcomes = [line for line in replies if "state" in line]
    assert len(outcomes) == len(keys)
    assert {(line["state"], line["result"]) for line in outcomes} == {("succeeded", 3)}
    assert {daemon.done(job)["state"] for job in held} == {"succeeded"}
    stored: list[str] = []
    cursor = None
    while True:
        page = daemon.get("/v1/jobs", params={"limit": 1000, **({"cursor": cursor} if cursor else {})}).json()
        stored += [job["id"] for job in page["jobs"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert sorted(stored) == sorted([*ids.values(), *held])


def test_daemon_that_is_killed_again_and_again_poisons_no_job(start_daemon: StartDaemon) -> None:
    """Losses by the daemon's own death never count against a job."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1")
    job = daemon.submit("held", "late")["id"]
    for epoch in range(1, 4):
        daemon.first_item(job, epoch=epoch)
        daemon.kill()
        daemon.start()
    daemon.first_item(job, epoch=4)
    daemon.open_gate("late")
    assert daemon.succeeded(job) == 4
    assert daemon.job(job)["attempt"] == 1


# -- the drain ----------------------------------------------------------------------------------------------------


def test_drain_waits_for_what_runs_and_refuses_what_comes(start_daemon: StartDaemon) -> None:
    """SIGTERM: not ready, submits 503 with Retry-After, reads answered; the running job ends; exit 0."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1")
    job = daemon.submit("held", "drain-gate")["id"]
    queued = daemon.submit("held", "drain-gate")["id"]
    daemon.first_item(job)
    daemon.process.send_signal(signal.SIGTERM)
    daemon.wait_for("a daemon that drains", lambda: not daemon.is_ready(), 30)
    for path, body in (("/v1/jobs", {"task": "add", "args": [1, 2]}), ("/v1/tasks/add/call", [1, 2])):
        refused = daemon.post(path, json=body)
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert int(refused.headers["Retry-After"]) > 0
    refused = daemon.post("/v1/jobs/bulk", content=body_of(["late"]))
    assert refused.status_code == 503
    assert daemon.job(job)["state"] == "running"
    assert daemon.get("/v1/info").json()["draining"] is True
    daemon.open_gate("drain-gate")
    assert daemon.wait_exit() == 0
    daemon.wait_no_orphans()
    assert not (daemon.data_dir / "endpoint.json").exists()
    daemon.start()
    assert (daemon.job(job)["state"], daemon.job(job)["epoch"]) == ("succeeded", 1)
    assert daemon.succeeded(queued) == 1, "it had not begun: nothing was taken from it"


def test_drain_queues_again_what_does_not_end(start_daemon: StartDaemon) -> None:
    """After drain_s what runs on is stopped, queued with reason drained, and runs after the restart."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1", "--drain-s", "0.2")
    jobs = {
        task: daemon.submit(task, "second")["id"]
        for task in ("held", "held_thread", "held_loop", "held_command")
    }
    for job in jobs.values():
        daemon.first_item(job)
    with closing(daemon.lines(f"/v1/jobs/{jobs['held']}/events")) as events:
        next(events)
        assert daemon.stop() == 0
    daemon.wait_no_orphans()
    daemon.start()
    for task, job in jobs.items():
        first = daemon.attempts(job)[0]
        assert (first["epoch"], first["attempt"]) == (1, 1), task
        reasons = [e["data"]["reason"] for e in daemon.lines(f"/v1/jobs/{job}/events?follow=0&kinds=state")]
        assert "drained" in reasons, (task, reasons)
    daemon.open_gate("second")
    for task, job in jobs.items():
        daemon.succeeded(job)
        assert daemon.job(job)["attempt"] == 1, task
        assert daemon.job(job)["epoch"] == 2, task


def test_second_sigterm_shortens_the_drain(start_daemon: StartDaemon) -> None:
    """The drain of an hour ends at once; a job that hears nothing is killed and queued again."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1", "--drain-s", "3600")
    job = daemon.submit("deaf")["id"]
    daemon.first_item(job)
    daemon.process.send_signal(signal.SIGTERM)
    daemon.wait_for("a daemon that drains", lambda: not daemon.is_ready(), 30)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait_exit() == 0
    daemon.wait_no_orphans()
    daemon.start()
    daemon.first_item(job, epoch=2)
    assert daemon.attempts(job)[0]["state"] == "drained"
    cancelled = daemon.post(f"/v1/jobs/{job}/cancel", json={"mode": "now"})
    assert cancelled.status_code == 202
    assert daemon.done(job)["state"] == "cancelled"
