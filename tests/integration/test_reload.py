"""New code while jobs run: the old attempts end on the old code, the next ones run the new, and no job is lost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.integration.daemon import TASKS_MODULE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.conftest import StartDaemon
    from tests.integration.daemon import Daemon

TASKS = """
import asyncio, time
from pathlib import Path
from jobsvc import Context, command, task

VERSION = 1

def wait_for(gate):
    while not Path(gate).exists():
        time.sleep(0.005)

@task(executor="process")
def version() -> int:
    return VERSION

@task
def version_thread() -> int:
    return VERSION

@task
async def version_loop() -> int:
    return VERSION

@task(executor="process")
def held(ctx: Context) -> int:
    ctx.emit(VERSION)
    wait_for("gate")
    return VERSION

@task
def held_thread(ctx: Context) -> int:
    ctx.emit(VERSION)
    wait_for("gate")
    return VERSION

@task
async def held_loop(ctx: Context) -> int:
    ctx.emit(VERSION)
    while not Path("gate").exists():
        await asyncio.sleep(0.01)
    return VERSION

say = command("say", ["echo", "1"])

@task
def passing(n: int = 0) -> int:
    return n
"""
NEW = TASKS.replace("VERSION = 1", "VERSION = 2").replace('["echo", "1"]', '["echo", "2"]')
DYING = """
@task(executor="process")
def die() -> None:
    import os
    os._exit(1)
"""
GONE = TASKS[: TASKS.index("@task\ndef passing")]
HELD = ("held", "held_thread", "held_loop")
FRESH = ("version", "version_thread", "version_loop")


def ask_reload(daemon: Daemon) -> None:
    """By HTTP."""
    reply = daemon.post("/v1/reload")
    assert reply.status_code == 200, reply.text
    assert "version" in reply.json()["tasks"]


def command_reload(daemon: Daemon) -> None:
    """By the command."""
    done = daemon.cli("reload")
    assert (done.returncode, done.stderr) == (0, "")


def nothing(daemon: Daemon) -> None:
    """The daemon sees by itself that the file has changed."""
    daemon.wait_log("reloaded: ")


@pytest.mark.parametrize(
    ("options", "reload"),
    [((), ask_reload), ((), command_reload), (("--reload",), nothing)],
    ids=["http", "cli", "watch"],
)
def test_running_jobs_finish_on_the_old_code_and_new_ones_run_the_new(
    start_daemon: StartDaemon, options: tuple[str, ...], reload: Callable[[Daemon], None]
) -> None:
    """On every executor, however the reload was asked for; nothing runs twice."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1", *options)
    old = {task: daemon.submit(task)["id"] for task in HELD}
    assert {daemon.first_item(job) for job in old.values()} == {1}
    before = {row["pid"] for kind in ("io", "cpu") for row in daemon.workers(kind)}
    daemon.write_tasks(NEW)
    reload(daemon)
    for task in FRESH:
        assert daemon.succeeded(daemon.submit(task)["id"]) == 2, task
    assert daemon.first_item(daemon.submit("say")["id"]) == "2"
    daemon.open_gate()
    for task, job in old.items():
        assert daemon.succeeded(job) == 1, task
        assert daemon.job(job)["epoch"] == 1, task
    daemon.wait_for("the end of the old workers", lambda: not before & alive(daemon), 30)


def alive(daemon: Daemon) -> set[int]:
    """The workers' process ids."""
    return {row["pid"] for row in daemon.get("/v1/workers").json()["workers"]}


class Stream:
    """Clients that submit without pause until they are told to stop; every submit must be accepted."""

    def __init__(self, daemon: Daemon, clients: int = 2) -> None:
        self._daemon = daemon
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self.jobs: list[str] = []
        self._pool = ThreadPoolExecutor(clients)
        self._running = [self._pool.submit(self._run, client) for client in range(clients)]

    def _run(self, client: int) -> None:
        tasks = FRESH if client else FRESH[::-1]
        while not self._stop.is_set():
            jobs = [self._daemon.submit(task)["id"] for task in tasks]
            with self._changed:
                self.jobs += jobs
                self._changed.notify_all()

    def wait_more(self, more: int) -> None:
        """Until so many further ones were accepted."""
        with self._changed:
            goal = len(self.jobs) + more
            assert self._changed.wait_for(lambda: len(self.jobs) >= goal or self._ended(), timeout=60)
        assert not self._ended()

    def _ended(self) -> bool:
        return any(client.done() for client in self._running)

    def stop(self) -> list[str]:
        """The ids of all jobs."""
        self._stop.set()
        for client in self._running:
            client.result(timeout=60)
        self._pool.shutdown()
        return self.jobs


def test_no_job_is_lost_or_run_twice_under_a_constant_stream_of_submits(start_daemon: StartDaemon) -> None:
    """Three reloads in a row; each job has one attempt and a result of one of the versions, never an older one."""
    daemon = start_daemon(TASKS)
    stream = Stream(daemon)
    for number in range(2, 5):
        stream.wait_more(30)
        daemon.write_tasks(TASKS.replace("VERSION = 1", f"VERSION = {number}"))
        ask_reload(daemon)
        after = [daemon.submit(task)["id"] for task in FRESH]
        assert [daemon.succeeded(job) for job in after] == [number] * len(after)
    stream.wait_more(30)
    jobs = stream.stop()
    rows = {job: daemon.done(job) for job in jobs}
    assert {row["result"] for row in rows.values()} <= {1, 2, 3, 4}
    assert {(row["state"], row["attempt"]) for row in rows.values()} == {("succeeded", 1)}
    # One that was handed over but not begun is recalled and claimed anew: that is no attempt.
    assert {len(daemon.attempts(job)) for job, row in rows.items() if row["epoch"] > 1} <= {1}


BROKEN = {
    "No module named 'no_such_module_anywhere'": TASKS + "\nimport no_such_module_anywhere\n",
    "SyntaxError": TASKS + "\ndef oops(:\n",
    "two tasks are called 'say'": TASKS + '\n@task(name="say")\ndef other() -> None: ...\n',
}


def test_broken_edit_is_refused_and_the_old_code_serves_on(start_daemon: StartDaemon) -> None:
    """409 with the traceback; the command says the same and fails; jobs go on running, on the same workers."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1")
    held = daemon.submit("held_thread")["id"]
    daemon.first_item(held)
    before = alive(daemon)
    for words, broken in BROKEN.items():
        daemon.write_tasks(broken)
        refused = daemon.post("/v1/reload")
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert words in refused.json()["detail"]
        assert TASKS_MODULE in refused.json()["detail"]
        done = daemon.cli("reload")
        assert done.returncode == 5
        assert words in done.stderr
        for task in FRESH:
            assert daemon.succeeded(daemon.submit(task)["id"]) == 1
        assert before <= alive(daemon)
    daemon.open_gate()
    assert daemon.succeeded(held) == 1
    daemon.write_tasks(NEW)
    ask_reload(daemon)
    assert daemon.succeeded(daemon.submit("version")["id"]) == 2


def test_watched_module_may_be_broken_for_a_while(start_daemon: StartDaemon) -> None:
    """--reload: a broken edit is logged with its traceback, the next good one is taken."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1", "--reload")
    daemon.write_tasks("def oops(:\n")
    daemon.wait_log("reload failed, the old code serves on")
    daemon.wait_log("SyntaxError")
    assert daemon.succeeded(daemon.submit("version")["id"]) == 1
    daemon.write_tasks(NEW)
    daemon.wait_log("reloaded: ")
    assert daemon.succeeded(daemon.submit("version")["id"]) == 2


def test_worker_that_dies_while_the_module_is_broken_comes_back_with_the_next_good_edit(
    start_daemon: StartDaemon,
) -> None:
    """Nothing of the old code is left to start: its jobs wait, and run when the module is whole again."""
    daemon = start_daemon(TASKS + DYING, "--cpu-workers", "1")
    daemon.write_tasks("def oops(:\n")
    assert daemon.done(daemon.submit("die")["id"])["error"]["kind"] == "crashed"
    waiting = daemon.submit("version")["id"]
    assert daemon.succeeded(daemon.submit("version_thread")["id"]) == 1
    daemon.write_tasks(NEW)
    ask_reload(daemon)
    assert daemon.succeeded(waiting) == 2


def test_jobs_of_a_task_that_is_gone_wait_and_run_when_it_is_back(start_daemon: StartDaemon) -> None:
    """They keep their place, reason no_such_task; new submits of it are refused."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1", "--threads", "1")
    held = daemon.submit("held_thread")["id"]
    daemon.first_item(held)
    waiting = [daemon.submit("passing", n)["id"] for n in range(3)]
    daemon.write_tasks(GONE)
    ask_reload(daemon)
    daemon.open_gate()
    assert daemon.succeeded(held) == 1
    for job in waiting:
        assert daemon.until(job, lambda job: job["reason"] == "no_such_task")["state"] == "queued"
    refused = daemon.post("/v1/jobs", json={"task": "passing"})
    assert (refused.status_code, refused.json()["code"]) == (422, "no_such_task")
    assert daemon.stop() == 0
    daemon.start()
    assert {daemon.job(job)["state"] for job in waiting} == {"queued"}
    assert {daemon.job(job)["reason"] for job in waiting} == {"no_such_task"}
    daemon.write_tasks(TASKS)
    ask_reload(daemon)
    assert [daemon.succeeded(job) for job in waiting] == [0, 1, 2]


def test_stored_arguments_that_no_longer_fit_are_rejected(start_daemon: StartDaemon) -> None:
    """The task is there and refuses what is stored: failed, rejected, without another try."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1")
    later = daemon.submit("passing", 7, delay_s=3600, retries=3)["id"]
    daemon.write_tasks(TASKS.replace("passing(n: int = 0) -> int", "passing(n: str) -> str"))
    ask_reload(daemon)
    assert daemon.post(f"/v1/jobs/{later}/run").status_code == 200
    ended = daemon.done(later)
    assert (ended["state"], ended["error"]["kind"], ended["error"]["retryable"]) == (
        "failed",
        "rejected",
        False,
    )
