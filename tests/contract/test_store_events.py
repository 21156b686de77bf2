"""The contract of a store: events, streams and attempts. Every store has to pass."""

from __future__ import annotations

from typing import Any

from jobsvc.model.events import Chunk
from jobsvc.model.job import Job
from jobsvc.ports import Append
from tests.contract.store_harness import MANY_BYTES, NOW, Held, end_of, job_of, step_of

_AROUND = ("revision", "drop_from", "drop_through", "owner")


def append_of(job: Job, seq: int, body: bytes = b"1", **fields: Any) -> Append:
    """One chunk of log lines, or with `stream` and `n` of items."""
    kind = fields.pop("kind", "item" if "stream" in fields else "log")
    around: dict[str, Any] = {"owner": job.owner or ""}
    around |= {name: fields.pop(name) for name in _AROUND if name in fields}
    chunk: dict[str, Any] = {
        "no": job.no, "seq": seq, "count": body.count(b"\n") + 1, "kind": kind, "epoch": job.epoch, "at": NOW + 12,
        "body": body,
    }  # fmt: skip
    return Append(chunk=Chunk(**(chunk | fields)), **around)


def test_chunks_are_kept(held: Held) -> None:
    """As they were given, whatever is in them, and the row is not touched."""
    job = held.running()
    given = [
        append_of(job, 3, b'"a"\n"\xc3\xa9"'),
        append_of(job, 5, b'{"x":"\\u0000\'"}', stream="out", n=1),
        append_of(job, 6, b"2", at=NOW + 13, kind="log"),
    ]
    assert held(held.store.append(given)) == [True] * 3
    assert held.chunks(job) == [append.chunk for append in given]
    assert held.row(job) == job


def test_chunks_of_an_older_attempt_are_refused(held: Held) -> None:
    """Of one call only those that the fence refuses are left out."""
    first, second = held.running(), held.running()
    given = [
        append_of(first, 3),
        append_of(first, 4, owner="x"),
        append_of(second, 3, epoch=7),
        append_of(second, 3),
    ]
    assert held(held.store.append(given)) == [True, False, False, True]
    assert [chunk.seq for chunk in held.chunks(first)] == [3]
    assert [chunk.epoch for chunk in held.chunks(second)] == [1]
    held(held.store.settle([end_of(first, seq=4)]))
    assert held(held.store.append([append_of(first, 5)])) == [False]
    assert held.event_numbers(first) == [2, 3, 4]


def test_many_chunks_in_one_call(held: Held) -> None:
    """More than one statement holds."""
    job = held.running()
    assert held(held.store.append([append_of(job, seq) for seq in range(3, 403)])) == [True] * 400
    assert [chunk.seq for chunk in held.chunks(job)] == list(range(3, 403))


def test_progress_stands_in_the_row(held: Held) -> None:
    """The last one of a call, with its number and revision."""
    job = held.running()
    steps = [append_of(job, seq, b'{"n":%d}' % seq, kind="progress", revision=seq) for seq in (3, 4)]
    assert held(held.store.append(steps)) == [True, True]
    row = held.row(job)
    assert (row.progress, row.seq, row.revision) == (b'{"n":4}', 4, 4)
    assert len(held.chunks(job)) == 2
    assert held(held.store.append([append_of(job, 5, kind="progress", revision=5, owner="x")])) == [False]
    assert held.row(job) == row


def test_the_oldest_of_a_stream_go(held: Held) -> None:
    """Whole chunks within the bounds, of that stream and kind only."""
    job = held.running()
    held(
        held.store.append(
            [
                append_of(job, 3, b"1\n2", stream="out", n=1),
                append_of(job, 5, b"3\n4", stream="out", n=3),
                append_of(job, 7, b"1", stream="more", n=1),
                append_of(job, 8, b"line"),
                append_of(job, 9, b"5\n6", stream="out", n=5),
            ]
        )
    )
    late = append_of(job, 11, b"7", stream="out", n=7, drop_from=3, drop_through=9)
    refused = append_of(job, 12, b"8", stream="out", n=8, owner="x", drop_from=3, drop_through=12)
    assert held(held.store.append([late, refused])) == [True, False]
    assert [chunk.seq for chunk in held.chunks(job)] == [7, 8, 9, 11]
    held(held.store.append([append_of(job, 12, b"line", drop_from=1, drop_through=99)]))
    assert [chunk.seq for chunk in held.chunks(job)] == [7, 9, 11]


def test_events_are_read_from_any_number(held: Held) -> None:
    """A chunk that holds the next event is found also when it begins earlier."""
    job = held.running()
    held(
        held.store.append(
            [append_of(job, 3, b"1\n2\n3"), append_of(job, 6, b"4"), append_of(job, 7, b"5\n6")]
        )
    )

    def after(number: int) -> list[int]:
        return [chunk.seq for chunk in held(held.store.chunks(job.no, number, MANY_BYTES))]

    assert [after(number) for number in (0, 2, 4, 5, 6, 7, 8)] == [
        [3, 6, 7], [3, 6, 7], [3, 6, 7], [6, 7], [7], [7], [],
    ]  # fmt: skip


def test_events_are_read_in_pages(held: Held) -> None:
    """About so many bytes, at least one chunk, and following the pages misses nothing."""
    job = held.running()
    held(held.store.append([append_of(job, 3 + i, b"x" * 100) for i in range(50)]))
    assert len(held(held.store.chunks(job.no, 0, 1))) == 1
    assert len(held(held.store.chunks(job.no, 0, 1000))) == 10
    seen, after = [], 0
    while page := held(held.store.chunks(job.no, after, 1000)):
        seen += [chunk.seq for chunk in page]
        after = page[-1].last
    assert seen == list(range(3, 53))


def test_events_are_chosen_by_kind_and_stream(held: Held) -> None:
    """Both at once, also where other chunks lie between."""
    job = held.running()
    held(
        held.store.append(
            [
                append_of(job, 3, stream="out", n=1),
                append_of(job, 4),
                append_of(job, 5, stream="more", n=1),
                append_of(job, 6, b'{"n":1}', kind="progress", revision=3),
            ]
        )
    )

    def chosen(kinds: list[str], streams: list[str], after: int = 0) -> list[int]:
        return [chunk.seq for chunk in held(held.store.chunks(job.no, after, MANY_BYTES, kinds, streams))]

    assert chosen(["log", "progress"], []) == [4, 6]
    assert chosen([], ["out", "more"]) == [3, 5]
    assert chosen(["item"], ["more"], after=3) == [5]
    assert chosen(["log"], ["out"]) == []


def test_items_are_read_by_their_own_numbers(held: Held) -> None:
    """Of one stream, of one epoch or of all."""
    job = held.running()
    held(
        held.store.append(
            [
                append_of(job, 3, b"1\n2\n3", stream="out", n=1),
                append_of(job, 6, b"1", stream="more", n=1),
                append_of(job, 7, b"4", stream="out", n=4),
            ]
        )
    )
    held(held.store.step([step_of(job, "queued", seq=8)]))
    (again,) = held.claimed()
    held(held.store.append([append_of(again, again.seq + 1, b"5\n6", stream="out", n=5)]))

    def numbers(after: int, epoch: int | None = None, max_bytes: int = MANY_BYTES) -> list[int | None]:
        return [chunk.n for chunk in held(held.store.items(job.no, "out", after, max_bytes, epoch))]

    assert numbers(0) == [1, 4, 5]
    assert numbers(2) == [1, 4, 5]
    assert numbers(3) == [4, 5]
    assert numbers(5) == [5]
    assert numbers(6) == []
    assert numbers(0, epoch=1) == [1, 4]
    assert numbers(0, epoch=2) == [5]
    assert numbers(0, max_bytes=1) == [1]
    assert held(held.store.items(job.no, "none", 0, MANY_BYTES, None)) == []


def test_items_without_a_number_go_on_where_the_stream_stands(held: Held) -> None:
    """Within one call, over calls and over attempts; each stream for itself, and refused ones take no number."""
    job = held.running()
    first = [
        append_of(job, 3, b"1\n2", stream="out"),
        append_of(job, 5, b"1", stream="more"),
        append_of(job, 6, b"3", stream="out"),
    ]
    assert held(held.store.append(first)) == [True] * 3
    late = [append_of(job, 7, b"4", stream="out", owner="x"), append_of(job, 7, b"4", stream="out")]
    assert held(held.store.append(late)) == [False, True]
    held(held.store.step([step_of(job, "queued", seq=8)]))
    (again,) = held.claimed()
    assert held(held.store.append([append_of(again, again.seq + 1, b"5", stream="out")])) == [True]
    items = held(held.store.items(job.no, "out", 0, MANY_BYTES, None))
    assert [chunk.n for chunk in items] == [1, 3, 4, 5]
    assert [chunk.n for chunk in held(held.store.items(job.no, "more", 0, MANY_BYTES, None))] == [1]


def test_events_of_a_job_with_everything_are_gapless(held: Held) -> None:
    """Stored and derived events together are numbered without a gap over attempts."""
    job = held.running()
    held(held.store.append([append_of(job, 3, b"1\n2", stream="out", n=1), append_of(job, 5, b"a")]))
    held(held.store.step([step_of(job, "stopping", seq=6, reason="timeout")]))
    held(held.store.step([step_of(job, "retrying", seq=7, revision=4, reason="retry", due_at=NOW + 50)]))
    held(held.store.wake(NOW + 50, 10))
    (again,) = held.claimed()
    held(held.store.append([append_of(again, 10, b"3", stream="out", n=3)]))
    assert held(held.store.settle([end_of(again, seq=11)])) == [True]
    assert held.event_numbers(job) == list(range(2, 12))


def test_reading_what_is_not_there(held: Held) -> None:
    """No events, no attempts, no failure."""
    (job,) = held.submitted(job_of())
    for no in (job.no, 999):
        assert held(held.store.chunks(no, 0, MANY_BYTES)) == []
        assert held(held.store.attempts(no)) == []
