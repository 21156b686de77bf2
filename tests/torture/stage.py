"""One daemon with one client, for directed scenarios: what happens on it is played step by step."""

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
from tests.torture.records import Effect, History, read_lines
from tests.torture.sut import Sut
from tests.torture.wire import Wire

QUIET_S: Final = 30.0
"""After a scenario: until no job is left to do."""
PAUSE_S: Final = 1.5
"""How long is waited for what must not happen. A bug shows at once; the true product costs this time."""
MOMENT_S: Final = 15.0
"""How long a moment may be waited for."""
LOOK_S: Final = 0.01

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

    def has_returned(self, mark: str) -> bool:
        """Whether the code of a job has come to its end."""
        return any(
            line.mark == mark and line.what == "end" for line in read_lines(self.sut.effects_file, Effect)
        )

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

    def join(self, threads: list[threading.Thread]) -> None:
        """Until these have ended; meanwhile the daemon has to answer."""
        while any(thread.is_alive() for thread in threads):
            self._breathe()

    def finish(self, quiet_s: float = QUIET_S) -> list[Finding]:
        """Wait for quiet, read everything, stop, check."""
        quiet(self.sut, self.history, quiet_s)
        self.wire.close()
        return check(gather(self.sut, self._history_file, self.history, self.specs, []))


def spec(mark: str, task: str, gate: str = "", **fields: Any) -> JobSpec:
    """A job of a scenario: it runs until its gate is open, or not at all."""
    n = len(mark)
    ends = fields.pop("ends", ("succeeded",))
    stream = fields.pop("stream", False)
    return JobSpec(mark, task, {"n": n, "gate": gate}, fields, ends, 3 * n + 1, stream=stream)
