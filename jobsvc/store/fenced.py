"""F2: the writes of attempts: chunks, outcomes, steps. Each names its attempt, and an older one changes nothing.

A batch is one statement for many attempts. When it changes fewer rows than it has, some fence has refused: then
`Short` ends the transaction, and it is done again with one statement for each, and each refusal gets its reason.
Runs inside the writer's transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple, TypeVar

from jobsvc.model.crashpoints import crash
from jobsvc.model.events import Chunk
from jobsvc.model.job import RESULT_LARGE
from jobsvc.model.limits import INLINE_MAX_BYTES
from jobsvc.model.states import ACTIVE, FINAL, State
from jobsvc.ports import Append, Settled, Step, WriteRefusal
from jobsvc.store import statements as sql
from jobsvc.store.rows import CHUNK_COLUMNS
from jobsvc.store.session import Refused, Session, Short, run_alike, run_rows, worth_sharing

T = TypeVar("T")

STEPS_TO: Final[frozenset[State]] = frozenset(("stopping", "retrying", "queued"))


class Fence(NamedTuple):
    """The attempt that a write names."""

    no: int
    epoch: int
    owner: str


def each_or_all(
    session: Session,
    what: str,
    write: Callable[[Sequence[T]], int],
    rows: Sequence[T],
    fence: Callable[[T], Fence],
    *,
    each: bool,
) -> list[bool]:
    """Which of `rows` were written. All at once; or each alone, when it is known that a fence refuses some.

    Args:
        what: the kind of the writes, for the note of a refusal.
        fence: the attempt that a row names.

    Raises:
        Short: all at once, and not all were written.
    """
    if each:
        return [write([row]) == 1 or _note(session, what, fence(row)) for row in rows]
    if rows and write(rows) != len(rows):
        raise Short
    return [True] * len(rows)


def _note(session: Session, what: str, fence: Fence) -> Literal[False]:
    """Remember why this write was refused, for when the transaction has been committed."""
    row = session.db.execute(sql.REFUSED_ROW, (fence.no,)).fetchone()
    job_id = None if row is None else row[0]
    session.refused.append(Refused(what, job_id, *fence, _reason(fence, row)))
    return False


def _reason(fence: Fence, row: tuple[bytes, int, str | None, State] | None) -> WriteRefusal:
    if row is None:
        return "gone"
    _, epoch, owner, state = row
    if epoch != fence.epoch:
        return "epoch"
    if state in FINAL:
        return "final"
    if state in ACTIVE and owner != fence.owner:
        return "owner"
    return "state"


def _of_append(append: Append) -> Fence:
    return Fence(append.chunk.no, append.chunk.epoch, append.owner)


def _of_end(end: Settled | Step) -> Fence:
    return Fence(end.no, end.epoch, end.owner)


# -- chunks ----------------------------------------------------------------------------------------------------------


def append(session: Session, appends: Sequence[Append], *, each: bool) -> list[bool]:
    """Store chunks of running attempts."""
    return each_or_all(session, "append", partial(_append, session), appends, _of_append, each=each)


def _append(session: Session, appends: Sequence[Append]) -> int:
    values: list[Any] = []
    numbered: dict[tuple[int, str | None], int] = {}
    for a in appends:
        c = a.chunk
        n = c.n
        if n is None and c.kind == "item":
            n = _next_item(session, numbered, c)
        values += (c.no, c.seq, c.count, c.kind, c.epoch, c.stream, n, c.at, c.body, a.owner)
    written = run_rows(session, sql.insert_chunks, values, len(CHUNK_COLUMNS) + 1)
    if written != len(appends):
        return written
    progress: dict[int, Append] = {a.chunk.no: a for a in appends if a.chunk.kind == "progress"}
    for last in progress.values():
        newest = last.chunk.body.rsplit(b"\n", 1)[-1]
        session.db.execute(sql.PROGRESS, (newest, last.chunk.last, last.revision, *_of_append(last)))
    for a in appends:
        if a.drop_from:
            parameters = (a.chunk.no, a.chunk.kind, a.chunk.stream, a.drop_from, a.drop_through)
            session.db.execute(sql.DROP_CHUNKS, parameters)
    return written


def _next_item(session: Session, numbered: dict[tuple[int, str | None], int], chunk: Chunk) -> int:
    """The number of the chunk's first item: a further attempt goes on where the earlier ones left the stream."""
    place = (chunk.no, chunk.stream)
    first = numbered.get(place)
    if first is None:
        first = int(session.value(sql.NEXT_ITEM, *place))
    numbered[place] = first + chunk.count
    return first


# -- outcomes --------------------------------------------------------------------------------------------------------


def settle_and_step(
    session: Session, ends: Sequence[Settled], steps: Sequence[Step], *, each: bool
) -> tuple[list[bool], list[bool]]:
    """Record outcomes, then steps; but a step that was numbered before the outcome of its own job comes before it.

    Such a pair meets in one group when a result overtakes the cancel that is being written.
    """
    end_seq = {end.no: end.seq for end in ends} if steps else {}
    early = [place for place, step in enumerate(steps) if step.seq < end_seq.get(step.no, 0)]
    stepped = [False] * len(steps)
    for place, written in zip(
        early, _step_all(session, [steps[place] for place in early], each=each), strict=True
    ):
        stepped[place] = written
    _no_two(ends, each=each)
    ended = each_or_all(session, "settle", partial(_settle, session), ends, _of_end, each=each)
    if ends:
        crash("CP9")
    late = [place for place in range(len(steps)) if place not in set(early)] if early else range(len(steps))
    for place, written in zip(
        late, _step_all(session, [steps[place] for place in late], each=each), strict=True
    ):
        stepped[place] = written
    return ended, stepped


def _no_two(writes: Iterable[Settled | Step], *, each: bool) -> None:
    # UPDATE FROM takes any one of two changes of the same row; one by one the order of the calls decides.
    nos = [write.no for write in writes]
    if not each and len(set(nos)) < len(nos):
        raise Short


_shared = attrgetter("state", *sql.SETTLE_SHARED)
_own = attrgetter(*sql.SETTLE_OWN)


def _settle(session: Session, ends: Sequence[Settled]) -> int:
    shapes: defaultdict[tuple[Any, ...], list[Settled]] = defaultdict(list)
    others: list[Settled] = []
    for end in ends:
        if end.error is None and (end.result is None or len(end.result) <= INLINE_MAX_BYTES):
            shapes[_shared(end)].append(end)
        else:
            others.append(end)
    alike, few = worth_sharing(shapes)
    changed = 0
    for (state, *shared), same in alike.items():
        _check_target(state, FINAL)
        values: list[Any] = []
        for end in same:
            values += _own(end)
        changed += run_alike(session, partial(sql.settle_alike, state), shared, values, len(sql.SETTLE_OWN))
    return changed + _settle_full(session, others + few)


def _settle_full(session: Session, ends: Sequence[Settled]) -> int:
    by_state: defaultdict[State, list[Any]] = defaultdict(list)
    texts: list[Any] = []
    for e in ends:
        result, large = e.result, 0
        if result is not None and len(result) > INLINE_MAX_BYTES:
            texts += (e.no, RESULT_LARGE, result)
            result, large = None, RESULT_LARGE
        by_state[e.state] += (
            e.reason, e.attempt, e.losses, e.started_at, e.finished_at, e.seq, e.revision, result, e.error, large,
            e.no, e.epoch, e.owner,
        )  # fmt: skip
    changed = 0
    for state, values in by_state.items():
        _check_target(state, FINAL)
        changed += run_rows(session, partial(sql.settle, state), values, len(sql.SETTLE_FIELDS) + 3)
    if changed == len(ends):
        run_rows(session, sql.insert_payload, texts, 3)
    return changed


def _check_target(state: State, allowed: Iterable[State]) -> None:
    # The state becomes part of the statement's text.
    if state not in allowed:
        raise ValueError(f"an active job does not become {state!r} this way")


# -- steps -----------------------------------------------------------------------------------------------------------


def _step_all(session: Session, steps: Sequence[Step], *, each: bool) -> list[bool]:
    """Change active jobs without ending them, with their state events and the attempts that ended."""
    _no_two(steps, each=each)
    return each_or_all(session, "step", partial(_step, session), steps, _of_end, each=each)


def _step(session: Session, steps: Sequence[Step]) -> int:
    by_state: defaultdict[State, list[Any]] = defaultdict(list)
    moments: defaultdict[int, list[int]] = defaultdict(list)
    records: list[Any] = []
    for s in steps:
        by_state[s.to] += (s.reason, s.attempt, s.losses, s.due_at, s.seq, s.revision, s.no, s.epoch, s.owner)
        moments[s.at].append(s.no)
        r = s.record
        if r is not None:
            records += (s.no, r.epoch, r.attempt, r.state, r.began_at, r.finished_at, r.worker, r.error)
    changed = 0
    for state, values in by_state.items():
        _check_target(state, STEPS_TO)
        changed += run_rows(session, partial(sql.step, state), values, len(sql.STEP_FIELDS) + 3)
    if changed == len(steps):
        for at, nos in moments.items():
            session.state_chunks(nos, at)
        run_rows(session, sql.insert_attempts, records, sql.ATTEMPT_WIDTH)
    if "retrying" in by_state:
        crash("CP12")
    return changed
