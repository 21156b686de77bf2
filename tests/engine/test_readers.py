"""Readers: from any point, on to the tail, to the end; they see what is committed, all of it, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from jobsvc.engine import intake
from jobsvc.model.events import Chunk
from jobsvc.model.frames import Credit
from tests.engine.fakes import Event, FakeWorker, PumpedStore, Rig, events_of, read_all, result_of

Slow = tuple[Rig, PumpedStore]


def reading(read: Callable[[int], Any], max_bytes: int = 65_536) -> Deferred[list[Chunk]]:
    return Deferred.fromCoroutine(read(max_bytes))


def summary(events: list[Event]) -> list[tuple[int, str]]:
    return [(event.seq, event.kind) for event in events]


def story(rig: Rig) -> tuple[FakeWorker, Any]:
    """A finished job with one event of every kind: 1 job, 2 running, 3-5 items, 6 log, 7 progress, 8 err, 9 end."""
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    worker.begin(job)
    worker.items(job, "a", "b", "c")
    worker.log(job, "half way")
    worker.progress(job, 1, 2)
    worker.items(job, "oops", stream="err")
    worker.succeed(job, b'"done"')
    return worker, job


def test_the_whole_story_from_the_start(rig: Rig) -> None:
    _, job = story(rig)
    events = rig.read(job)
    assert summary(events) == [
        (1, "job"), (2, "state"), (3, "item"), (4, "item"), (5, "item"), (6, "log"), (7, "progress"), (8, "item"),
        (9, "state"),
    ]  # fmt: skip
    assert [(e.data, e.stream, e.n) for e in events if e.kind == "item"] == [
        ("a", "out", 1), ("b", "out", 2), ("c", "out", 3), ("oops", "err", 1),
    ]  # fmt: skip
    assert (events[0].data["state"], events[0].data["revision"], events[0].data["attempt"]) == (
        "queued",
        1,
        0,
    )
    states = [e.data for e in events if e.kind == "state"]
    assert states == [
        {"state": "running", "reason": None, "attempt": 1, "epoch": 1, "revision": 2},
        {"state": "succeeded", "reason": None, "attempt": 1, "epoch": 1, "revision": 4},
    ]
    assert rig.get(job).revision == 4  # items and logs make no revision, progress does


@pytest.mark.parametrize("after", range(10))
def test_from_any_number(rig: Rig, after: int) -> None:
    """Also from the middle of a chunk."""
    _, job = story(rig)
    assert rig.read(job, after=after) == rig.read(job)[after:]


@pytest.mark.parametrize("max_bytes", [1, 5, 60])
def test_small_pages_hold_the_same(rig: Rig, max_bytes: int) -> None:
    _, job = story(rig)
    reader = rig.engine.reader(rig.get(job), 0, follow=False)
    assert list(read_all(reader.read, 0, max_bytes)) == rig.read(job)


def test_filters(rig: Rig) -> None:
    _, job = story(rig)
    assert summary(rig.read(job, kinds=("state", "log"))) == [(2, "state"), (6, "log"), (9, "state")]
    assert summary(rig.read(job, kinds=("item",), streams=("err",))) == [(8, "item")]
    assert summary(rig.read(job, kinds=("job",))) == [(1, "job")]
    assert summary(rig.read(job, streams=("err",)))[-2:] == [(8, "item"), (9, "state")]


def test_a_page_without_anything_wanted_is_not_the_end(rig: Rig) -> None:
    """Also for a reader that does not follow: what it wants may stand behind that page."""
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    worker.items(job, *range(50))
    worker.items(job, *range(50))
    worker.log(job, "well")
    reader = rig.engine.reader(rig.get(job), 0, kinds=("log",), follow=False)
    assert [event.data["message"] for event in read_all(reader.read, 0, 10)] == ["well"]


def test_more_chunks_than_the_store_gives_in_one_page(rig: Rig) -> None:
    """A stream of small items, one chunk each: none is left out."""
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    worker.begin(job)
    for n in range(2_500):
        worker.items(job, n)
    worker.succeed(job)
    events = rig.read(job)
    assert [event.seq for event in events] == list(range(1, 2_504))
    assert [event.data for event in events if event.kind == "item"] == list(range(2_500))
    reader = rig.engine.item_reader(rig.get(job), "out", 0, None, follow=False)
    assert [event.data for event in read_all(reader.read)] == list(range(2_500))


# -- at the tail -----------------------------------------------------------------------------------------------------


def test_a_reader_at_the_tail_gets_what_comes_and_then_the_end(rig: Rig) -> None:
    worker = rig.worker("io", {"thread": 1})
    first, job = rig.submit("thumbnail"), rig.submit("thumbnail")
    reader = rig.engine.reader(rig.get(job), 0)
    assert [chunk.kind for chunk in result_of(reading(reader.read))] == ["job"]
    for act, expected in (
        (lambda: worker.succeed(first), "state"),  # its claim
        (lambda: worker.items(job, 1), "item"),
        (lambda: worker.log(job, "x"), "log"),
        (lambda: worker.progress(job, 1, 1), "progress"),
        (lambda: rig.cancel(job), "state"),
        (lambda: worker.fail(job, "cancelled"), "state"),
    ):
        waiting = reading(reader.read)
        assert not waiting.called
        act()
        assert [event.kind for event in events_of(result_of(waiting))] == [expected]
    assert result_of(reading(reader.read)) == []
    assert rig.engine.bus._interests == {}


def test_a_retry_is_told_at_the_tail(rig: Rig) -> None:
    worker = rig.worker("io", {"thread": 1})
    job = rig.submit("thumbnail", retries=1)
    reader = rig.engine.reader(rig.get(job), 2)
    waiting = reading(reader.read)
    worker.fail(job)
    assert [event.data["state"] for event in events_of(result_of(waiting))] == ["retrying"]
    waiting = reading(reader.read)
    rig.clock.advance(1.01)
    assert [event.data["state"] for event in events_of(result_of(waiting))] == ["queued", "running"]


def test_a_filtered_reader_waits_for_what_it_wants(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    reader = rig.engine.reader(rig.get(job), 0, kinds=("log",))
    waiting = reading(reader.read)
    worker.items(job, *range(5))
    assert not waiting.called
    worker.log(job, "at last")
    assert summary(events_of(result_of(waiting))) == [(8, "log")]
    waiting = reading(reader.read)
    worker.succeed(job)
    assert result_of(waiting) == []


def test_only_what_is_committed_is_seen(slow: Slow) -> None:
    rig, store = slow
    store.held = False
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    worker.begin(job)
    store.held = True
    reader = rig.engine.reader(rig.get(job), 2)
    waiting = reading(reader.read)
    worker.items(job, 1)
    worker.succeed(job)
    assert not waiting.called
    store.settle_down()
    assert summary(events_of(result_of(waiting)))[0] == (3, "item")
    assert summary(events_of(result_of(reading(reader.read)))) in ([(4, "state")], [])


def test_a_reader_that_does_not_follow_ends_where_the_job_stands(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    worker.items(job, 1)
    assert summary(rig.read(job)) == [(1, "job"), (2, "state"), (3, "item")]


def test_a_reader_leaves_nothing_behind_when_its_client_goes(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    for reader in (rig.engine.reader(job, 2), rig.engine.item_reader(job, "out", 0, None)):
        waiting = reading(reader.read)
        waiting.addErrback(lambda failure: failure.trap(CancelledError) and None)
        waiting.cancel()
        assert rig.engine.bus._interests == {}
    worker.succeed(job)


def test_a_reader_of_a_deleted_job_ends(rig: Rig) -> None:
    _, job = story(rig)
    reader = rig.engine.reader(rig.get(job), 0)
    items = rig.engine.item_reader(rig.get(job), "out", 0, None)
    assert len(result_of(reading(reader.read))) == 1
    result_of(rig.engine.delete(job.id, "default"))
    assert result_of(reading(reader.read)) == []
    assert result_of(reading(items.read)) == []


# -- one stream ------------------------------------------------------------------------------------------------------


def test_one_stream_is_numbered_on_over_attempts(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail", retries=1, backoff={"base_s": 0})
    worker.items(job, "a", "b")
    worker.fail(job)
    rig.clock.advance(0.001)
    worker.items(job, "c")
    worker.items(job, "d", "e")
    worker.succeed(job)
    events = [event for event in rig.read(job) if event.kind == "item"]
    assert [(event.data, event.n) for event in events] == [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)]
    found = rig.get(job)

    def items(after: int, epoch: int | None) -> list[tuple[int | None, object]]:
        reader = rig.engine.item_reader(found, "out", after, epoch)
        chunks: list[Chunk] = []
        while page := result_of(reading(reader.read)):
            chunks += page
        return [(event.n, event.data) for event in events_of(chunks)]

    assert items(0, None) == [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")]
    assert items(0, 2) == [(3, "c"), (4, "d"), (5, "e")]
    assert items(0, 1) == [(1, "a"), (2, "b")]
    assert items(4, 2) == [(4, "d"), (5, "e")]  # the edge skips what lies before in the first chunk
    assert items(5, None) == []


def test_an_item_reader_follows_to_the_end(rig: Rig) -> None:
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    reader = rig.engine.item_reader(job, "out", 0, None)
    waiting = reading(reader.read)
    worker.log(job, "not an item")
    worker.items(job, 1, stream="other")
    assert not waiting.called
    worker.items(job, 2)
    assert [event.data for event in events_of(result_of(waiting))] == [2]
    waiting = reading(reader.read)
    worker.succeed(job)
    assert result_of(waiting) == []


# -- quotas ----------------------------------------------------------------------------------------------------------

BLOCK = "x" * 262_144


def test_past_its_quota_a_stream_loses_its_oldest_items_and_readers_get_a_gap(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "STREAM_QUOTA_BYTES", 1_000_000)
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    early = rig.engine.reader(job, 0)
    result_of(reading(early.read))
    for n in range(8):
        worker.items(job, f"{n}{BLOCK}")
    worker.items(job, "small", stream="other")
    worker.succeed(job)
    events = rig.read(job)
    gaps = [event for event in events if event.kind == "gap"]
    assert [(gap.seq, gap.data) for gap in gaps] == [(7, {"from": 3, "to": 7, "why": "quota"})]
    assert [event.data[0] for event in events if event.stream == "out"] == ["5", "6", "7"]
    assert [event.data for event in events if event.stream == "other"] == ["small"]  # each stream has its own
    seen = set()
    for event in events:
        seen |= set(range(event.data["from"], event.data["to"] + 1)) if event.kind == "gap" else {event.seq}
    assert seen == set(range(1, events[-1].seq + 1))
    reader = rig.engine.item_reader(rig.get(job), "out", 0, None)
    chunks = result_of(reading(reader.read, 10_000_000))
    assert [(chunk.kind, chunk.seq) for chunk in chunks[:2]] == [("gap", 5), ("item", 8)]
    assert rig.engine.counters["dropped", "item"] > 0
    only = rig.engine.item_reader(
        rig.get(job), "out", 0, 1
    )  # of the one attempt there was: missing all the same
    assert [(chunk.kind, chunk.seq) for chunk in result_of(reading(only.read, 10_000_000))[:1]] == [
        ("gap", 5)
    ]


def test_items_of_an_earlier_attempt_are_no_gap(rig: Rig) -> None:
    """Numbers go on over attempts; who wants the last one alone misses nothing of it."""
    worker = rig.worker("io")
    job = rig.submit("thumbnail", retries=1, backoff={"base_s": 0, "max_s": 0})
    worker.items(job, "first")
    worker.fail(job)
    rig.clock.advance(0.01)
    worker.items(job, "second")
    worker.succeed(job)
    reader = rig.engine.item_reader(rig.get(job), "out", 0, 2)
    assert [(chunk.kind, chunk.n) for chunk in result_of(reading(reader.read))] == [("item", 2)]


def test_of_the_output_the_first_and_the_last_are_kept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "LOG_HEAD_BYTES", 100_000)
    monkeypatch.setattr(intake, "LOG_KEEP_BYTES", 1_000_000)
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    for n in range(8):
        worker.log(job, f"{n}{BLOCK}")
    worker.succeed(job)
    events = rig.read(job)
    kept = [event.data["message"][0] for event in events if event.kind == "log"]
    assert (kept[0], kept[-1]) == ("0", "7")
    assert [event.kind for event in events].count("gap") == 1


def test_the_producer_may_send_on_when_its_bytes_are_committed(slow: Slow) -> None:
    rig, store = slow
    store.held = False
    worker = rig.worker("io")
    job = rig.submit("thumbnail")
    store.held = True
    worker.items(job, "abc")
    worker.log(job, "x")
    assert not any(isinstance(message, Credit) for message in worker.sent)
    store.pump()
    given = [(m.stream, m.bytes > 0) for m in worker.sent if isinstance(m, Credit)]
    assert given == [("out", True), ("log", True)]
