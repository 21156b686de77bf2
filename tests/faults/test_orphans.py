"""No orphans: whatever ends, and however, nothing that it has started runs on."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.tasks import TASKS
from tests.integration.daemon import ORPHAN_DEADLINE_S, START_DEADLINE_S, Daemon, running
from tests.integration.processes import alive, command_line, kill_process, processes_in, zombies_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import StartDaemon
    from tests.integration.daemon import WheelEnv

SHORT_JOBS = 10_000
FORKING_JOBS = 40
"""Of each kind; every one starts an interpreter, so they are fewer."""
ZOMBIES_KEPT = 16
"""What a worker may keep for code that still asks for its children's ends."""


@pytest.fixture(scope="module")
def daemon(wheel_env: WheelEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the tests that leave it alone."""
    folder = tmp_path_factory.mktemp("orphans")
    with running(Daemon(wheel_env, folder, ("--cpu-workers", "1")), TASKS) as started:
        yield started


def guard_of(daemon: Daemon) -> int | None:
    """The pid of its guard, whichever of its threads has started it."""
    threads = Path(f"/proc/{daemon.pid}/task").glob("*/children")
    children = [child for thread in threads for child in thread.read_text().split()]
    return next((int(pid) for pid in children if "guard.py" in command_line(int(pid))), None)


def wait_dead(daemon: Daemon, *pids: int) -> None:
    """Until none of them runs."""
    daemon.wait_for(f"the end of {pids}", lambda: not any(map(alive, pids)), ORPHAN_DEADLINE_S)


def start_families(daemon: Daemon, *tasks: str) -> dict[str, tuple[str, list[int]]]:
    """One attempt of each kind that has children, some of which have left tree and session: (job, pids) by task."""
    jobs = {task: daemon.submit(task, "families")["id"] for task in tasks or ("parent", "parent_thread")}
    families = {task: (job, daemon.first_item(job)) for task, job in jobs.items()}
    job = daemon.submit("parent_command")["id"]
    with daemon.http.stream("GET", f"/v1/jobs/{job}/streams/out", params={"bare": 1}) as reply:
        lines = reply.iter_lines()
        families["parent_command"] = (job, [int(next(lines).strip('"')) for _ in range(3)])
    assert all(alive(pid) for _, pids in families.values() for pid in pids)
    return families


def descriptors(pid: int) -> int:
    """How many it has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


# -- the daemon dies ----------------------------------------------------------------------------------------------


def test_killed_daemon_leaves_no_process(start_daemon: StartDaemon) -> None:
    """F05, F20: killed by SIGKILL alone: workers, commands, and what has left their sessions by forking twice are gone
    within 5 s; after the restart every job runs again, one epoch later.
    """  # fmt: skip
    daemon = start_daemon(TASKS, "--cpu-workers", "1")
    families = start_families(daemon)
    daemon.kill()
    daemon.wait_no_orphans()
    assert not any(alive(pid) for _, pids in families.values() for pid in pids)
    daemon.start()
    for job, _ in families.values():
        daemon.first_item(job, epoch=2)
        assert [row["state"] for row in daemon.attempts(job)] == ["lost", "running"]
    daemon.open_gate("families")


def test_daemon_and_workers_killed_at_once(start_daemon: StartDaemon) -> None:
    """F15: the daemon and all its workers at one blow: the same, since the guard lives."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1")
    families = start_families(daemon)
    workers = [row["pid"] for row in daemon.get("/v1/workers").json()["workers"] if row["pid"]]
    for pid in (daemon.pid, *workers, families["parent_command"][1][2]):
        kill_process(pid)  # on a busy machine a worker may have followed its daemon already
    daemon.wait_exit()
    daemon.wait_no_orphans()
    daemon.start()
    for job, _ in families.values():
        daemon.first_item(job, epoch=2)
    daemon.open_gate("families")


def test_next_start_ends_what_the_last_one_left(start_daemon: StartDaemon) -> None:
    """F15: the guard is killed and then the daemon: workers die with their parent; what has left their tree lives on
    until the next start, which ends it before it says ready.
    """  # fmt: skip
    daemon = start_daemon(TASKS, "--cpu-workers", "1")
    families = start_families(daemon)
    guard = guard_of(daemon)
    assert guard is not None
    os.kill(daemon.pid, signal.SIGSTOP)  # it would start another one
    os.kill(guard, signal.SIGKILL)
    daemon.kill()
    wait_gone = [pids[0] for task, (_, pids) in families.items() if task != "parent_command"]
    daemon.wait_end_of(wait_gone)
    far = [pids[-1] for task, (_, pids) in families.items() if task != "parent_command"]
    assert all(map(alive, far)), "nobody is left who could have ended them"
    daemon.start()
    assert not any(map(alive, far))
    assert "that an earlier start had left were killed" in daemon.log
    for job, _ in families.values():
        daemon.first_item(job, epoch=2)
    daemon.open_gate("families")


def test_guard_that_dies_is_started_again(start_daemon: StartDaemon) -> None:
    """The guard is killed: another one takes its place, and covers what was started before it."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1")
    families = start_families(daemon)
    first = guard_of(daemon)
    assert first is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(first, number)  # it does not listen
    os.kill(first, signal.SIGKILL)
    daemon.wait_log("the guard was ended by SIGKILL: it is started again")
    second = daemon.wait_for("another guard", lambda: guard_of(daemon), START_DEADLINE_S)
    assert second != first
    daemon.kill()
    daemon.wait_no_orphans()
    assert not any(alive(pid) for _, pids in families.values() for pid in pids)
    daemon.wait_end_of([second])


def test_clean_stop_leaves_nothing(start_daemon: StartDaemon) -> None:
    """After a drain nothing runs: neither what the attempts left nor the guard."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1", "--drain-s", "0.1")
    families = start_families(daemon, "parent")
    guard = guard_of(daemon)
    assert guard is not None
    assert daemon.stop() == 0
    assert not alive(guard)
    assert processes_in(daemon.folder) == []
    assert not any(alive(pid) for _, pids in families.values() for pid in pids)


# -- an attempt ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["twice", "apart"])
def test_attempt_leaves_nothing_in_other_sessions(daemon: Daemon, how: str) -> None:
    """F20: a process task that returns and has left a process in another session, by two forks or one: it is gone
    when the result is there, and the worker lives.
    """  # fmt: skip
    worker = daemon.workers("cpu")[0]["pid"]
    (left,) = daemon.succeeded(daemon.submit("leave_behind", how)["id"])
    wait_dead(daemon, left)
    assert daemon.workers("cpu")[0]["pid"] == worker


def test_attempt_cannot_leave_the_session_later(daemon: Daemon) -> None:
    """F20: what is still in the worker's session at the attempt's end, and leaves it afterwards, is ended as well."""
    (left,) = daemon.succeeded(daemon.submit("leave_behind", "late")["id"])
    wait_dead(daemon, left)


def test_helper_of_a_library_stays(daemon: Daemon) -> None:
    """What stays in the worker's session lives as long as the worker, over other attempts, and not longer."""
    (helper,) = daemon.succeeded(daemon.submit("leave_behind", "helper")["id"])
    for how in ("twice", "apart"):
        daemon.succeeded(daemon.submit("leave_behind", how)["id"])
    assert alive(helper)
    os.kill(daemon.workers("cpu")[0]["pid"], signal.SIGKILL)
    wait_dead(daemon, helper)
    assert daemon.succeeded(daemon.submit("add", 1)["id"]) == 2, "another worker is there"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_worker_that_dies_leaves_nothing(daemon: Daemon, number: signal.Signals) -> None:
    """F20: the worker of a running attempt dies by itself: what had left its tree is gone before it is replaced."""
    job = daemon.submit("parent", "never")["id"]
    worker, *family = daemon.first_item(job)
    os.kill(worker, number)
    if number == signal.SIGKILL:
        daemon.first_item(job, epoch=2)
        assert not any(map(alive, family))
        assert daemon.post(f"/v1/jobs/{job}/cancel", json={"mode": "now"}).status_code == 202
    assert daemon.done(job)["state"] == ("cancelled" if number == signal.SIGKILL else "failed")
    assert not any(map(alive, family))


def test_command_leaves_nothing(daemon: Daemon) -> None:
    """F20: a command that ends well and has left a process by forking twice: gone when its result is there."""
    job = daemon.submit("leave_command")["id"]
    assert daemon.succeeded(job) == {"code": 0}
    assert not alive(int(daemon.first_item(job)))


@pytest.mark.parametrize("task", ["hold_stdout", "hold_apart"])
def test_stdout_held_open_delays_no_end(daemon: Daemon, task: str) -> None:
    """F21: a process left behind holds the command's stdout: it is ended, and the command's end is told."""
    job = daemon.submit(task)["id"]
    assert daemon.succeeded(job) == {"code": 0}
    assert not alive(int(daemon.first_item(job)))


# -- many ends ----------------------------------------------------------------------------------------------------


def test_short_jobs_leave_no_zombies(daemon: Daemon) -> None:
    """F31: 10,000 short jobs, and those that start processes and do not wait for them: no zombie gathers at the daemon
    or its workers, and no descriptor stays open.
    """  # fmt: skip

    def run(task: str, args: str, number: int) -> None:
        body = f'{{"task":"{task}","args":{args}}}\n'.encode() * number
        ends = list(daemon.lines("/v1/jobs/bulk", method="POST", content=body, params={"follow": "out"}))
        states = [line["state"] for line in ends if "state" in line]
        assert states == ["succeeded"] * number

    def everything() -> None:
        run("short", '["twice"]', FORKING_JOBS)
        run("short", '["sh"]', FORKING_JOBS)
        run("quick_command", "{}", FORKING_JOBS)

    everything()  # what is opened once and kept is open now
    pids = [daemon.pid, *(row["pid"] for row in daemon.get("/v1/workers").json()["workers"] if row["pid"])]
    before = {pid: descriptors(pid) for pid in pids}
    run("add", "[1]", SHORT_JOBS)
    everything()
    worker = daemon.workers("cpu")[0]["pid"]
    assert worker in pids, "no job has cost its worker"
    assert zombies_of(daemon.pid) == []
    assert len(zombies_of(worker)) <= ZOMBIES_KEPT
    assert {pid: descriptors(pid) for pid in pids} == before
