"""F2: conversations that read a stream to its end and go on after a broken connection where they stopped. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from jobsvc.client import calls
from jobsvc.client.core import (
    Broken,
    Close,
    Emit,
    Flow,
    Open,
    Opened,
    Pause,
    Read,
    Request,
    Session,
    read_all,
)
from jobsvc.client.errors import ClientError, StreamBroken, Unreachable
from jobsvc.client.flows import ask_job
from jobsvc.client.lines import LineParser
from jobsvc.client.replies import REFUSALS, refusal_of, result_of
from jobsvc.client.shapes import Event, Item
from jobsvc.client.sse import SseParser

QUIET_S = 45.0
"""Longest silence of a live stream: three heartbeats. After that the connection is taken for dead."""

_NO_CONTENT = 204
_RECONNECT = "reconnect"
"""Last event of a daemon that is about to stop."""

_events = msgspec.json.Decoder(Event)


class _Connection:
    """The connections of one stream, one after the other; counts failures since it last got anything."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._failures = 0
        self._retry = session.retry
        self.asked_s: float | None = None

    def open(self, request: Request) -> Flow[Opened | None]:
        """A response to read from; None when the server has nothing more.

        A stream that never opened is given up as early as any other request, one that broke is not.
        """
        while True:
            try:
                opened: Opened = yield Open(request, QUIET_S)
                if opened.status == _NO_CONTENT:
                    yield Close(opened.handle)
                    return None
                if opened.status < REFUSALS:
                    self._retry = self._session.patient.retry
                    return opened
                refusal = refusal_of((yield from read_all(opened)))
            except Broken as broken:
                yield from self.broke(broken)
                continue
            delay_s = self._session.retry.after_problem(
                1, refusal.problem, opened.headers.get("retry-after"), repeatable=True
            )
            if delay_s is None or self._exhausted():
                raise refusal
            yield Pause(delay_s)

    def alive(self) -> None:
        """Something came."""
        self._failures = 0

    def broke(self, broken: Broken) -> Flow[None]:
        """Wait before the next try, or say that there is none."""
        if self._exhausted():
            raise Unreachable(str(broken)) from broken
        yield Pause(self._retry.reconnect(self._failures, self.asked_s))

    def _exhausted(self) -> bool:
        self._failures += 1
        return self._failures >= self._retry.tries


def events(
    session: Session, job_id: str, *, from_: int | None = None, kinds: Iterable[str] = ()
) -> Flow[None]:
    """Emits `Event`s up to and with `end`; reconnects by Last-Event-ID, so none is lost and none comes twice."""
    kinds = tuple(kinds)
    connection = _Connection(session)
    last_id: str | None = None
    known_done = False
    while True:
        opened = yield from connection.open(calls.events(job_id, from_=from_, last_id=last_id, kinds=kinds))
        if opened is None:
            return
        parser = SseParser()
        try:
            while piece := (yield Read(opened.handle)):
                connection.alive()
                found = [
                    _events.decode(event.data) for event in parser.feed(piece) if event.name != _RECONNECT
                ]
                last_id, connection.asked_s = parser.last_id or last_id, parser.retry_s
                if found:
                    yield Emit(found)
                    if found[-1].kind == "end":
                        yield Close(opened.handle)
                        return
        except Broken as broken:
            yield Close(opened.handle)
            yield from connection.broke(broken)
            continue
        except msgspec.DecodeError as error:
            raise ClientError(f"not the events of a jobsvc daemon: {error}") from error
        yield Close(opened.handle)
        if known_done:
            return
        known_done = yield from _done(session, job_id, connection.asked_s)


def _done(session: Session, job_id: str, asked_s: float | None) -> Flow[bool]:
    """After a clean close without an end: whether the job is done.

    The daemon may just be stopping. Only a connection that was opened when the job was already known to be done has
    certainly given everything, so the caller opens once more in either case.
    """
    job = yield from ask_job(session.patient, calls.get(job_id))
    if not job.done:
        yield Pause(session.retry.reconnect(1, asked_s))
    return job.done


class _Place:
    """How far one stream has been read: the number of the next item, and the attempt that made the last."""

    def __init__(self, from_: int) -> None:
        self.next_seq = from_
        self._epoch: int | None = None

    def take(self, found: list[Item]) -> list[Item]:
        """The lines to hand out; a restart that happened while the connection was down is put in its place."""
        first = found[0]
        if self._epoch is not None and not first.restart and not first.kind and first.epoch != self._epoch:
            found = [Item(seq=first.seq, epoch=first.epoch, restart=True), *found]
        for item in reversed(found):
            if not item.restart and not item.kind:
                self.next_seq = item.seq + 1
                break
        self._epoch = found[-1].epoch or self._epoch
        return found


def items(session: Session, job_id: str, name: str, from_: int) -> Flow[None]:
    """Emits the `Item`s of one stream until the job is done and all of them are read, then ends as the job did.

    Raises `JobFailed` after the last item when the job did not succeed.
    """
    connection = _Connection(session)
    place = _Place(from_)
    known_done = False
    while True:
        opened = yield from connection.open(calls.stream(job_id, name, place.next_seq))
        if opened is not None:
            parser = LineParser(Item)
            try:
                while piece := (yield Read(opened.handle)):
                    connection.alive()
                    if found := [item for item in parser.feed(piece) if item.kind != _RECONNECT]:
                        yield Emit(place.take(found))
            except Broken as broken:
                yield Close(opened.handle)
                yield from connection.broke(broken)
                continue
            except msgspec.DecodeError as error:
                raise ClientError(f"not the items of a jobsvc daemon: {error}") from error
            yield Close(opened.handle)
        if known_done:
            result_of((yield from ask_job(session.patient, calls.get(job_id))))
            return
        known_done = yield from _done(session, job_id, connection.asked_s)


def values(session: Session, job_id: str, name: str, from_: int) -> Flow[None]:
    """Emits the plain values of one stream. Raises `StreamBroken` where they do not follow on those before."""
    inner = items(session, job_id, name, from_)
    begun = from_ > 1
    answer: Any = None
    try:
        step = next(inner)
        while True:
            if isinstance(step, Emit):
                plain, broken = _plain(job_id, step.values, begun=begun)
                begun = begun or bool(plain)
                if plain:
                    yield Emit(plain)
                if broken is not None:
                    raise broken
                answer = None
            else:
                try:
                    answer = yield step
                except Broken as failed:
                    step = inner.throw(failed)
                    continue
            step = inner.send(answer)
    except StopIteration:
        return


def _plain(job_id: str, found: list[Item], *, begun: bool) -> tuple[list[Any], StreamBroken | None]:
    out: list[Any] = []
    for item in found:
        if item.kind or (item.restart and (begun or out)):
            return out, StreamBroken(job_id, item.kind or "restart", item.seq)
        if not item.restart:
            out.append(item.data)
    return out, None
