"""F2: many waits in a few requests: jobs are asked for together, by id, until they are done. No I/O.

A wait of its own holds a connection. Where hundreds wait at the same time that ends at the limits of sockets, here
and at the daemon; so those beyond a few share requests, each of which returns when any of its jobs is done.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice

from jobsvc.client import calls
from jobsvc.client.core import Flow, Running, Session
from jobsvc.client.errors import Unreachable
from jobsvc.client.flight import ASK_IDS
from jobsvc.client.flows import ask
from jobsvc.client.replies import ends_of, page_of
from jobsvc.client.shapes import Job

ASKING = 4
"""Requests at a time."""
ROUND_S = 2.0
"""In so long each job is asked for once, however many there are."""
ROUND_SHARE_MIN_S = 0.05
"""The shortest wait of one request."""

Settle = Callable[[Job | Exception], None]


class Asker:
    """Waits for jobs on behalf of many.

    Args:
        run: starts a flow and returns at once; may run it to its end before. The flow raises nothing.
    """

    def __init__(self, session: Session, run: Callable[[Flow[None]], Running]) -> None:
        self._session = session.patient
        self._run = run
        self._watchers: dict[str, list[Settle]] = {}
        self._idle: dict[str, None] = {}  # ids no request asks for at the moment, in turn
        self._running: set[_Ask] = set()

    def watch(self, job_id: str, settle: Settle) -> Callable[[], None]:
        """`settle` is called once, with the job when it is done, or with what came instead.

        Returns: ends the listening.
        """
        watchers = self._watchers.setdefault(job_id, [])
        if not watchers:
            self._idle[job_id] = None
        watchers.append(settle)
        if self._idle and len(self._running) < ASKING:
            request = _Ask()
            self._running.add(request)
            request.running = self._run(self._asked(request))
        return partial(self._leave, job_id, settle)

    def close(self) -> None:
        """Give up everything; who still waits hears `Unreachable`."""
        for job_id in list(self._watchers):
            self._tell(job_id, Unreachable("the client was closed before the job had ended"))
        for request in list(self._running):
            if request.running is not None:
                request.running.cancel()

    def _leave(self, job_id: str, settle: Settle) -> None:
        watchers = self._watchers.get(job_id, [])
        if settle in watchers:
            watchers.remove(settle)
        if not watchers:
            self._watchers.pop(job_id, None)
            self._idle.pop(job_id, None)

    def _tell(self, job_id: str, outcome: Job | Exception) -> None:
        self._idle.pop(job_id, None)
        for settle in self._watchers.pop(job_id, ()):
            settle(outcome)

    def _asked(self, request: _Ask) -> Flow[None]:
        """Ask for some jobs, and go on with the next until none is left."""
        try:
            while self._idle:
                ids = list(islice(self._idle, ASK_IDS))
                for job_id in ids:
                    del self._idle[job_id]
                rounds = -(-len(self._idle) // ASK_IDS)
                wait_s = max(ROUND_SHARE_MIN_S, ROUND_S * ASKING / max(ASKING, rounds))
                try:
                    page = page_of((yield from ask(self._session, calls.get_many(ids, wait_s))))
                    done: dict[str, Job | Exception] = dict(ends_of(page))
                except Exception as error:  # noqa: BLE001 - goes to all whose jobs it concerns
                    done = dict.fromkeys(ids, error)
                for job_id in ids:
                    if job_id in done:
                        self._tell(job_id, done[job_id])
                    elif job_id in self._watchers:
                        self._idle[job_id] = None
        finally:
            self._running.discard(request)


class _Ask:
    """One of the requests under way."""

    running: Running | None = None
