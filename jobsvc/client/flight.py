"""F2: one batch of `map` or `submit_many` on its way to its outcomes, in the order of its lines. No I/O.

A connection that breaks costs nothing once the ids are known: the rest is then asked for by id.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from jobsvc.client import calls
from jobsvc.client.bulk import Batch
from jobsvc.client.core import Emit, Flow, Pause, Session
from jobsvc.client.errors import Refused, Unreachable, job_failure
from jobsvc.client.flows import POLL_S, ask
from jobsvc.client.lines import LineParser
from jobsvc.client.replies import ends_of, outcome_of, page_of, stranger
from jobsvc.client.retrying import busy_for_now
from jobsvc.client.shapes import BulkLine
from jobsvc.client.upload import Upload

ASK_IDS = 256
"""Ids in one request: 37 bytes each, and the daemon takes 16 KiB of headers."""

_PENDING: Final = object()


class Flight(Upload):
    """One batch on its way: what is known of each of its lines, and how far they have been handed out."""

    def __init__(self, session: Session, batch: Batch, *, follow: bool) -> None:
        super().__init__(session, batch, follow=follow)
        # Index 0 stays unused: the wire counts lines from 1.
        self._slots: list[Any] = [_PENDING] * (batch.lines + 1)
        self._ids: list[str | None] = [None] * (batch.lines + 1)
        self._next = 1

    @property
    def landed(self) -> bool:
        """Whether every line's outcome has been handed out."""
        return self._next > self._batch.lines

    def launch(self) -> Flow[None]:
        """Send the batch and learn the id of every line: from then on a broken connection costs nothing.

        Raises `Refused` when the daemon takes none of it, `Unreachable`.
        """
        yield from self._send()
        yield from self._resend()

    def _resend(self) -> Flow[None]:
        """Send the lines again that were refused for load and may come again, until they are taken.

        Whatever goes wrong here, they stay refused in their places: the rest of the batch is not lost with them.
        """
        session = self._session.patient
        texts: list[bytes] = []
        tried = 0
        while busy := self._busy():
            tried += 1
            delay_s = session.retry.after_problem(tried, self._slots[busy[0]].problem, None, repeatable=False)
            if delay_s is None:
                return
            yield Pause(delay_s)
            texts = texts or self._batch.body.split(b"\n")
            body = b"".join(texts[line - 1] + b"\n" for line in busy)
            try:
                reply = yield from ask(
                    session, calls.bulk(body, follow=False, repeatable=self._batch.repeatable)
                )
            except (Refused, Unreachable):
                return
            try:
                self._note_resent(busy, LineParser(BulkLine).feed(reply.body))
            except (msgspec.DecodeError, IndexError) as error:
                raise stranger(error) from error

    def _busy(self) -> list[int]:
        """Lines refused for now only."""
        return [
            line
            for line, value in enumerate(self._slots)
            if isinstance(value, Refused) and busy_for_now(value.problem)
        ]

    def _note_resent(self, sent: list[int], lines: list[BulkLine]) -> None:
        for found in lines:
            line = sent[found.line - 1]
            if found.problem is not None:
                self._slots[line] = Refused(found.problem, self._batch.first - 1 + line)
            elif self._follow:
                self._slots[line], self._ids[line] = _PENDING, found.id
            else:
                self._slots[line] = found.id

    def land(self) -> Flow[None]:
        """Emit the outcomes of all lines, in order."""
        while True:
            if ready := self._in_order():
                yield Emit(ready)
            if self.landed:
                break
            if not (yield from self._read()):
                yield from self._ask_by_id()
        yield from self._close()

    def _note(self, lines: list[BulkLine]) -> None:
        """Keep what `lines` say. The hot loop of the client: once for the id, once for the outcome of each job."""
        slots, ids, follow, first = self._slots, self._ids, self._follow, self._batch.first - 1
        for line in lines:
            state = line.state
            if state == "succeeded":
                slots[line.line] = line.result
            elif state is not None:
                slots[line.line] = job_failure(line.id or "", state, line.error)
            else:
                self._named += 1
                if line.problem is not None:
                    slots[line.line] = Refused(line.problem, first + line.line)
                elif follow:
                    ids[line.line] = line.id
                else:
                    slots[line.line] = line.id

    def _in_order(self) -> list[Any]:
        slots, start = self._slots, self._next
        stop = start
        while stop < len(slots) and slots[stop] is not _PENDING:
            stop += 1
        ready = slots[start:stop]
        slots[start:stop] = [None] * (stop - start)  # handed out: the reader alone decides how long it lives
        self._next = stop
        return ready

    def _open_lines(self) -> list[int]:
        return [line for line in range(self._next, len(self._slots)) if self._slots[line] is _PENDING]

    def _ask_by_id(self) -> Flow[None]:
        """The outcomes still open, from the jobs themselves: one request, which waits until any of them is done."""
        if lines := self._open_lines()[:ASK_IDS]:
            by_id = {job_id: line for line in lines if (job_id := self._ids[line]) is not None}
            page = page_of((yield from ask(self._session.patient, calls.get_many(by_id, POLL_S))))
            for job_id, end in ends_of(page):
                self._slots[by_id[job_id]] = outcome_of(end)
