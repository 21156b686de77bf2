"""Workers that die, hang, babble and lie: it costs their own attempt, and is called by its name."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.tasks import TASKS
from tests.integration.daemon import Daemon, running
from tests.integration.processes import alive, processes_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.daemon import WheelEnv

KILLS = 100
KILLED_AT_ONCE = 2
"""Both workers die, now and then in the same moment."""
LOSSES_FORGIVEN = 2
"""The third ends a job."""
SEED = 11
CPU_WORKERS = 2
PRINTED_MB = 30
"""More than a job may keep, many times over, at a fraction of the time a gigabyte takes."""
DAEMON_GROWTH_MAX_KIB = 60 * 1024
"""Half of it would be room enough; all that is printed would take twice as much, as bytes and as text."""
PROCESSES_MAX = 64


@pytest.fixture(scope="module")
def daemon(wheel_env: WheelEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all of them: nothing that a worker does may trouble it."""
    folder = tmp_path_factory.mktemp("workers")
    folder.chmod(0o755)
    options = ("--cpu-workers", str(CPU_WORKERS))
    with running(Daemon(wheel_env, folder, options), TASKS) as started:
        yield started


def rss_kib(pid: int) -> int:
    """Resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def cpu_pids(daemon: Daemon) -> set[int]:
    """Pids of the cpu workers that serve."""
    return {row["pid"] for row in daemon.workers("cpu") if row["pid"] and row["state"] == "ready"}


def next_attempt(daemon: Daemon, job: str, after: int) -> tuple[int, int]:
    """(epoch, pid) of the first attempt behind that epoch that has begun; a dying worker may hand a job back."""
    with closing(daemon.lines(f"/v1/jobs/{job}/streams/out", params={"epoch": "all"})) as items:
        for item in items:
            if item["epoch"] > after and not item.get("restart"):
                return item["epoch"], item["data"]
    pytest.fail(f"no attempt after {after}: {daemon.job(job)}")


# -- deaths -------------------------------------------------------------------------------------------------------


def test_a_hundred_kills_cost_a_hundred_attempts(daemon: Daemon) -> None:
    """F11: cpu workers killed by SIGKILL 100 times while jobs run: each kill is one attempt `lost` of the job
    that ran there, the job runs on, and the pool is as large as before, with all its slots.
    """  # fmt: skip
    chance = random.Random(SEED)
    jobs: dict[str, Counter[str]] = {}  # what is known of each, by job
    held: list[str] = []

    def hold_one() -> None:
        job = daemon.submit("held", f"kills-{len(jobs)}")["id"]
        jobs[job] = Counter(gate=len(jobs), epoch=0, losses=0)
        held.append(job)

    for _ in range(CPU_WORKERS):
        hold_one()
    for _ in range(KILLS // KILLED_AT_ONCE):
        victims = chance.sample(held, KILLED_AT_ONCE)
        running_now = [next_attempt(daemon, job, jobs[job]["epoch"]) for job in victims]
        for job, (epoch, pid) in zip(victims, running_now, strict=True):
            os.kill(pid, signal.SIGKILL)
            jobs[job].update(losses=1, epoch=epoch - jobs[job]["epoch"])
        for job in victims:
            if jobs[job]["losses"] == LOSSES_FORGIVEN:  # one more would end it: another job takes its place
                daemon.open_gate(f"kills-{jobs[job]['gate']}")
                held.remove(job)
                hold_one()
    for job in held:
        daemon.open_gate(f"kills-{jobs[job]['gate']}")
    assert sum(known["losses"] for known in jobs.values()) == KILLS
    for job, known in jobs.items():
        assert daemon.succeeded(job) > known["epoch"]
        *rows, last = daemon.attempts(job)
        assert [row["state"] for row in rows] == ["lost"] * known["losses"]
        assert {row["error"]["exit"]["name"] for row in rows} <= {"SIGKILL"}
        assert last["state"] == "succeeded"
        epochs = [row["epoch"] for row in (*rows, last)]
        assert epochs == sorted(set(epochs))
        assert {row["attempt"] for row in (*rows, last)} == {1}, "a loss counts for nothing"
        assert len({row["worker"] for row in rows}) == known["losses"]
    daemon.wait_for("all workers", lambda: len(cpu_pids(daemon)) == CPU_WORKERS, 30)
    last_ones = [daemon.submit("held", "slots")["id"] for _ in range(CPU_WORKERS)]
    pids_now = {daemon.first_item(job) for job in last_ones}
    assert pids_now == cpu_pids(daemon), "every slot of every worker is free"
    daemon.open_gate("slots")
    assert [daemon.succeeded(job) for job in last_ones] == [1] * CPU_WORKERS


@pytest.mark.parametrize("code", [3, 0])
def test_exit_without_a_report_is_a_crash(daemon: Daemon, code: int) -> None:
    """F12: a worker that exits under its attempt has crashed, with status 0 as well; it never succeeded."""
    ended = daemon.done(daemon.submit("leave", code)["id"])
    assert (ended["state"], ended["error"]["kind"], ended["result"]) == ("failed", "crashed", None)
    assert ended["error"]["exit"]["code"] == code
    assert str(code) in ended["error"]["message"]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGILL])
def test_crash_is_called_by_its_signal(daemon: Daemon, number: signal.Signals) -> None:
    """F13: null read, abort, illegal instruction: failed `crashed` with the signal, each try counts, and the job in
    the other worker goes on.
    """  # fmt: skip
    neighbour = daemon.submit("held", f"crash-{number}")["id"]
    daemon.first_item(neighbour)
    ended = daemon.done(daemon.submit("die", int(number), retries=1, backoff={"base_s": 0})["id"])
    assert (ended["state"], ended["error"]["kind"], ended["attempt"]) == ("failed", "crashed", 2)
    assert (ended["error"]["exit"]["signal"], ended["error"]["exit"]["name"]) == (number, number.name)
    daemon.open_gate(f"crash-{number}")
    assert daemon.succeeded(neighbour) == 1


def test_poison_job_blocks_nobody(daemon: Daemon) -> None:
    """F14: jobs that always kill their worker end as `lost` at their third loss, and those behind them run."""
    poison = [daemon.submit("die", int(signal.SIGKILL))["id"] for _ in range(3)]
    others = [daemon.submit("add", n)["id"] for n in range(20)]
    assert [daemon.succeeded(job) for job in others] == list(range(1, 21))
    for job in poison:
        ended = daemon.done(job)
        assert (ended["state"], ended["error"]["kind"], ended["epoch"]) == ("failed", "lost", 3)
        assert [row["state"] for row in daemon.attempts(job)] == ["lost", "lost", "failed"]


# -- hang ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["in_c_code", "endless", "stop_myself", "deaf"])
def test_deadline_is_kept_outside_the_worker(daemon: Daemon, task: str) -> None:
    """F17, F18, F19: holds the interpreter in C code, loops, has stopped itself, blocks SIGTERM: the `run` timeout
    ends it, and a new worker takes its place.
    """  # fmt: skip
    job = daemon.submit(task, timeouts={"run": 0.5})["id"]
    pid = daemon.first_item(job)
    ended = daemon.done(job)
    assert (ended["state"], ended["error"]["kind"]) == ("failed", "timeout")
    assert not alive(pid)
    daemon.wait_for("all workers", lambda: len(cpu_pids(daemon)) == CPU_WORKERS, 30)
    assert daemon.succeeded(daemon.submit("add", 1)["id"]) == 2


# -- babble -------------------------------------------------------------------------------------------------------


def test_garbage_is_kept_within_bounds(daemon: Daemon) -> None:
    """F23: NULs, escapes, broken UTF-8 and far too much of it on every descriptor that is not the channel: the job
    succeeds, its log is cut and readable, the daemon's memory stays flat.
    """  # fmt: skip
    before = rss_kib(daemon.pid)
    job = daemon.submit("print_garbage", PRINTED_MB)["id"]
    assert daemon.succeeded(job) == "printed"
    kept = 0
    gaps = 0
    texts = []
    for event in daemon.lines(f"/v1/jobs/{job}/events", params={"kinds": "log"}):
        gaps += event["kind"] == "gap"
        if event["kind"] == "log":
            kept += len(event["data"]["message"])
            texts.append(event["data"]["message"])
    assert kept <= 9_000_000
    assert gaps
    assert any("\x1b[31mred" in text and "\ufffd" in text and "\x00" in text for text in texts)
    assert rss_kib(daemon.pid) - before < DAEMON_GROWTH_MAX_KIB


def test_garbage_on_the_channel_costs_the_worker(daemon: Daemon) -> None:
    """F23: bytes that are no frame on the channel itself: the worker is killed and lost, the daemon goes on."""
    job = daemon.submit("garbage_on_channel", on_lost="fail")["id"]
    ended = daemon.done(job)
    assert (ended["state"], ended["error"]["kind"]) == ("failed", "lost")
    assert daemon.succeeded(daemon.submit("add", 1)["id"]) == 2


@pytest.mark.parametrize(
    ("what", "kind"),
    [("evil", "not_serialisable"), ("cyclic", "not_serialisable"), ("huge", "too_large")],
)
def test_result_that_cannot_be_kept(daemon: Daemon, what: str, kind: str) -> None:
    """F25: a class that would run code when unpickled, a cycle, 200 MB: refused by name, and nothing is unpickled."""
    ended = daemon.done(daemon.submit("give", what)["id"])
    assert (ended["state"], ended["error"]["kind"], ended["result"]) == ("failed", kind, None)
    assert not (daemon.folder / "unpickled").exists()


def test_result_that_is_no_number(daemon: Daemon) -> None:
    """F25: NaN becomes null, as JSON has no word for it."""
    job = daemon.done(daemon.submit("give", "nan")["id"])
    assert (job["state"], job["result"]) == ("succeeded", None)


# -- grow ---------------------------------------------------------------------------------------------------------


def test_fork_bomb_dies_out(daemon: Daemon) -> None:
    """F27: forks that fork, up to a limit on processes: refused inside, ended with the attempt; the daemon and the
    other worker do not notice.
    """  # fmt: skip
    neighbour = daemon.submit("held", "bomb")["id"]
    daemon.first_item(neighbour)
    job = daemon.submit("fork_bomb", PROCESSES_MAX, timeouts={"run": 2})["id"]
    pid = daemon.first_item(job)
    ended = daemon.done(job)
    kind = ended["error"] and ended["error"]["kind"]
    assert (ended["result"], kind) in {("refused", None), (None, "timeout")}
    assert daemon.succeeded(daemon.submit("add", 1)["id"]) == 2
    if alive(pid):  # it has returned; its children are helpers until their worker ends
        os.kill(pid, signal.SIGKILL)
    workers = {row["pid"] for row in daemon.get("/v1/workers").json()["workers"]}
    daemon.wait_for(
        "the end of the forks",
        lambda: len(set(processes_in(daemon.folder)) - workers - {daemon.pid}) <= CPU_WORKERS,
        30,
    )
    daemon.open_gate("bomb")
    assert daemon.succeeded(neighbour) == 1
