"""Directed scenarios: one daemon, a few jobs, and the very moment in which a certain bug would show.

Each writes history and effects as a random run does, and the same checks judge it. On the true product all are green.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeVar

from tests.torture.checks import check
from tests.torture.checks.finding import Finding
from tests.torture.evidence import FINAL
from tests.torture.gather import gather, quiet
from tests.torture.kinds import JobSpec
from tests.torture.records import Effect, History, Line, read_lines
from tests.torture.sut import DAY_S, Sut
from tests.torture.wire import Wire

QUIET_S: Final = 30.0
"""After a scenario: until no job is left to do."""
FORGOTTEN_S: Final = 5.0
"""The same where a job may have been forgotten."""
PAUSE_S: Final = 1.5
"""How long is waited for what must not happen. A bug shows at once; the true product costs this time."""
MOMENT_S: Final = 15.0
"""How long a moment may be waited for."""
LOOK_S: Final = 0.01
HELD_S: Final = 2.5
"""How long the database is held: shorter than the daemon waits for a lock (5 s)."""

T = TypeVar("T")


class Stage:
    """A daemon with one client, and what happens on it."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.sut = Sut(folder, source, ("--cpu-workers", "4", "--drain-s", "3"))
        self._history_file = folder / "history"
        self.history = History(self._history_file)
        self.wire = Wire(self.sut, self.history, 0)
        self.specs: list[JobSpec] = []
        self._nobody = threading.Event()
        self.start()

    def start(self) -> None:
        """A new life of the daemon."""
        if not self.sut.start():
            raise RuntimeError(f"the daemon does not start: {self.sut.log_tail()}")

    def restart(self) -> None:
        """Kill the daemon and start it again."""
        self.sut.kill()
        self.start()

    def submit(self, spec: JobSpec) -> str:
        """The id of a new job; tried until it is definite."""
        if spec not in self.specs:
            self.specs.append(spec)
        while (line := self.wire.submit(spec.body)).type != "ok":
            if line.type == "fail":
                raise RuntimeError(f"refused with {line.status}: {line.why}")
        return line.job

    def acknowledged(self) -> bool:
        """Whether any submit has been."""
        ok = [line for line in read_lines(self._history_file, Line) if line.type == "ok"]
        return any(line.status in (200, 201) for line in ok)

    def wait_for(self, what: str, condition: Callable[[], T | None]) -> T:
        """The first true value of a condition."""
        give_up_at = monotonic() + MOMENT_S
        while not (value := condition()):
            if monotonic() > give_up_at:
                raise RuntimeError(f"no {what} within {MOMENT_S:g} s: {self.sut.log_tail()}")
            self._breathe()
        return value

    def _breathe(self) -> None:
        """Between two looks: meanwhile the daemon has to answer."""
        self.wire.list(1)
        self._nobody.wait(LOOK_S)

    def pause(self, condition: Callable[[], bool]) -> None:
        """Give something that must not happen the time to happen."""
        give_up_at = monotonic() + PAUSE_S
        while not condition() and monotonic() < give_up_at:
            self._breathe()

    def open(self, gate: str) -> None:
        """Let those go that wait at a gate."""
        (self.sut.folder / gate).touch()

    def running(self, *marks: str) -> None:
        """Wait until these jobs have said that they run."""
        self.wait_for(f"start of {marks}", lambda: all(map(self.has_run, marks)))

    def has_run(self, mark: str, epoch: int = 1) -> bool:
        """Whether that attempt has said something."""
        lines = read_lines(self.sut.effects_file, Effect)
        return any(line.mark == mark and line.what == "effect" and line.epoch == epoch for line in lines)

    def lines_of(self, mark: str) -> int:
        """How much a job has said."""
        return sum(line.mark == mark for line in read_lines(self.sut.effects_file, Effect))

    def done(self, job: str) -> str:
        """Read a job again and again until it is done; its state."""
        state: str = self.wait_for("end", lambda: self._final(job))
        return state

    def _final(self, job: str) -> str | None:
        state = self.wire.status(job).state
        return state if state in FINAL else None

    @contextmanager
    def database_held(self) -> Iterator[sqlite3.Connection]:
        """Nobody else can commit meanwhile; reading goes on. Must be left while the daemon runs: the last one to close
        a database takes its log away.
        """  # fmt: skip
        with closing(sqlite3.connect(self.sut.data_dir / "jobsvc.db", isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            yield database
            if database.in_transaction:
                database.execute("ROLLBACK")

    def meanwhile(self, *works: Callable[[], Any]) -> list[threading.Thread]:
        """Do this on threads of their own."""
        threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in threads:
            thread.start()
        return threads

    def finish(self, quiet_s: float = QUIET_S) -> list[Finding]:
        """Wait for quiet, read everything, stop, check."""
        quiet(self.sut, self.history, quiet_s)
        self.wire.close()
        return check(gather(self.sut, self._history_file, self.history, self.specs, []))


def spec(mark: str, task: str, gate: str = "", **fields: Any) -> JobSpec:
    """A job of a scenario: it runs until its gate is open, or not at all."""
    n = len(mark)
    ends = fields.pop("ends", ("succeeded",))
    return JobSpec(mark, task, {"n": n, "gate": gate}, fields, ends, 3 * n + 1)


# -- the scenarios ---------------------------------------------------------------------------------------------------


def submit_not_committed(folder: Path, source: Path) -> list[Finding]:
    """A submit whose commit has to wait, and a kill while it waits: only one that was not acknowledged may be gone."""
    stage = Stage(folder, source)
    try:
        other = Wire(stage.sut, stage.history, 1)
        job = spec("waits", "on_process")
        stage.specs.append(job)
        answered = threading.Event()

        def submit() -> None:
            other.submit(job.body)
            answered.set()

        with stage.database_held() as database:
            threads = stage.meanwhile(submit)
            answered.wait(HELD_S)
            stage.sut.kill()
            database.execute("ROLLBACK")
            stage.start()
        threads[0].join()
        other.close()
        if not stage.acknowledged():  # who has an acknowledgement does not send it again
            stage.submit(job)
        return stage.finish()
    finally:
        stage.sut.close()


def outcome_not_committed(folder: Path, source: Path) -> list[Finding]:
    """A job that ends while nothing can be committed: nobody may hear of its end before it can be read."""
    stage = Stage(folder, source)
    try:
        job = stage.submit(spec("ends", "on_process", "gate"))
        stage.running("ends")
        waiting, reading = Wire(stage.sut, stage.history, 1), Wire(stage.sut, stage.history, 2)
        answered = threading.Event()

        def wait_then_read() -> None:
            waiting.status(job, 8)
            waiting.status(job)
            answered.set()

        threads = stage.meanwhile(wait_then_read, lambda: (reading.events(job, 0), reading.status(job)))
        with stage.database_held():
            stage.open("gate")
            answered.wait(HELD_S)
        for thread in threads:
            thread.join()
        waiting.close()
        reading.close()
        return stage.finish()
    finally:
        stage.sut.close()


def one_key(folder: Path, source: Path) -> list[Finding]:
    """One key, sent by eight clients at once and then again."""
    stage = Stage(folder, source)
    try:
        job = spec("again", "on_process")
        stage.specs.append(job)
        wires = [Wire(stage.sut, stage.history, 1 + number) for number in range(8)]
        for thread in stage.meanwhile(*(lambda wire=wire: wire.submit(job.body) for wire in wires)):
            thread.join()
        for wire in wires:
            wire.close()
        stage.submit(job)
        return stage.finish()
    finally:
        stage.sut.close()


def killed_while_running(folder: Path, source: Path, quiet_s: float = QUIET_S) -> list[Finding]:
    """The daemon is killed while jobs of all kinds run, one that must not run twice and one that leaves a process."""
    stage = Stage(folder, source)
    try:
        jobs = [
            spec("a-process", "on_process", "gate"),
            spec("a-thread", "on_thread", "gate"),
            spec("a-loop", "on_loop", "gate"),
            spec("once", "once", "gate", ends=("failed",)),
            spec("leaver", "leaver", "gate"),
        ]
        for job in jobs:
            stage.submit(job)
        stage.running(*(job.mark for job in jobs))
        stage.restart()
        # Of those that run again, the old attempt must be gone by now: while it is there it says so.
        stage.pause(lambda: stage.has_run("a-process", epoch=2))
        stage.open("gate")
        return stage.finish(quiet_s)
    finally:
        stage.sut.close()


def forgotten_while_running(folder: Path, source: Path) -> list[Finding]:
    """The same; a job that is never run again is waited for a short time only."""
    return killed_while_running(folder, source, FORGOTTEN_S)


def cancel_of_one_that_is_deaf(folder: Path, source: Path) -> list[Finding]:
    """A polite cancel of a job that does not listen: it is `cancelled` only when its code has stopped."""
    stage = Stage(folder, source)
    try:
        job = stage.submit(spec("deaf", "deaf", "gate", ends=("succeeded",)))
        stage.running("deaf")
        stage.wire.cancel(job, "polite")
        # What the cancel made the daemon write is written before the end of a later job is.
        stage.done(stage.submit(spec("after", "on_thread")))
        stage.wire.status(job)
        said = stage.lines_of("deaf")
        stage.wait_for("another effect", lambda: stage.lines_of("deaf") > said)
        stage.open("gate")
        stage.done(job)
        return stage.finish()
    finally:
        stage.sut.close()


def thread_past_its_timeout(folder: Path, source: Path) -> list[Finding]:
    """A thread that goes on after its timeout, and a retry: the retry waits for the thread."""
    stage = Stage(folder, source)
    try:
        fields = {"timeouts": {"run": 0.3}, "retries": 1, "backoff": {"base_s": 0.0}}
        job = stage.submit(spec("overdue", "deaf_thread", "gate", **fields))
        stage.running("overdue")
        stage.wait_for(
            "timeout", lambda: stage.wire.status(job).state == "retrying" or stage.has_run("overdue", 2)
        )
        stage.pause(lambda: stage.has_run("overdue", epoch=2))
        stage.open("gate")
        stage.done(job)
        return stage.finish()
    finally:
        stage.sut.close()


def clock_step(folder: Path, source: Path) -> list[Finding]:
    """The wall clock is set forward by a day while a job with a timeout runs: nothing happens."""
    stage = Stage(folder, source)
    try:
        job = stage.submit(spec("timed", "on_loop", "gate", timeouts={"run": 600}))
        # Once the daemon has an item of it, it knows that the job runs, and its timeout counts.
        stage.wait_for("item", lambda: stage.wire.raw("GET", f"/v1/jobs/{job}/streams/out?follow=0")[2])
        stage.sut.set_clock(DAY_S)
        stage.pause(lambda: stage.wire.status(job).state != "running")
        stage.open("gate")
        stage.done(job)
        return stage.finish()
    finally:
        stage.sut.close()
