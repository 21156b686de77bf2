"""F2: one bulk request on its way: sent until every line is named, then read to its end. No I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec

from jobsvc.client import calls
from jobsvc.client.bulk import Batch
from jobsvc.client.core import Broken, Close, Flow, Opened, Pause, Read, Session
from jobsvc.client.errors import Unreachable
from jobsvc.client.flows import ask_open
from jobsvc.client.lines import LineParser
from jobsvc.client.replies import stranger
from jobsvc.client.shapes import BulkLine

QUIET_S = 45.0
"""Silence on the reply before it is dropped and the open jobs are asked for by id."""


class Upload(ABC):
    """A batch and the reply to it; what its lines say is noted by who inherits."""

    def __init__(self, session: Session, batch: Batch, *, follow: bool) -> None:
        self._session = session
        self._batch = batch
        self._follow = follow
        self._opened: Opened | None = None
        self._parser = LineParser(BulkLine)
        self._named = 0

    @abstractmethod
    def _note(self, lines: list[BulkLine]) -> None:
        """Keep what `lines` say, and count in `_named` those that name a job or refuse one.

        When a connection breaks before all are named, the same lines may come again. IndexError: there is no such line.
        """

    def _send(self) -> Flow[None]:
        """Send the batch and read until every line has an id or a problem; the reply stays open.

        Raises `Refused` when the daemon takes none of it, `Unreachable`.
        """
        request = calls.bulk(self._batch.body, follow=self._follow, repeatable=self._batch.repeatable)
        tried = 0
        while True:
            self._opened = yield from ask_open(self._session, request, QUIET_S)
            self._parser = LineParser(BulkLine)
            self._named = 0
            while self._named < self._batch.lines and (yield from self._read()):
                pass
            if self._named >= self._batch.lines:
                return
            tried += 1
            if not self._batch.repeatable or tried >= self._session.patient.retry.tries:
                last = self._batch.first + self._batch.lines - 1
                raise Unreachable(
                    f"the connection broke before the daemon had named the jobs of lines {self._batch.first} to "
                    f"{last}; they may have been accepted (give a key to make the whole repeatable)",
                    maybe_sent=True,
                )
            yield Pause(self._session.retry.reconnect(tried, None))

    def _read(self) -> Flow[bool]:
        """Note the next piece of the reply; False when there is none: it ended, broke, or stood still for too long."""
        opened = self._opened
        if opened is None:
            return False
        try:
            piece: bytes = yield Read(opened.handle)
        except Broken:
            piece = b""
        if piece:
            try:
                self._note(self._parser.feed(piece))
            except (msgspec.DecodeError, IndexError) as error:
                raise stranger(error) from error
            return True
        self._opened = None
        yield Close(opened.handle)
        return False

    def _close(self) -> Flow[None]:
        """Done with the reply, wherever it stands."""
        opened, self._opened = self._opened, None
        if opened is not None:
            yield Close(opened.handle)
