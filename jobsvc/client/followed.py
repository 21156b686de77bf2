"""F2: one batch of an executor's lines on its way; each outcome goes to its future as it comes. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, Protocol

from jobsvc.client.bulk import Batch
from jobsvc.client.core import Flow, Session
from jobsvc.client.errors import Refused, job_failure
from jobsvc.client.replies import outcome_of
from jobsvc.client.retrying import busy_for_now
from jobsvc.client.shapes import BulkLine, Job, Problem
from jobsvc.client.upload import Upload


class Owner(Protocol):
    """Who made the futures."""

    pending: set[JobFuture]

    def withdraw(self, future: JobFuture) -> None:
        """Told of each that is cancelled."""


class JobFuture(Future[Any]):
    """The result of one job of a `JobExecutor`.

    It is pending until the job's outcome is there; then `result()` gives it or raises as `Client.result` does.

    Attributes:
        job_id: the job's id, once the daemon has accepted it; None before.
    """

    def __init__(self, line: bytes, owner: Owner) -> None:
        super().__init__()
        self.job_id: str | None = None
        self.line = line
        self.tried = 0
        self.followed: Followed | None = None
        self.leave: Callable[[], None] | None = None  # no longer ask for its job by id
        self.withdrawn = False
        self._owner = owner

    def cancel(self) -> bool:
        """Give the job up: what was not sent is not sent; of a job already accepted, the daemon is asked to stop it.

        The future is cancelled either way, at once. False when the outcome is there already.
        """
        if not super().cancel():
            return False
        self._owner.withdraw(self)
        return True

    def settle(self, outcome: Any) -> None:
        """Its outcome: a result, or the exception to be raised. Nothing for one that was cancelled."""
        self.followed = None
        self.line = b""
        self._owner.pending.discard(self)
        try:
            if isinstance(outcome, Exception):
                self.set_exception(outcome)
            else:
                self.set_result(outcome)
        except InvalidStateError:
            if not self.cancelled():  # its owner was faster, and has been told
                raise

    def ended(self, end: Job | Exception) -> None:
        """Its job, once it is done, or what came instead."""
        self.settle(outcome_of(end))


class Followed(Upload):
    """A batch with the futures of its lines.

    Args:
        futures: one a line.
        on_named: called once every line has its id or its refusal; from then on jobs are there to be asked for.

    Attributes:
        open: futures that have no outcome yet, and whose owners still want one.
        busy: futures whose lines were refused for load alone, and why.
        late: futures that were cancelled while their lines were under way; their jobs are there, unwanted.
    """

    def __init__(
        self,
        session: Session,
        futures: Sequence[JobFuture],
        number: int,
        on_named: Callable[[], None],
    ) -> None:
        body = b"".join([future.line for future in futures])
        super().__init__(session, Batch(number, len(futures), body, repeatable=True), follow=True)
        self._futures = futures
        self._on_named = on_named
        self.open = len(futures)
        self.busy: list[tuple[JobFuture, Problem]] = []
        self.late: list[JobFuture] = []
        for future in futures:
            future.followed = self

    def fly(self) -> Flow[None]:
        """Send it and settle its futures, until all have their outcome or the connection is gone."""
        yield from self._send()
        self._on_named()
        while self.open and (yield from self._read()):
            pass
        yield from self._close()

    @property
    def named(self) -> bool:
        """Whether every line has its id or its refusal."""
        return self._named >= len(self._futures)

    def forget(self, future: JobFuture) -> None:
        """Its owner has given it up."""
        if future.followed is self:
            future.followed = None
            self.open -= 1

    def left(self) -> list[JobFuture]:
        """The futures that are still open."""
        return [future for future in self._futures if future.followed is self]

    def _note(self, lines: list[BulkLine]) -> None:
        """See `Upload`. The hot loop of the executor: once for the id, once for the outcome of each job."""
        futures = self._futures
        for line in lines:
            future = futures[line.line - 1]
            state = line.state
            if state is None:
                self._named += 1
            if future.followed is not self:
                self._late(future, line.id)
            elif state == "succeeded":
                self.open -= 1
                future.settle(line.result)
            elif state is not None:
                self.open -= 1
                future.settle(job_failure(line.id or "", state, line.error))
            elif line.problem is None:
                future.job_id = line.id
            else:
                self._refused(future, line.problem)

    def _late(self, future: JobFuture, job_id: str | None) -> None:
        if future.withdrawn and future.job_id is None and job_id is not None:
            future.job_id = job_id
            self.late.append(future)

    def _refused(self, future: JobFuture, problem: Problem) -> None:
        self.open -= 1
        if busy_for_now(problem):
            future.followed = None
            self.busy.append((future, problem))
        else:
            future.settle(Refused(problem))
