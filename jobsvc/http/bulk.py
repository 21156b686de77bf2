"""F3: the intake of a bulk upload: lines are decoded and committed while they arrive. The hottest path of the edge.

Lines are decoded in slices of `BULK_SLICE_S`, go to the store in groups, and the upload is paused while too many are
on their way. What is kept per line until the reply is its id, 16 bytes; work outlives the client that sent it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from jobsvc.engine.admission import late
from jobsvc.http.bodies import SHORT_BYTES, decode_submit, plain_throughout, submit_decoder
from jobsvc.http.budget import Budget
from jobsvc.http.limits import (
    BULK_SLICE_LINES,
    BULK_SLICE_S,
    BULK_UNCOMMITTED_BYTES,
    BULK_UNCOMMITTED_LINES,
    BULK_UNREAD_BYTES,
)
from jobsvc.http.problems import internal
from jobsvc.http.refusals import Refusals
from jobsvc.http.upload import Upload
from jobsvc.model.errors import JobsvcError
from jobsvc.model.job import Job, Submit
from jobsvc.model.limits import BULK_ATOMIC_MAX, BULK_LINES_MAX
from jobsvc.ports import Submitted
from jobsvc.runtime.waiting import Waiters

ID_BYTES = 16
_TIME_CHECK_LINES = 16
"""Lines between two looks at the clock."""

Prepare = Callable[[Submit], Job]
Room = Callable[[int], tuple[int, JobsvcError | None]]
Store = Callable[[Sequence[Job]], Deferred[list[Submitted]]]
Known = Callable[[Sequence[Job]], Awaitable[Sequence[Submitted | None]]]


class Group:
    """Consecutive lines that went to the store together.

    Attributes:
        first, count: their line numbers.
        size: bytes of its lines.
        ids: 16 bytes for each line that was accepted, in order.
        refused: line → why.
        blank: empty lines.
        settled: committed or refused, every one of them.
    """

    __slots__ = ("blank", "count", "first", "ids", "refused", "settled", "size")

    def __init__(self, first: int) -> None:
        self.first = first
        self.count = 0
        self.size = 0
        self.ids = b""
        self.refused: dict[int, JobsvcError] = {}
        self.blank: set[int] = set()
        self.settled = False

    def accepted_lines(self) -> list[int]:
        """Line numbers of what was accepted (or is on the way)."""
        lines = range(self.first, self.first + self.count)
        if not self.refused and not self.blank:
            return list(lines)
        return [line for line in lines if line not in self.refused and line not in self.blank]

    @property
    def accepted(self) -> int:
        """How many of its lines are stored."""
        return len(self.ids) // ID_BYTES

    def take(self, lines: Sequence[int], answers: Sequence[Submitted]) -> None:
        """The store's answers for its lines."""
        for line, answer in zip(lines, answers, strict=True):
            if answer.job is None:
                self.refused[line] = not_taken(answer)
        self.ids = b"".join([answer.job.id for answer in answers if answer.job is not None])


class OnCommitted(Protocol):
    """Told of each group after its commit, before anything of it can have ended."""

    def __call__(self, lines: Sequence[int], answers: Sequence[Submitted]) -> None:
        """`lines` and `answers` go in pairs."""


class BulkIntake:
    """Takes the body of an upload and turns it into groups, in order.

    Args:
        budget: counts the bytes that are held here.
        prepare: an envelope's job, or its refusal.
        room: how many of so many jobs can be taken now, and why not the others.
        known: what became earlier of jobs with keys for which there is no room; None for one that is new.
        crowded: whether to go on only as fast as what was sent before is committed.
        store: accepts jobs; fires after the commit. None: they are only held, for the caller to store all or none.
        line_max_bytes: one line; a longer one is refused alone.

    Attributes:
        held: with `store` None, the jobs of all groups, in order.
    """

    def __init__(
        self,
        upload: Upload,
        clock: IReactorTime,
        budget: Budget,
        prepare: Prepare,
        *,
        room: Room,
        crowded: Callable[[], bool],
        store: Store | None,
        known: Known,
        on_committed: OnCommitted | None,
        line_max_bytes: int,
    ) -> None:
        self._upload = upload
        self._clock = clock
        self._budget = budget
        self._prepare = prepare
        self._room = room
        self._crowded = crowded
        self._store = store
        self._known = known
        self._on_committed = on_committed
        self._line_max_bytes = line_max_bytes
        self.groups: deque[Group] = deque()
        self.held: list[Job] = []
        self.accepted = 0  # jobs that are stored
        self.line = 0  # number of the last line taken
        self._blocks: deque[list[bytes]] = deque()  # lines received and not decoded
        self._unread_bytes = 0
        self._uncommitted = 0
        self._uncommitted_bytes = 0
        self._held_bytes = 0  # of what was received, what is not committed
        self._tail: list[bytes] = []  # parts of a line whose end has not come
        self._tail_bytes = 0
        self._ended = False
        self._scheduled = False
        self._paused = False
        self._moved: Waiters[None] = Waiters()
        self._refusals = Refusals()

    # -- UploadSink

    def data(self, data: bytes) -> None:
        """The next piece of the body."""
        self._held_bytes += len(data)
        self._budget.take(len(data))
        cut = data.rfind(b"\n")
        if cut < 0:
            self._hold(data)
            return
        block = data[:cut]
        if self._tail:
            block = b"".join((*self._tail, block))
        self._tail, self._tail_bytes = [], 0
        if cut + 1 < len(data):
            self._hold(data[cut + 1 :])
        self._take(block.split(b"\n"), len(block))

    def ended(self) -> None:
        """The body is complete; its last line needs no newline."""
        self._ended = True
        if self._tail:
            rest = b"".join(self._tail)
            self._tail = []
            self._take([rest], len(rest))
        elif not self._blocks:
            self._moved.fire(None)

    def _hold(self, part: bytes) -> None:
        """The beginning of a line; of an over-long one only as much as shows that it is."""
        room = self._line_max_bytes + 1 - self._tail_bytes
        kept = min(max(room, 0), len(part))
        if kept:
            self._tail.append(part[:kept])
            self._tail_bytes += kept
        if kept < len(part):
            self._give(len(part) - kept)

    # -- decoding

    def _take(self, lines: list[bytes], size: int) -> None:
        self._blocks.append(lines)
        self._unread_bytes += size
        if not self._scheduled:
            self._slice()

    def _slice(self) -> None:
        """Decode for a while, hand over what that gave, and go on in the next turn of the reactor."""
        self._scheduled = False
        until = self._clock.seconds() + BULK_SLICE_S
        while self._blocks and not self._full():
            self._hand_over(*self._decode(self._blocks.popleft(), until))
            if self._clock.seconds() >= until:
                break
        if self._blocks and not self._full():
            self._scheduled = True
            self._clock.callLater(0, self._slice)
        self._pace()
        if self._ended and not self._blocks:
            self._moved.fire(None)

    def _full(self) -> bool:
        """Whether more lines have to wait for the store. What comes alone never does."""
        return self._uncommitted > 0 and (
            self._uncommitted >= BULK_UNCOMMITTED_LINES
            or self._uncommitted_bytes >= BULK_UNCOMMITTED_BYTES
            or self._crowded()
        )

    def _decode(self, lines: list[bytes], until: float) -> tuple[Group, list[Job]]:
        """A group of as many lines as time allows; what is left of them goes back to the front."""
        group = Group(self.line + 1)
        jobs: list[Job] = []
        if self.line + len(lines) > BULK_LINES_MAX:
            lines = self._cut_off(lines)
        prepare, decode, limit = self._prepare, submit_decoder.decode, self._line_max_bytes
        taken = size = 0
        # One look at the whole block, which is nearly always plain, spares one at each of its lines.
        plain = plain_throughout(lines)
        for text in lines:
            taken += 1
            size += len(text) + 1
            line = self.line + taken
            try:
                if len(text) > limit or line > BULK_LINES_MAX:
                    group.refused[line] = self._refusals.kept(_over_limit(limit, line))
                elif plain and len(text) < SHORT_BYTES:
                    jobs.append(prepare(decode(text)))
                else:
                    jobs.append(prepare(decode_submit(text)))
            except (msgspec.DecodeError, RecursionError):
                if not text or text.isspace():
                    group.blank.add(line)
                else:
                    group.refused[line] = self._refusals.kept(_refusal(text))
            except JobsvcError as error:
                group.refused[line] = self._refusals.kept(error)
            if taken >= BULK_SLICE_LINES or (
                taken % _TIME_CHECK_LINES == 0 and self._clock.seconds() >= until
            ):
                break
        if taken < len(lines):
            self._blocks.appendleft(lines[taken:])
        group.count = taken
        group.size = size
        self.line += taken
        self._unread_bytes -= min(size, self._unread_bytes)
        return group, jobs

    def _cut_off(self, lines: list[bytes]) -> list[bytes]:
        """The lines up to the first beyond the limit, which is refused for all: nothing is kept of those behind it."""
        kept = max(0, BULK_LINES_MAX + 1 - self.line)
        size = sum(map(len, lines[kept:])) + len(lines[kept:])
        self._unread_bytes -= min(size, self._unread_bytes)
        self._give(size)
        return lines[:kept]

    # -- committing

    def _hand_over(self, group: Group, jobs: list[Job]) -> None:
        if len(group.blank) == group.count:  # nothing to store, nothing to answer
            self._give(group.size)
            return
        self.groups.append(group)
        if self._store is None:
            self._hold_back(group, jobs)
            return
        keyed = self._refuse_beyond(group, jobs)
        if not jobs and not keyed:
            self._give(group.size)
            group.settled = True
            self._moved.fire(None)
            return
        count = len(jobs) + len(keyed)
        self._uncommitted += count
        self._uncommitted_bytes += group.size
        try:
            if keyed:
                answer = Deferred.fromCoroutine(self._store_beside(keyed, jobs, group, self._store))
            else:
                answer = self._store(jobs)
        except JobsvcError as error:
            self._lost(Failure(error), group, count)
        else:
            answer.addCallbacks(
                self._committed, self._lost, callbackArgs=(group, count), errbackArgs=(group, count)
            )

    def _refuse_beyond(self, group: Group, jobs: list[Job]) -> dict[int, Job]:
        """Lines for which there is no room are refused, the later ones first. Those of them with a key: line → job."""
        granted, refusal = self._room(len(jobs))
        if refusal is None:
            return {}
        lines = group.accepted_lines()[granted:]
        keyed = {line: job for line, job in zip(lines, jobs[granted:], strict=True) if job.key is not None}
        group.refused |= dict.fromkeys(lines, refusal)
        del jobs[granted:]
        return keyed

    async def _store_beside(
        self, keyed: dict[int, Job], jobs: list[Job], group: Group, store: Store
    ) -> list[Submitted]:
        """Store `jobs`, for which there is room. Lines behind them that repeat a stored key are answered too."""
        answers = await store(jobs) if jobs else []
        try:
            earlier = await self._known(list(keyed.values()))
        except JobsvcError:  # too much is being read: they stay refused, and may be sent again
            return answers
        for line, answer in zip(keyed, earlier, strict=True):
            if answer is not None:
                del group.refused[line]
                answers.append(answer)
        return answers

    def _give(self, size: int) -> None:
        """So much of the body is not held any more."""
        size = min(size, self._held_bytes)
        self._held_bytes -= size
        self._budget.give(size)

    def close(self) -> None:
        """Nobody asks for it any more. What is on its way to the store gets there."""
        self._give(self._held_bytes)
        self.held, self._refusals = [], Refusals()  # not to be kept until the next collection

    def _hold_back(self, group: Group, jobs: list[Job]) -> None:
        group.settled = True
        if len(self.held) + len(jobs) > BULK_ATOMIC_MAX:
            error = JobsvcError("too_large", f"At most {BULK_ATOMIC_MAX} lines are taken with atomic=1.")
            group.refused = dict.fromkeys(group.accepted_lines(), error) | group.refused
        else:
            self.held += jobs

    def _committed(self, answers: Sequence[Submitted], group: Group, count: int) -> None:
        lines = group.accepted_lines()
        group.take(lines, answers)
        self.accepted += group.accepted
        if self._on_committed is not None:
            self._on_committed(lines, answers)
        self._settled(group, count)

    def _lost(self, failure: Failure, group: Group, count: int) -> None:
        error = failure.value
        if not isinstance(error, JobsvcError):
            error = internal(failure, "committing bulk lines")
        for line in group.accepted_lines():
            group.refused[line] = error
        self._settled(group, count)

    def _settled(self, group: Group, count: int) -> None:
        group.settled = True
        self._uncommitted -= count
        self._uncommitted_bytes -= group.size
        self._give(group.size)
        if self._blocks and not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._slice)
        self._pace()
        self._moved.fire(None)

    def _pace(self) -> None:
        """Let the sender wait while the store is behind, and only then."""
        behind = self._full() or self._unread_bytes > BULK_UNREAD_BYTES
        if behind and not self._paused:
            self._paused = True
            self._upload.pause()
        elif (
            self._paused
            and not behind
            and self._uncommitted <= BULK_UNCOMMITTED_LINES // 2
            and self._uncommitted_bytes <= BULK_UNCOMMITTED_BYTES // 2
            and self._unread_bytes <= BULK_UNREAD_BYTES // 2
        ):
            self._paused = False
            self._upload.resume()

    # -- for the reply

    @property
    def complete(self) -> bool:
        """Whether the body has ended and every line of it is decoded."""
        return self._ended and not self._blocks and not self._tail

    async def received(self) -> None:
        """Returns when the body has ended and all its lines are decoded."""
        while not self.complete:
            await self._moved.wait()

    async def next_group(self) -> Group | None:
        """The next group in order, once it is settled; None after the last."""
        while not (self.groups and self.groups[0].settled):
            if self.complete and not self.groups:
                return None
            await self._moved.wait()
        return self.groups.popleft()


def key_reused() -> JobsvcError:
    """The key of a submit belongs to another body."""
    return JobsvcError(
        "key_reused",
        "This idempotency key was used with another body.",
        errors=[{"pointer": "/key", "detail": "belongs to another body"}],
    )


def not_taken(answer: Submitted) -> JobsvcError:
    """Why the store has no job for a submit."""
    return key_reused() if answer.late is None else late(answer.late)


def _over_limit(limit: int, line: int) -> JobsvcError:
    """A line that is not taken for its place or its length."""
    if line > BULK_LINES_MAX:
        words = f"At most {BULK_LINES_MAX} lines are taken at once: not this one, and none behind it."
        return JobsvcError("too_large", words)
    return JobsvcError("too_large", f"The line is longer than {limit} bytes.")


def _refusal(text: bytes) -> JobsvcError:
    """Why a line cannot be decoded; only bad lines pay for the words."""
    try:
        decode_submit(text)
    except JobsvcError as error:
        return error
    raise AssertionError("a line that was refused is refused again")
