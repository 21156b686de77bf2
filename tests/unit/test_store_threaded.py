"""The threaded store: groups gather while a commit runs, answers come in order, failures reach everyone."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from jobsvc.model.errors import CannotWrite, JobsvcError
from jobsvc.ports import Claim, JobFilter, JobPage
from jobsvc.store import threaded
from jobsvc.store.connection import StoreRefused
from jobsvc.store.face import STUCK_S, store_check
from jobsvc.store.reads import Reads
from jobsvc.store.sqlite import Call
from jobsvc.store.threaded import ThreadedStore
from tests.contract.store_harness import ANSWER_S, NOW, PumpedReactor, job_of

T = TypeVar("T")


class Gate:
    """Stands before the writer's groups: counts them, and holds the first one until it is opened."""

    def __init__(self, group: Callable[[Sequence[Call]], list[Any]]) -> None:
        self._group = group
        self.groups: list[list[str]] = []
        self.reached, self.opened = threading.Event(), threading.Event()
        self.trouble: Exception | None = None

    def __call__(self, calls: Sequence[Call]) -> list[Any]:
        self.groups.append([call.kind for call in calls])
        self.reached.set()
        assert self.opened.wait(ANSWER_S)
        if self.trouble is not None:
            raise self.trouble
        return self._group(calls)


class Story:
    """A store on a file, whose writer stands at the gate."""

    def __init__(self, file: Path) -> None:
        self.reactor = PumpedReactor()
        self.fatal: list[Failure] = []
        self.store = ThreadedStore(str(file), "process", self.reactor.provided, self.fatal.append)
        self.reactor.wait(self.store.open())
        self.gate = Gate(self.store._store.group)
        self.store._store.group = self.gate  # type: ignore[method-assign]

    def hold(self) -> Deferred[Any]:
        """Keep the writer busy with one call; returns its answer."""
        answer = self.store.submit([job_of()])
        assert self.gate.reached.wait(ANSWER_S)
        return answer


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    story = Story(tmp_path / "jobs.db")
    yield story
    story.gate.opened.set()
    story.reactor.wait(story.store.close())


def test_a_write_that_does_not_come_back_is_told(story: Story) -> None:
    """F66: the disk hangs, or the thread does: the daemon is not well until it goes on, though its reactor turns."""
    assert store_check(story.store, monotonic() + 1_000)[0], "it has nothing to do"
    held = story.hold()
    assert store_check(story.store, monotonic())[0]
    well, words = store_check(story.store, monotonic() + STUCK_S)
    assert not well
    assert re.match(r"has been in one write for 1\d s; look at the kernel's log", words)
    story.gate.opened.set()
    story.reactor.wait(held)
    assert store_check(story.store, monotonic() + 1_000)[0]


def test_what_gathers_while_the_writer_works_is_one_group(story: Story) -> None:
    """One transaction and one wake-up of the reactor, answers in the order of the calls."""
    first = story.hold()
    order: list[int] = []

    def note(answer: Deferred[T], place: int) -> None:
        def came(value: T) -> T:
            order.append(place)
            return value

        answer.addCallback(came)

    answers = [story.store.submit([job_of()]) for _ in range(50)]
    claim = story.store.claim([Claim("cpu-1", "process", {"count": 100}, 100, NOW)])
    for place, answer in enumerate(answers):
        note(answer, place)
    note(claim, 50)
    story.gate.opened.set()
    story.reactor.wait(first)
    story.reactor.turn()
    assert order == list(range(51))
    assert story.gate.groups == [["submit"], ["submit"] * 50 + ["claim"]]
    assert len(story.reactor.wait(claim)[0]) == 51


def test_a_group_has_a_size(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits behind a very large group does not wait for all of it."""
    monkeypatch.setattr(threaded, "GROUP_ROWS_MAX", 10)
    first = story.hold()
    answers = [story.store.submit([job_of() for _ in range(4)]) for _ in range(5)]
    story.gate.opened.set()
    for answer in [first, *answers]:
        story.reactor.wait(answer)
    assert [len(group) for group in story.gate.groups] == [1, 3, 2]


def test_a_failed_write_reaches_everyone_and_the_daemon(
    story: Story, flush_failures: Callable[..., list[Failure]]
) -> None:
    """Each caller of the group gets it, `on_fatal` once; nothing is written any more after it."""
    first = story.hold()
    second = story.store.submit([job_of()])
    story.gate.trouble = sqlite3.OperationalError("disk I/O error")
    story.gate.opened.set()
    for answer in (first, second, story.store.submit([job_of()])):
        with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
            story.reactor.wait(answer)
    story.gate.trouble = None
    groups = len(story.gate.groups)
    with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        story.reactor.wait(story.store.submit([job_of()]))
    assert len(story.gate.groups) == groups
    assert [failure.type for failure in story.fatal] == [sqlite3.OperationalError]
    assert len(flush_failures(sqlite3.OperationalError)) == 1


def test_a_full_disk_is_a_refusal(story: Story) -> None:
    """Each caller gets `disk_full`; the daemon lives, and the next write is tried."""
    first = story.hold()
    second = story.store.purge(NOW, 10)
    story.gate.trouble = CannotWrite("disk_full", "full")
    story.gate.opened.set()
    for answer in (first, second):
        with pytest.raises(JobsvcError, match="full"):
            story.reactor.wait(answer)
    story.gate.trouble = None
    assert len(story.reactor.wait(story.store.submit([job_of()]))) == 1
    assert story.fatal == []


def test_what_was_asked_in_ignorance_of_a_full_disk_is_refused_too(story: Story) -> None:
    """F32: a later write never passes an earlier one that found no space: an outcome never passes the output."""
    first = story.hold()
    second = story.store.submit([job_of()])
    story.gate.trouble = CannotWrite("disk_full", "full")
    story.gate.opened.set()
    third = story.store.submit([job_of()])
    for answer in (first, second):
        with pytest.raises(JobsvcError, match="full"):
            story.reactor.wait(answer)
    story.gate.trouble = None
    with pytest.raises(JobsvcError) as refused:
        story.reactor.wait(third)
    assert refused.value.code == "disk_full"
    assert len(story.reactor.wait(story.store.submit([job_of()]))) == 1
    assert [len(group) for group in story.gate.groups] == [1, 1], "the second and third were never tried"


def test_too_many_waiting_jobs_are_refused(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submits only; what frees the store is always taken."""
    monkeypatch.setattr(threaded, "SUBMITS_WAITING_MAX", 5)
    first = story.hold()
    second = story.store.submit([job_of() for _ in range(4)])
    with pytest.raises(JobsvcError) as refused:
        story.reactor.wait(story.store.submit([job_of()]))
    assert refused.value.code == "overloaded"
    settled = story.store.settle([])
    story.gate.opened.set()
    for answer in (first, second):
        story.reactor.wait(answer)
    assert story.reactor.wait(settled) == []
    assert len(story.reactor.wait(story.store.submit([job_of()]))) == 1


def test_reads_do_not_wait_for_the_writer(story: Story) -> None:
    """They see what was committed before."""
    first = story.hold()
    assert story.reactor.wait(story.store.list(JobFilter())).jobs == []
    story.gate.opened.set()
    story.reactor.wait(first)
    assert len(story.reactor.wait(story.store.list(JobFilter())).jobs) == 1


def test_a_read_that_fails_harms_no_other(story: Story) -> None:
    """The connection is as good as before."""
    story.gate.opened.set()
    with pytest.raises(sqlite3.Error):
        story.reactor.wait(story.store.get([1]))  # type: ignore[arg-type]
    assert story.reactor.wait(story.store.get(b"1")) is None
    assert story.fatal == []


def test_a_cancelled_write_is_written_all_the_same(story: Story) -> None:
    """A client that leaves does not take back what it has asked for."""
    first = story.hold()
    job = job_of()
    second = story.store.submit([job])
    second.addErrback(lambda _: None)
    second.cancel()
    story.gate.opened.set()
    story.reactor.wait(first)
    story.reactor.wait(story.store.submit([]))
    assert story.reactor.wait(story.store.get(job.id)) is not None


def test_close_finishes_what_was_handed_in(tmp_path: Path) -> None:
    """All of it is answered and in the file, the log is folded into it, the threads are gone."""
    story = Story(tmp_path / "jobs.db")
    answers = [story.hold(), *(story.store.submit([job_of()]) for _ in range(20))]
    read = story.store.list(JobFilter(limit=1))
    closed = story.store.close()
    story.gate.opened.set()
    story.reactor.wait(closed)
    assert all(answer.called for answer in [*answers, read])
    assert not (tmp_path / "jobs.db-wal").exists()
    assert not any(thread.name.startswith("jobsvc-store") for thread in threading.enumerate())
    db = sqlite3.connect(tmp_path / "jobs.db")
    assert db.execute("SELECT count(*) FROM jobs").fetchone() == (21,)
    db.close()


def test_a_database_that_cannot_be_used_fails_the_open(tmp_path: Path) -> None:
    """With the file's name; no thread is left."""
    file = tmp_path / "jobs.db"
    file.write_bytes(b"no database at all, only a text that is long enough " * 40)
    reactor = PumpedReactor()
    store = ThreadedStore(str(file), "power", reactor.provided, lambda _: None)
    with pytest.raises(StoreRefused, match=r"jobs\.db"):
        reactor.wait(store.open())
    store._writer.join(ANSWER_S)
    assert not store._writer.is_alive()


def test_close_of_a_store_that_was_never_opened(tmp_path: Path) -> None:
    """A stop may come before the start has got so far; it waits for nothing, and makes no file."""
    reactor = PumpedReactor()
    store = ThreadedStore(str(tmp_path / "jobs.db"), "power", reactor.provided, lambda _: None)
    reactor.wait(store.close())
    assert list(tmp_path.iterdir()) == []


def test_long_lists_hold_up_nothing_but_lists(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have threads of their own, and so many may wait for those."""
    story.gate.opened.set()
    job = job_of()
    story.reactor.wait(story.store.submit([job]))
    going_on = threading.Event()
    page = Reads.list

    def long(reads: Reads, wanted: JobFilter) -> JobPage:
        assert going_on.wait(ANSWER_S)
        return page(reads, wanted)

    monkeypatch.setattr(Reads, "list", long)
    lists = [story.store.list(JobFilter()) for _ in range(threaded.LISTERS + threaded.LISTS_WAITING_MAX)]
    assert story.store.reads == len(lists)
    with pytest.raises(JobsvcError, match="too much waiting"):
        story.reactor.wait(story.store.list(JobFilter()))
    assert story.reactor.wait(story.store.get(job.id)) is not None
    assert not any(each.called for each in lists)
    going_on.set()
    assert [len(story.reactor.wait(each).jobs) for each in lists] == [1] * len(lists)
