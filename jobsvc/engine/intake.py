"""F2: what workers say: begins, items, logs, progress, results and deaths become writes and verdicts.

One call handles all messages of one read: one append and one settle go to the store, however many there were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from twisted.logger import Logger
from twisted.python.failure import Failure

from jobsvc.engine import verdict
from jobsvc.engine.board import Active, Board, Seat
from jobsvc.engine.bus import Bus
from jobsvc.engine.dispatch import Dispatcher
from jobsvc.engine.endings import Endings
from jobsvc.engine.stops import Stops
from jobsvc.engine.verdict import Verdict
from jobsvc.engine.writes import AttemptWrites
from jobsvc.model.crashpoints import crash
from jobsvc.model.events import Chunk
from jobsvc.model.frames import Begin, Credit, Items, Log, Message, Progress, Result, Returned
from jobsvc.model.limits import LOG_HEAD_BYTES, LOG_KEEP_BYTES, STREAM_QUOTA_BYTES
from jobsvc.ports import Append, Death, Worker

Ended = list[tuple[Active, Verdict]]


class Intake:
    """See the module."""

    _log = Logger()

    def __init__(
        self,
        board: Board,
        writes: AttemptWrites,
        bus: Bus,
        dispatcher: Dispatcher,
        endings: Endings,
        stops: Stops,
        now_us: Callable[[], int],
        uniform: Callable[[float, float], float],
        counters: Counter[tuple[str, ...]],
    ) -> None:
        self._board = board
        self._writes = writes
        self._bus = bus
        self._dispatcher = dispatcher
        self._endings = endings
        self._stops = stops
        self._now_us = now_us
        self._uniform = uniform
        self._counters = counters
        self._progress: dict[Active, Progress] = {}  # the newest of each attempt, while nothing can be stored

    def messages(self, worker: Worker, messages: Sequence[Message]) -> None:
        """A batch from one worker."""
        seat = self._board.seats.get(worker.id)
        if seat is None:
            return
        ended: Ended = []
        appends: list[tuple[Active, Append]] = []
        find = seat.outstanding.get
        for message in messages:
            if isinstance(message, Result):
                active = find(message.no)
                if active is None or active.job.epoch != message.epoch:
                    self._late(seat, message)
                    continue
                self._result(active, message, ended)
            elif isinstance(message, Returned):
                for no, epoch in message.attempts:
                    active = find(no)
                    if active is not None and active.job.epoch == epoch:
                        self._returned(active, ended)
            elif isinstance(message, (Begin, Items, Log, Progress)):
                active = find(message.no)
                if active is None or active.job.epoch != message.epoch or active.settling:
                    self._refuse(type(message).__name__.lower(), message.no, message.epoch, active)
                else:
                    self._reported(active, message, appends)
        if appends:
            self._append(appends)
        if ended:
            self._finish(ended)

    def _finish(self, ended: Ended) -> None:
        """Progress that was kept back comes before the end."""
        if self._progress:
            self._tell(
                [(active, self._progress.pop(active)) for active, _ in ended if active in self._progress]
            )
        self._endings.finish(ended)

    def _reported(
        self, active: Active, message: Begin | Items | Log | Progress, appends: list[tuple[Active, Append]]
    ) -> None:
        """An attempt has begun, or has something to say."""
        if isinstance(message, Begin):
            active.began_us = active.job.started_at = message.at_us
            self._stops.begun(active)
            crash("CP7")
        elif isinstance(message, Progress) and self._writes.holding:
            # It comes without credit, so it must not gather; and without a number, as most of it will not be told.
            self._progress[active] = message
            self._stops.touched(active)
        else:
            appends.append((active, self._chunk(active, message)))
            self._stops.touched(active)

    def catch_up(self) -> None:
        """There is space again: tell the newest progress of those that still run."""
        progress, self._progress = self._progress, {}
        self._tell([(active, last) for active, last in progress.items() if not active.settling])

    def _tell(self, progress: Sequence[tuple[Active, Progress]]) -> None:
        if progress:
            self._append([(active, self._chunk(active, last)) for active, last in progress])

    def retire(self, worker: Worker) -> None:
        """No more attempts for this worker; what has not begun of code no longer in force comes back by a recall."""
        seat = self._board.seats.get(worker.id)
        if seat is not None:
            seat.retiring = True
            if any(self._dispatcher.unwelcome(active) for active in seat.outstanding.values()):
                self._stops.recall(seat)
            self._dispatcher.dismiss_if_spent(seat)

    def died(self, worker: Worker, death: Death) -> None:
        """A worker is gone; all it said has been handled."""
        seat = self._board.seats.pop(worker.id, None)
        if seat is None:
            return
        seat.retiring = True
        if seat.watch is not None:
            seat.watch.cancel()
            seat.watch = None
        self._counters["worker_died", worker.kind, death.how] += 1
        ended: Ended = []
        now_us = self._now_us()
        suspected = verdict.suspects(seat.outstanding.values(), seat.orphans, death)
        for active in seat.outstanding.values():
            if active.began_us is None and active.key == death.running:
                active.began_us = death.began_us
            judge = partial(verdict.worker_died, active, death, suspected, now_us, self._uniform)
            self._end(active, judge, ended)
        self._finish(ended)
        orphans = list(seat.orphans.values())
        seat.orphans.clear()
        for active in orphans:
            self._stops.orphan_gone(active)

    # -- ends

    def _end(self, active: Active, judge: Callable[[], Verdict], ended: Ended) -> None:
        """Now, or when the change of state that is on its way has been committed; the first end counts."""
        if not active.stepping:
            ended.append((active, judge()))
        elif active.held is None:
            active.held = lambda: self._finish([(active, judge())])

    def _result(self, active: Active, message: Result, ended: Ended) -> None:
        if active.settling:
            return
        if message.began_us:
            active.began_us = message.began_us
        if active.stop is None:
            active.task.observe(message.run_s)
        again = message.again
        if message.error is None and again is None and active.stop is None:
            ended.append((active, Verdict("succeeded", result=message.body)))
        else:
            judge = partial(verdict.ended, active, message.error, message.body, self._uniform, again)
            self._end(active, judge, ended)

    def _returned(self, active: Active, ended: Ended) -> None:
        self._end(active, partial(verdict.not_begun, active, self._uniform), ended)

    def _late(self, seat: Seat, message: Result) -> None:
        """A result of an attempt that is no longer ours: of a thread that was given up, or fenced."""
        orphan = seat.orphans.pop((message.no, message.epoch), None)
        if orphan is not None:
            self._stops.orphan_gone(orphan)
        self._refuse("result", message.no, message.epoch, orphan)

    def _refuse(self, what: str, no: int, epoch: int, active: Active | None) -> None:
        """Count what came too late. It may come in floods: only who looks for it sees each."""
        self._counters["refused", what] += 1
        self._log.debug(
            "late {what} of row {no} epoch {epoch} refused",
            what=what, no=no, epoch=epoch, job_id=None if active is None else active.job.id, action="late_refused",
        )  # fmt: skip

    # -- streams

    def _chunk(self, active: Active, message: Items | Log | Progress) -> Append:
        """Number what came; the fence and the quota travel with it."""
        job = active.job
        first = job.seq + 1
        at = self._now_us()
        owner = job.owner or ""
        if isinstance(message, Progress):
            job.seq += 1
            active.revision += 1
            chunk = Chunk(
                no=job.no, seq=first, count=1, kind="progress", epoch=job.epoch, at=at, body=message.body
            )
            return Append(chunk, owner, revision=active.revision)
        job.seq += message.count
        if isinstance(message, Items):
            tally = active.tally(f"item:{message.stream}")
            # Items are numbered on over attempts; only the store knows how many earlier attempts gave.
            n = tally.n + 1 if job.epoch == 1 else None
            tally.n += message.count
            tally.add(first, job.seq, len(message.body))
            dropped = tally.drop_over(STREAM_QUOTA_BYTES)
            chunk = Chunk(
                no=job.no, seq=first, count=message.count, kind="item", epoch=job.epoch, at=at, body=message.body,
                stream=message.stream, n=n,
            )  # fmt: skip
        else:
            tally = active.tally("log")
            dropped = (0, 0)
            if tally.head_bytes < LOG_HEAD_BYTES:
                tally.head_bytes += len(message.body)
            else:
                tally.add(first, job.seq, len(message.body))
                dropped = tally.drop_over(LOG_KEEP_BYTES - LOG_HEAD_BYTES)
            chunk = Chunk(
                no=job.no,
                seq=first,
                count=message.count,
                kind="log",
                epoch=job.epoch,
                at=at,
                body=message.body,
            )
        if dropped[1]:
            self._counters["dropped", chunk.kind] += 1
        return Append(chunk, owner, drop_from=dropped[0], drop_through=dropped[1])

    def _append(self, appends: list[tuple[Active, Append]]) -> None:
        for active, _ in appends:
            active.unstored += 1
        answer = self._writes.append([write for _, write in appends])
        answer.addCallbacks(self._appended, self._append_failed, callbackArgs=(appends,))

    def _appended(self, accepted: Sequence[bool], appends: list[tuple[Active, Append]]) -> None:
        """Committed: readers may see it, the producer may send as much again."""
        given: dict[Seat, list[Message]] = {}
        grown: set[bytes] = set()
        for ok, (active, write) in zip(accepted, appends, strict=True):
            chunk = write.chunk
            active.unstored -= 1
            if not ok:  # a fence: the store counts and logs it
                continue
            active.committed = max(active.committed, chunk.last)
            grown.add(active.job.id)
            if chunk.kind == "progress":
                active.job.progress = chunk.body
                active.job.revision = max(active.job.revision, write.revision)
                self._bus.moved(active.job)
            elif not active.settling:
                given.setdefault(active.seat, []).append(
                    Credit(chunk.no, chunk.epoch, chunk.stream or "log", len(chunk.body))
                )
        for seat, messages in given.items():
            seat.worker.send(messages)
        for job_id in grown:
            self._bus.grown(job_id)

    def _append_failed(self, failure: Failure) -> None:
        # A full disk it would have outlived: the daemon is about to end, and the store has said why.
        self._log.failure("the store failed an append", failure, action="append_failed")
