"""The clients of a run: each submits its share of the jobs at their time, and looks after those it has sent."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from random import Random
from time import monotonic
from typing import Final

from tests.torture.plan import JobSpec
from tests.torture.records import History
from tests.torture.wire import Place, Wire

THINK_S: Final = 0.02
"""Between two operations of a client."""
RETRY_S: Final = 0.1
"""Before a submit whose fate is unknown is sent again."""
REREAD: Final = 20
"""So many jobs that have ended are read again and again."""
LONG_POLL_S: Final = 0.5


class Crowd:
    """All clients of a run.

    Args:
        load_s: over how long the submits are spread.
    """

    def __init__(
        self, place: Place, history: History, jobs: Sequence[JobSpec], clients: int, load_s: float, seed: int
    ) -> None:
        self.submitted = threading.Event()
        """Set once every job has been acknowledged."""
        self.trouble: list[str] = []
        """What went wrong with the clients themselves: then the run is void."""
        self._left = len(jobs)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        begins, step_s = monotonic(), load_s / max(1, len(jobs))
        dues: list[deque[tuple[float, JobSpec]]] = [deque() for _ in range(clients)]
        for place_in_line, spec in enumerate(jobs):
            dues[place_in_line % clients].append((begins + place_in_line * step_s, spec))
        self._clients = [
            Client(Wire(place, history, number), due, Random(f"{seed}-{number}"), self._stop)
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
    """One of them."""

    def __init__(
        self, wire: Wire, due: deque[tuple[float, JobSpec]], random: Random, stop: threading.Event
    ) -> None:
        self.wire = wire
        self.ids: dict[str, str] = {}
        self._due = due
        self._random = random
        self._stop = stop
        self._open: list[tuple[str, JobSpec]] = []
        self._done: deque[str] = deque(maxlen=REREAD)
        self._followed: dict[str, int] = {}  # the last event's number
        self._unasked: set[str] = set()  # to be cancelled

    def turn(self) -> int:
        """One operation, or a pause. How many jobs have been acknowledged by it."""
        if self._due and monotonic() >= self._due[0][0]:
            return self._submit(self._due.popleft()[1])
        self._look()
        self._stop.wait(THINK_S)
        return 0

    def _submit(self, spec: JobSpec) -> int:
        """Until it is known to be stored; each try has its line in the history."""
        while not self._stop.is_set():
            line = self.wire.submit(spec.body)
            if line.type == "ok":
                self.ids[spec.mark] = line.job
                self._open.append((line.job, spec))
                if spec.cancel is not None:
                    self._unasked.add(line.job)
                return 1
            if line.type == "fail" and line.status not in (0, 429, 503, 507):
                raise RuntimeError(f"a submit was refused with {line.status}: {line.why}")
            self._stop.wait(RETRY_S)
        return 0

    def _look(self) -> None:
        choice = self._random.random()
        if not self._open or choice < 0.1:
            if self._done and choice < 0.08:
                self.wire.result(self._random.choice(self._done))
            else:
                self.wire.list()
            return
        place = self._random.randrange(len(self._open))
        job, spec = self._open[place]
        if spec.stream and choice < 0.5:
            self._follow(job)
        elif choice < 0.7:
            line = self.wire.status(job)
            if line.state in ("running", "stopping") and job in self._unasked and spec.cancel is not None:
                self._unasked.discard(job)
                line = self.wire.cancel(job, spec.cancel)
            if line.state in ("succeeded", "failed", "cancelled", "expired"):
                self._over(place)
        else:
            line = self.wire.result(job, self._random.choice((0, LONG_POLL_S)))
            if line.status in (200, 424):
                self._over(place)

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
        line = self.wire.events(job, after)
        if line.ranges:
            after = line.ranges[-1][1]
        if line.gaps:
            after = max(after, line.gaps[-1][1])
        if line.ended:
            # The promise of an end: what it says can be read at once.
            self.wire.status(job)
        self._followed[job] = -1 if line.ended or line.status == 204 else after
