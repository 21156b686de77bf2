"""The clients of a run: each submits its share of the jobs at their time, and looks after those it has sent."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from random import Random
from time import monotonic
from typing import Final, NamedTuple

from tests.torture.kinds import JobSpec
from tests.torture.records import History
from tests.torture.wire import Place, Wire

THINK_S: Final = 0.02
"""Between two operations of a client."""
RETRY_S: Final = 0.1
"""Before a submit whose fate is unknown is sent again."""
REREAD: Final = 20
"""So many jobs that have ended are read again and again."""
LONG_POLL_S: Final = 0.5
TO_DO: Final = 0.25
"""How often a client turns to what it wants to do to a job, rather than read."""
CONFLICT: Final = 409
FINAL: Final = frozenset(("succeeded", "failed", "cancelled", "expired"))


class Due(NamedTuple):
    """What is sent together: not before a moment, nor before a share of the run is over."""

    at: float
    share: float
    specs: list[JobSpec]


class Crowd:
    """All clients of a run.

    Args:
        load_s: over how long the submits are spread.
        progress: how much of the run is over, 0 to 1. A submit waits for its share of it as well: on a slow machine the
            last deeds would meet nobody.
    """

    def __init__(
        self, place: Place, history: History, jobs: Sequence[JobSpec], clients: int, load_s: float, seed: int,
        progress: Callable[[], float],
    ) -> None:  # fmt: skip
        self.submitted = threading.Event()
        """Set once every job has been acknowledged."""
        self.trouble: list[str] = []
        """What went wrong with the clients themselves: then the run is void."""
        self._jobs = self._left = len(jobs)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        begins, step_s = monotonic(), load_s / max(1, len(jobs))
        dues: list[deque[Due]] = [deque() for _ in range(clients)]
        before = 0
        for place_in_line, specs in enumerate(_uploads(jobs)):
            dues[place_in_line % clients].append(Due(begins + before * step_s, before / len(jobs), specs))
            before += len(specs)
        self._clients = [
            Client(Wire(place, history, number), due, Random(f"{seed}-{number}"), self._stop, progress)
            for number, due in enumerate(dues)
        ]
        self._threads = [
            threading.Thread(target=self._run, args=(client,), name=f"client-{number}", daemon=True)
            for number, client in enumerate(self._clients)
        ]
        if not jobs:
            self.submitted.set()

    def start(self) -> None:
        """From now on."""
        for thread in self._threads:
            thread.start()

    def enough(self) -> None:
        """Nothing more is submitted; what has been is looked after."""
        for client in self._clients:
            client.enough()
        self.submitted.set()

    @property
    def acknowledged_jobs(self) -> int:
        """How many have been so far."""
        return self._jobs - self._left

    @property
    def left(self) -> int:
        """How many jobs clients still want to cancel, move or have again."""
        return sum(client.left for client in self._clients)

    def stop(self) -> None:
        """No more operations; returns when all have hung up."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def acknowledged(self) -> dict[str, str]:
        """Ids by key."""
        return {key: job for client in self._clients for key, job in client.ids.items()}

    def _run(self, client: Client) -> None:
        try:
            while not self._stop.is_set():
                accepted = client.turn()
                if accepted:
                    with self._lock:
                        self._left -= accepted
                        if self._left == 0:
                            self.submitted.set()
        except Exception as error:  # noqa: BLE001 - told in the report: the run is void
            self.trouble.append(f"client {client.wire.client}: {error!r}")
            self.submitted.set()
        finally:
            client.wire.close()


class Client:
    """One of them. `left`: how many of its jobs it still has something to do to: cancel, move, ask for a rerun."""

    def __init__(
        self,
        wire: Wire,
        due: deque[Due],
        random: Random,
        stop: threading.Event,
        progress: Callable[[], float],
    ) -> None:
        self.wire = wire
        self.ids: dict[str, str] = {}
        self._due = due
        self._progress = progress
        self._random = random
        self._stop = stop
        self._open: list[tuple[str, JobSpec]] = []
        self._done: deque[str] = deque(maxlen=REREAD)
        self._followed: dict[str, int] = {}  # the last event's number
        self._to_do: dict[str, JobSpec] = {}

    @property
    def left(self) -> int:
        """See the class."""
        return len(self._to_do)

    def enough(self) -> None:
        """Submit nothing more."""
        self._due.clear()

    def turn(self) -> int:
        """One operation, or a pause. How many jobs have been acknowledged by it."""
        try:
            due = self._due[0]
            if monotonic() >= due.at and self._progress() >= due.share:
                self._due.popleft()
                return self._submit(due.specs)
        except IndexError:  # there are none, or it was said this very moment that it is enough
            pass
        self._look()
        self._stop.wait(THINK_S)
        return 0

    def _submit(self, specs: list[JobSpec]) -> int:
        """Until each is known to be stored; each try has its lines in the history."""
        first = specs[0]
        open_specs = {spec.mark: spec for spec in specs}
        while open_specs and not self._stop.is_set():
            how = first.upload
            lines = [self.wire.submit(first.body)] if how is None else self.wire.upload(specs, how)
            for spec, line in zip(specs, lines, strict=True):
                if line.type == "ok":
                    self._accepted(open_specs.pop(spec.mark, None), line.job)
                elif line.type == "fail" and line.status not in (0, 429, 503, 507):
                    raise RuntimeError(f"a submit was refused with {line.status}: {line.why}")
            if open_specs:
                if how == "atomic":
                    self.wire.batch(first.batch)  # all or nothing, before anything is sent again
                self._stop.wait(RETRY_S)
        return len(specs) - len(open_specs)

    def _accepted(self, spec: JobSpec | None, job: str) -> None:
        if spec is None:
            return
        self.ids[spec.mark] = job
        self._open.append((job, spec))
        if spec.cancel is not None or spec.moved or spec.again:
            self._to_do[job] = spec

    def _look(self) -> None:
        choice = self._random.random()
        if self._to_do and choice < TO_DO:
            job = self._random.choice(list(self._to_do))
            if self._attend(job, self._to_do[job]):
                del self._to_do[job]
        elif not self._open or choice < TO_DO + 0.1:
            if self._done and choice < TO_DO + 0.08:
                self.wire.result(self._random.choice(self._done))
            else:
                self.wire.list()
        else:
            self._read(self._random.randrange(len(self._open)), self._random.random())

    def _read(self, place: int, choice: float) -> None:
        job, spec = self._open[place]
        if spec.stream and choice < 0.5:
            self._follow(job)
        elif choice < 0.7:
            if self.wire.status(job).state in FINAL:
                self._over(place)
        else:
            line = self.wire.result(job, self._random.choice((0, LONG_POLL_S)))
            if line.status in (200, 424):
                self._over(place)

    def _attend(self, job: str, spec: JobSpec) -> bool:
        """Do to a job what is to be done to it, when its time has come. True once nothing is left to do."""
        line = self.wire.status(job)
        if line.type != "ok":
            return False
        if spec.moved:
            return line.state != "scheduled" or self.wire.move(job, line.revision).type == "ok"
        if spec.cancel is not None:
            if line.state in ("running", "stopping"):
                told = self.wire.cancel(job, spec.cancel)
                return told.type == "ok" or told.status == CONFLICT  # it has ended meanwhile
            return line.state in FINAL
        if line.state != "failed":
            return line.state in FINAL
        told = self.wire.rerun(job, spec.mark)
        if told.type == "ok":
            self._open.append((told.job, spec))
        return told.type != "fail"  # of which nobody knows is not asked for twice

    def _over(self, place: int) -> None:
        job, spec = self._open[place]
        if spec.stream and self._followed.get(job, 0) >= 0:
            return  # its stream has not been read to the end yet
        self._open[place] = self._open[-1]
        self._open.pop()
        self._done.append(job)

    def _follow(self, job: str) -> None:
        after = self._followed.get(job, 0)
        if after < 0:
            return
        line = self.wire.events(job, after, self._random.choice(("sse", "ndjson")))
        if line.ranges:
            after = line.ranges[-1][1]
        if line.gaps:
            after = max(after, line.gaps[-1][1])
        if line.ended:
            # The promise of an end: what it says can be read at once.
            self.wire.status(job)
        self._followed[job] = -1 if line.ended or line.status == 204 else after


def _uploads(jobs: Sequence[JobSpec]) -> Iterator[list[JobSpec]]:
    """What is sent together: neighbours of one batch."""
    for batch, neighbours in groupby(jobs, lambda spec: spec.batch or spec.mark):
        del batch
        yield list(neighbours)
