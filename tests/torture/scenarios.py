"""Directed scenarios: one daemon, a few jobs, and the very moment in which a certain bug would show.

Each writes history and effects as a random run does, and the same checks judge it. On the true product all are green.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.torture.checks.finding import Finding
from tests.torture.kinds import SECRET, JobSpec
from tests.torture.nemesis import kill_everything
from tests.torture.processes import send
from tests.torture.records import Line
from tests.torture.stage import QUIET_S, Stage, spec
from tests.torture.sut import DAY_S
from tests.torture.wire import Wire

FORGOTTEN_S: Final = 5.0
"""After a scenario in which a job may have been forgotten: until no job is left to do."""
HELD_S: Final = 2.5
"""How long the database is held: shorter than the daemon waits for a lock (5 s)."""
ITEMS: Final = 5
"""How many items are told before a kill."""

Act = Callable[[Stage], None]
Scenario = Callable[[Path, Path], list[Finding]]


def submit_not_committed(stage: Stage) -> None:
    """A submit whose commit has to wait, and a kill while it waits: only one that was not acknowledged may be gone."""
    other = Wire(stage.sut, stage.history, 1)
    job = spec("waits", "on_process")
    stage.specs.append(job)
    answered = threading.Event()
    told: list[Line] = []

    def submit() -> None:
        told.append(other.submit(job.body))
        answered.set()

    with stage.database_held() as database:
        threads = stage.meanwhile(submit)
        answered.wait(HELD_S)
        stage.sut.kill()
        database.execute("ROLLBACK")
        stage.start()
    threads[0].join()
    other.close()
    if told[0].type != "ok":  # who has an acknowledgement does not send it again
        stage.submit(job)


def outcome_not_committed(stage: Stage) -> None:
    """A job that ends while nothing can be committed: nobody may hear of its end before it can be read."""
    job = stage.submit(spec("ends", "on_process", "gate-ends"))
    stage.running("ends")
    waiting, reading = Wire(stage.sut, stage.history, 1), Wire(stage.sut, stage.history, 2)
    answered = threading.Event()

    def wait_then_read() -> None:
        waiting.status(job, 8)
        waiting.status(job)
        answered.set()

    threads = stage.meanwhile(wait_then_read, lambda: (reading.events(job, 0), reading.status(job)))
    with stage.database_held():
        stage.open("gate-ends")
        stage.wait_for("end of its code", lambda: stage.has_returned("ends"))
        answered.wait(HELD_S)
    for thread in threads:
        thread.join()
    waiting.close()
    reading.close()


def one_key(stage: Stage) -> None:
    """One key, sent by eight clients at once and then again."""
    job = spec("again", "on_process")
    stage.specs.append(job)
    wires = [Wire(stage.sut, stage.history, 1 + number) for number in range(8)]
    for thread in stage.meanwhile(*(lambda wire=wire: wire.submit(job.body) for wire in wires)):
        thread.join()
    for wire in wires:
        wire.close()
    stage.submit(job)


def killed_while_running(stage: Stage) -> None:
    """The daemon is killed while jobs of all kinds run, one that must not run twice and one that leaves a process."""
    jobs = [
        spec("a-process", "on_process", "gate-killed"),
        spec("a-thread", "on_thread", "gate-killed"),
        spec("a-loop", "on_loop", "gate-killed", stream=True),
        spec("once", "once", "gate-killed", ends=("failed",)),
        spec("leaver", "leaver", "gate-killed"),
    ]
    ids = {job.mark: stage.submit(job) for job in jobs}
    stage.running(*(job.mark for job in jobs))
    follower = Wire(stage.sut, stage.history, 1)
    before: list[Line] = []
    threads = stage.meanwhile(lambda: before.append(follower.events(ids["a-loop"], 0)))
    # What has been told by then must say the same after the restart.
    path = f"/v1/jobs/{ids['a-loop']}/streams/out?follow=0"
    stage.wait_for("items", lambda: stage.wire.raw("GET", path)[2].count(b"\n") > ITEMS)
    stage.restart()
    threads[0].join()
    # Of those that run again, the old attempt must be gone by now: while it is there it says so.
    stage.pause(lambda: stage.has_run("a-process", epoch=2))
    stage.open("gate-killed")
    last = max((last for _, last in before[0].ranges), default=0)
    stage.join(stage.meanwhile(lambda: follower.events(ids["a-loop"], last)))
    follower.close()


def cancel_of_one_that_is_deaf(stage: Stage) -> None:
    """A polite cancel of a job that does not listen: it is `cancelled` only when its code has stopped."""
    job = stage.submit(spec("deaf", "deaf", "gate-deaf", ends=("succeeded",)))
    stage.running("deaf")
    stage.wire.cancel(job, "polite")
    # What the cancel made the daemon write is written before the end of a later job is.
    stage.done(stage.submit(spec("after", "on_thread")))
    stage.wire.status(job)
    said = stage.lines_of("deaf")
    stage.wait_for("another effect", lambda: stage.lines_of("deaf") > said)
    stage.open("gate-deaf")
    stage.done(job)


def thread_past_its_timeout(stage: Stage) -> None:
    """A thread that goes on after its timeout, and a retry: the retry waits for the thread."""
    fields = {"timeouts": {"run": 0.3}, "retries": 1, "backoff": {"base_s": 0.0}}
    job = stage.submit(spec("overdue", "deaf_thread", "gate-overdue", **fields))
    stage.running("overdue")
    stage.wait_for(
        "timeout", lambda: stage.wire.status(job).state == "retrying" or stage.has_run("overdue", 2)
    )
    stage.pause(lambda: stage.has_run("overdue", epoch=2))
    stage.open("gate-overdue")
    stage.done(job)


def clock_step(stage: Stage) -> None:
    """The wall clock is set forward by a day while a job with a timeout runs: nothing happens."""
    job = stage.submit(spec("timed", "on_loop", "gate-timed", timeouts={"run": 600}))
    # Once the daemon has an item of it, it knows that the job runs, and its timeout counts.
    stage.wait_for("item", lambda: stage.wire.raw("GET", f"/v1/jobs/{job}/streams/out?follow=0")[2])
    stage.sut.set_clock(DAY_S)
    # Not at `stopping`: what is let go then may yet return before it is stopped.
    stage.pause(lambda: stage.wire.status(job).state not in ("running", "stopping"))
    stage.open("gate-timed")
    stage.done(job)
    stage.sut.set_clock(0)


def all_killed_at_once(stage: Stage) -> None:
    """Daemon, guard and workers die in one moment: what a job has left runs on until the next start ends it."""
    stage.submit(spec("left", "leaver", "gate-left"))
    stage.running("left")
    kill_everything(stage.sut)
    stage.start()
    stage.open("gate-left")
    stage.pause(lambda: stage.sut.lives[-2].orphans_gone_s is not None)


def stopped_while_running(stage: Stage) -> None:
    """SIGTERM, and again so that nothing is waited for: what ran is queued again, and is not lost."""
    marks = ("s-process", "s-loop")
    for mark, task in zip(marks, ("on_process", "on_loop"), strict=True):
        stage.submit(spec(mark, task, "gate-stopped"))
    stage.running(*marks)
    stage.sut.terminate()
    # Two at once might be taken for one.
    stage.wait_for("the first signal", lambda: stage.sut.logged(b"SIGTERM"))
    send(stage.sut.pid, signal.SIGTERM)
    stage.sut.ended()
    stage.open("gate-stopped")
    stage.start()


def a_secret(stage: Stage) -> None:
    """A job prints its secret."""
    job = JobSpec("secret", "secretive", {"n": 6, "word": f"{SECRET}-6"}, value=19)
    stage.done(stage.submit(job))


ACTS: Final[tuple[Act, ...]] = (
    one_key, outcome_not_committed, cancel_of_one_that_is_deaf, thread_past_its_timeout, clock_step, a_secret,
    submit_not_committed, killed_while_running, stopped_while_running, all_killed_at_once,
)  # fmt: skip
"""One does not disturb the next: on the true product all are played on one daemon."""


def played(*acts: Act, quiet_s: float = QUIET_S) -> Scenario:
    """These acts on a daemon of their own, and what the checks say."""

    def play(folder: Path, source: Path) -> list[Finding]:
        stage = Stage(folder, source)
        try:
            for act in acts:
                act(stage)
            return stage.finish(quiet_s)
        finally:
            stage.sut.close()

    return play
