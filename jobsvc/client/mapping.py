"""F2: the conversation behind `map` and `submit_many`: batches up, outcomes back in the order of the input. No I/O.

Two batches are in flight: while the outcomes of one are read, the next is already with the daemon.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from jobsvc.client.bulk import Batch
from jobsvc.client.core import Flow, Session
from jobsvc.client.flight import Flight

FLIGHTS = 2
"""One to read, one to keep the daemon busy; more would only grow memory."""


def outcomes(session: Session, source: Iterator[Batch], *, follow: bool) -> Flow[None]:
    """Emits one value for each line of the input, in its order: a result, or an exception in its place.

    With `follow` false the values are the jobs' ids. What ends the whole (bad input, a refused batch) is raised after
    the outcomes of what was accepted before.
    """
    flying: deque[Flight] = deque()
    trouble: Exception | None = None
    exhausted = False
    while True:
        while not exhausted and len(flying) < FLIGHTS:
            try:
                batch = next(source, None)
                if batch is None:
                    exhausted = True
                    break
                flight = Flight(session, batch, follow=follow)
                yield from flight.launch()
                session = session.patient
            except Exception as error:  # noqa: BLE001 - kept, and raised below after what was accepted before
                exhausted, trouble = True, error
            else:
                flying.append(flight)
        if not flying:
            break
        yield from flying[0].land()
        flying.popleft()
    if trouble is not None:
        raise trouble
