"""A stop that stops: what each cancel mode does on each executor, told by what is left running."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.tasks import TASKS
from tests.integration.daemon import Daemon, running
from tests.integration.processes import alive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.daemon import WheelEnv

NOW = {"mode": "now"}
SOON = {"mode": "deadline", "grace_s": 0.2}


@pytest.fixture(scope="module")
def daemon(wheel_env: WheelEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all of them: a stop leaves it as it was."""
    folder = tmp_path_factory.mktemp("stops")
    with running(Daemon(wheel_env, folder, ("--cpu-workers", "2")), TASKS) as started:
        yield started


def cancel(daemon: Daemon, job: str, body: dict[str, Any] | None = None) -> None:
    """Ask for it; it must be accepted."""
    reply = daemon.post(f"/v1/jobs/{job}/cancel", json=body or {})
    assert (reply.status_code, reply.json()["state"]) == (202, "stopping"), reply.text


def items(daemon: Daemon, job: str, number: int) -> list[Any]:
    """The first items of a running job."""
    lines = daemon.lines(f"/v1/jobs/{job}/streams/out")
    try:
        return [next(lines)["data"] for _ in range(number)]
    finally:
        lines.close()


# -- processes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [NOW, SOON], ids=["now", "deadline"])
@pytest.mark.parametrize("task", ["deaf", "in_c_code", "endless", "stop_myself"])
def test_process_that_does_not_listen_is_killed(daemon: Daemon, task: str, body: dict[str, Any]) -> None:
    """F17, F18, F19: SIGTERM blocked, the interpreter held in C code, an endless loop, stopped by SIGSTOP: `now` and
    `deadline` end it, and `cancelled` is not seen before it is gone.
    """  # fmt: skip
    job = daemon.submit(task, retries=3)["id"]
    pid = daemon.first_item(job)
    cancel(daemon, job, body)
    ended = daemon.done(job)
    assert (ended["state"], ended["error"]["kind"], ended["epoch"]) == ("cancelled", "cancelled", 1)
    assert not alive(pid)


def test_whole_tree_is_gone_when_a_process_is_cancelled(daemon: Daemon) -> None:
    """F20: with `now`, the attempt's children, also in other sessions and forked twice, are gone at `cancelled`."""
    job = daemon.submit("parent", "never")["id"]
    family = daemon.first_item(job)
    cancel(daemon, job, NOW)
    assert daemon.done(job)["state"] == "cancelled"
    assert [pid for pid in family if alive(pid)] == []


def test_polite_kills_nothing(daemon: Daemon) -> None:
    """`polite` asks and waits; a later `now` kills."""
    job = daemon.submit("endless")["id"]
    pid = daemon.first_item(job)
    cancel(daemon, job)
    assert daemon.job(job, wait_s=0.5)["state"] == "stopping"
    assert alive(pid)
    cancel(daemon, job, NOW)
    assert daemon.done(job)["state"] == "cancelled"
    assert not alive(pid)


@pytest.mark.parametrize("task", ["count_process", "count_thread"])
def test_generator_stops_at_its_next_yield(daemon: Daemon, task: str) -> None:
    """A generator that never asks is stopped by `polite` at a yield; its own clean-up runs before `cancelled`."""
    log = daemon.folder / f"{task}.log"
    job = daemon.submit(task, str(log))["id"]
    daemon.first_item(job)
    cancel(daemon, job)
    assert daemon.done(job)["state"] == "cancelled"
    assert int(log.read_text()) >= 0


# -- commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [None, SOON], ids=["polite", "deadline"])
def test_command_is_asked_by_sigterm(daemon: Daemon, body: dict[str, Any] | None) -> None:
    """SIGTERM ends the program and its group; what had left the group is gone as well at `cancelled`."""
    job = daemon.submit("parent_command")["id"]
    family = [int(pid) for pid in items(daemon, job, 3)]
    cancel(daemon, job, body)
    ended = daemon.done(job)
    assert (ended["state"], ended["error"]["exit"]["name"]) == ("cancelled", "SIGTERM")
    assert [pid for pid in family if alive(pid)] == []


@pytest.mark.parametrize("body", [NOW, SOON], ids=["now", "deadline"])
def test_command_that_ignores_sigterm_is_killed(daemon: Daemon, body: dict[str, Any]) -> None:
    """F17: it traps SIGTERM and has a child in another session: all of it is killed after the grace, or at once."""
    job = daemon.submit("deaf_command")["id"]
    family = [int(pid) for pid in items(daemon, job, 2)]
    cancel(daemon, job, body)
    ended = daemon.done(job)
    assert (ended["state"], ended["error"]["exit"]["name"]) == ("cancelled", "SIGKILL")
    assert [pid for pid in family if alive(pid)] == []


def test_command_that_ignores_sigterm_survives_a_polite_cancel(daemon: Daemon) -> None:
    """F17: `polite` never kills: it is `stopping` and runs."""
    job = daemon.submit("deaf_command")["id"]
    family = [int(pid) for pid in items(daemon, job, 2)]
    cancel(daemon, job)
    assert daemon.job(job, wait_s=0.5)["state"] == "stopping"
    assert any(map(alive, family))
    cancel(daemon, job, NOW)
    assert daemon.done(job)["state"] == "cancelled"
    assert not any(map(alive, family))


def test_timeout_kills_a_command_that_ignores_sigterm(daemon: Daemon) -> None:
    """F17: the `run` timeout asks, and a second later kills the whole tree."""
    job = daemon.submit("deaf_command", timeouts={"run": 0.3})["id"]
    family = [int(pid) for pid in items(daemon, job, 2)]
    assert daemon.done(job)["error"]["kind"] == "timeout"
    assert not any(map(alive, family))


# -- threads ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [NOW, SOON], ids=["now", "deadline"])
def test_refused_kill_of_a_thread_changes_nothing(daemon: Daemon, body: dict[str, Any]) -> None:
    """409 `cannot_kill`: the job and its events are the same afterwards, to the byte; then `polite` works."""
    gate = f"late-{body['mode']}"
    job = daemon.submit("late_thread", gate)["id"]
    daemon.first_item(job)
    before = daemon.get(f"/v1/jobs/{job}")
    events = list(daemon.lines(f"/v1/jobs/{job}/events", params={"follow": "0"}))
    refused = daemon.post(f"/v1/jobs/{job}/cancel", json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "cannot_kill")
    after = daemon.get(f"/v1/jobs/{job}")
    assert (after.content, after.headers["ETag"]) == (before.content, before.headers["ETag"])
    assert list(daemon.lines(f"/v1/jobs/{job}/events", params={"follow": "0"})) == events
    cancel(daemon, job)
    assert daemon.job(job)["state"] == "stopping", "until it looks"
    daemon.open_gate(gate)
    ended = daemon.done(job)
    assert (ended["state"], ended["revision"]) == ("cancelled", before.json()["revision"] + 2)


def test_orphaned_threads_cost_their_neighbours_nothing(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """Threads past their timeout are given up; when they are too many the io worker is replaced: its other attempts
    end where they are, uncounted and once, new ones start in the new one, and the old one goes.
    """  # fmt: skip
    options = ("--cpu-workers", "1", "--threads", "8")
    with running(Daemon(wheel_env, tmp_path, options), TASKS) as daemon:
        neighbours = [daemon.submit(task, "neighbours")["id"] for task in ("held_thread", "held_loop")]
        [old] = {daemon.first_item(job) for job in neighbours}
        orphans = [daemon.submit("held_thread", "orphans", timeouts={"run": 0.2})["id"] for _ in range(2)]
        for job in orphans:
            assert daemon.done(job)["error"]["kind"] == "timeout"
        daemon.wait_for(
            "another io worker",
            lambda: any(row["state"] == "ready" and row["pid"] != old for row in daemon.workers("io")),
            30,
        )
        fresh = daemon.submit("held_thread", "neighbours")["id"]
        assert daemon.first_item(fresh) != old
        daemon.open_gate("neighbours")
        assert [daemon.succeeded(job) for job in (*neighbours, fresh)] == [1, 1, 1]
        daemon.wait_for("the end of the old worker", lambda: not alive(old), 30)


# -- coroutines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [None, SOON, NOW], ids=["polite", "deadline", "now"])
def test_coroutine_stops_at_its_next_await(daemon: Daemon, body: dict[str, Any] | None) -> None:
    """All modes cancel it where it waits; its worker and its neighbours go on."""
    neighbour = daemon.submit("held_loop", f"beside-{body}")["id"]
    job = daemon.submit("held_loop", "never")["id"]
    pid = daemon.first_item(job)
    cancel(daemon, job, body)
    assert daemon.done(job)["state"] == "cancelled"
    daemon.open_gate(f"beside-{body}")
    assert daemon.succeeded(neighbour) == 1
    assert daemon.workers("io")[0]["pid"] == pid


def test_deaf_coroutine_costs_its_worker_and_no_neighbour(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """`now` on a coroutine that swallows it: the worker is replaced; the neighbours end where they are, and then the
    old worker goes and the job is `cancelled`.
    """  # fmt: skip
    with running(Daemon(wheel_env, tmp_path, ("--cpu-workers", "1")), TASKS) as daemon:
        neighbours = [daemon.submit(task, "neighbours")["id"] for task in ("held_thread", "held_loop")]
        job = daemon.submit("deaf_loop")["id"]
        [old] = {daemon.first_item(one) for one in (*neighbours, job)}
        cancel(daemon, job, NOW)
        daemon.wait_for(
            "another io worker",
            lambda: any(row["state"] == "ready" and row["pid"] != old for row in daemon.workers("io")),
            30,
        )
        fresh = daemon.submit("held_loop", "neighbours")["id"]
        assert daemon.first_item(fresh) != old
        assert daemon.job(job)["state"] == "stopping"
        daemon.open_gate("neighbours")
        assert [daemon.succeeded(one) for one in (*neighbours, fresh)] == [1, 1, 1]
        assert daemon.done(job)["state"] == "cancelled"
        assert not alive(old)


# -- workers without a timeout ------------------------------------------------------------------------------------


def test_stopped_workers_are_noticed(daemon: Daemon) -> None:
    """F19: stopped by a signal and never continued: an io worker's attempts run again in another one, uncounted; a
    process task that stops itself has failed, `stalled`.
    """  # fmt: skip
    jobs = [daemon.submit("held_loop", "stopped")["id"] for _ in range(2)]
    [pid] = {daemon.first_item(job) for job in jobs}
    stopped = daemon.submit("stop_myself")["id"]
    process = daemon.first_item(stopped)
    os.kill(pid, signal.SIGSTOP)
    assert {daemon.first_item(job, epoch=2) for job in jobs}.isdisjoint({pid})
    daemon.open_gate("stopped")
    assert [daemon.succeeded(job) for job in jobs] == [2, 2]
    assert {daemon.job(job)["attempt"] for job in jobs} == {1}
    error = daemon.done(stopped)["error"]
    assert (error["kind"], "stopped by a signal" in error["message"]) == ("stalled", True)
    assert not alive(process)
