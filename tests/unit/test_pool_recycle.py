"""When workers are recycled: the policy on a Clock, and the pool's part with made-up workers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from jobsvc.model.frames import Begin, Result
from jobsvc.pool.recycle import AGE_JITTER, LOOK_S, RECYCLE_AGAIN_S, Recycler, Recycling, Wear
from tests.conftest import FlushFailures
from tests.unit.test_pool_breaker import break_other
from tests.unit.test_pool_slot import FakePool, states


class Worker:
    def __init__(self, name: str, pid: int) -> None:
        self.id = name
        self.pid: int | None = pid


class Place:
    def __init__(self, kind: str, name: str, pid: int) -> None:
        self.kind = kind
        self.state = "ready"
        self.worker = Worker(name, pid)
        self.wear: Wear | None = None


class Rig:
    """A recycler of made-up workers, each of which got the next random number."""

    def __init__(self, *names: str, **limits: Any) -> None:
        self.clock = Clock()
        self.randoms = [0.0, 1.0, 0.5, 0.5]
        self.rss: dict[int, int] = {}
        self.replaced: dict[str, Deferred[None]] = {}
        self.told: list[tuple[str, str]] = []
        self.held = False
        self.places = [Place(name.split("-")[0], name, pid) for pid, name in enumerate(names)]
        self.recycler = Recycler(
            Recycling(**limits),
            self.clock,
            self.clock.seconds,
            lambda low, high: low + (high - low) * self.randoms.pop(0),
            lambda: self.places,
            self.replace,
            lambda: self.held,
            lambda pid: self.rss.get(pid),  # noqa: PLW0108 - tests put another dict there
            lambda kind, why: self.told.append((kind, why)),
        )
        for place in self.places:
            place.wear = self.recycler.wear(place.kind, place.worker)
        self.recycler.start()

    def replace(self, worker_id: str) -> Deferred[None]:
        self.replaced[worker_id] = Deferred()
        return self.replaced[worker_id]

    def change(self, name: str, *, came: bool = True) -> None:
        """The successor is there, or is not to be had."""
        place = next(place for place in self.places if place.worker.id == name)
        if came:
            place.state = "retiring"
            fresh = Place(place.kind, f"{name}'", 100)
            fresh.wear = self.recycler.wear(place.kind, fresh.worker)
            self.places.append(fresh)
        self.replaced.pop(name).callback(None)

    def gone(self, name: str) -> None:
        self.places = [place for place in self.places if place.worker.id != name]

    def ends(self, name: str, count: int) -> None:
        """So many attempts end there, in one batch."""
        place = next(place for place in self.places if place.worker.id == name)
        assert place.wear is not None
        place.wear.saw([Begin(1, 1, 1), *[Result(1, 1, 1, 0.0)] * count])


def test_without_limits_nothing_is_ever_looked_at() -> None:
    rig = Rig("cpu-1")
    assert rig.clock.getDelayedCalls() == []


def test_ages_differ_and_one_of_a_kind_goes_at_a_time() -> None:
    rig = Rig("cpu-1", "cpu-2", "io-1", age_s=100.0)
    rig.clock.advance(100 * (1 - AGE_JITTER) - 0.1)
    assert not rig.replaced
    rig.clock.pump([LOOK_S] * 2)
    assert list(rig.replaced) == ["cpu-1"]
    rig.clock.pump([LOOK_S] * 30)
    assert list(rig.replaced) == ["cpu-1", "io-1"], "cpu-2 is old too and waits for its turn"
    rig.change("cpu-1")
    assert list(rig.replaced) == ["io-1", "cpu-2"]
    assert rig.told == [("cpu", "age")]
    rig.recycler.stop()
    assert rig.clock.getDelayedCalls() == []


def test_the_last_allowed_job_makes_it_go_at_once() -> None:
    rig = Rig("cpu-1", jobs=50)
    rig.ends("cpu-1", 49)
    rig.clock.pump([LOOK_S] * 5)
    assert not rig.replaced
    rig.ends("cpu-1", 30)
    assert list(rig.replaced) == ["cpu-1"]
    rig.ends("cpu-1", 1000)
    rig.change("cpu-1")
    assert (rig.told, rig.replaced) == ([("cpu", "jobs")], {})
    rig.recycler.stop()


def test_memory_is_looked_at_again_and_again() -> None:
    rig = Rig("io-1", "cpu-1", rss_bytes=1000)
    rig.rss = {0: 1000, 1: 500}
    rig.clock.pump([LOOK_S] * 5)
    assert not rig.replaced
    rig.rss[0] = 1001
    rig.clock.advance(LOOK_S)
    assert list(rig.replaced) == ["io-1"]
    rig.recycler.stop()


def test_a_worker_that_is_born_too_large_is_left_alone() -> None:
    """Its successor would be no smaller: without this they would be replaced without end."""
    rig = Rig("io-1", rss_bytes=1000)
    rig.rss = {0: 1001, 100: 5000}
    rig.clock.advance(LOOK_S)
    rig.change("io-1")
    rig.gone("io-1")
    rig.clock.pump([LOOK_S] * 100)
    assert not rig.replaced
    rig.recycler.stop()


def test_old_workers_never_outnumber_those_that_serve() -> None:
    """Each old one stays as long as its last job: hours, perhaps."""
    rig = Rig("io-1", jobs=1)
    rig.ends("io-1", 1)
    rig.change("io-1")
    rig.ends("io-1'", 1)
    rig.clock.pump([LOOK_S] * 5)
    assert not rig.replaced
    rig.gone("io-1")
    rig.clock.advance(LOOK_S)
    assert list(rig.replaced) == ["io-1'"]
    rig.recycler.stop()


def test_after_a_successor_that_did_not_come_there_is_a_pause(flush_failures: FlushFailures) -> None:
    rig = Rig("cpu-1", jobs=1)
    rig.ends("cpu-1", 1)
    rig.change("cpu-1", came=False)
    rig.clock.advance(RECYCLE_AGAIN_S - 1)
    assert (rig.replaced, rig.told) == ({}, [])
    rig.clock.advance(2)
    rig.replaced.pop("cpu-1").errback(ValueError("no process"))
    assert len(flush_failures(ValueError)) == 1
    rig.clock.advance(RECYCLE_AGAIN_S + 1)
    assert list(rig.replaced) == ["cpu-1"]
    rig.recycler.stop()


def test_while_a_module_is_broken_only_memory_counts() -> None:
    """The successor would lack what the old worker holds."""
    rig = Rig("io-1", jobs=1, rss_bytes=1000)
    rig.held = True
    rig.ends("io-1", 5)
    rig.clock.advance(LOOK_S)
    assert not rig.replaced
    rig.rss = {0: 2000}
    rig.clock.advance(LOOK_S)
    assert list(rig.replaced) == ["io-1"]
    rig.recycler.stop()


# == the pool ======================================================================================================


def test_the_successor_serves_before_the_old_one_retires() -> None:
    """It is counted as recycled, and is no restart."""
    pool = FakePool(1, recycle=Recycling(jobs=2))
    pool.start()
    pool.live("a")
    pool.heard()
    old = pool.processes[1]
    old.owner.messages([Result(1, 1, 1, 0.0), Result(2, 1, 1, 0.0)])
    pool.heard()
    (fresh,) = pool.processes[2:]
    assert states(pool) == {"io-1": "ready", "cpu-1": "ready", "cpu-2": "starting"}
    fresh.load("a")
    assert pool.heard() == [("ready", "cpu-2"), ("retiring", "cpu-1")]
    assert pool._recycled == {("worker_recycled", "cpu", "jobs"): 1}
    assert [row["restarts"] for row in pool.workers()] == [0, 0, 0, 0]
    pool.stop()
    for process in list(pool.processes):
        process.die()
    assert pool.clock.getDelayedCalls() == []


def test_no_worker_is_recycled_for_its_jobs_while_a_module_is_broken() -> None:
    pool = FakePool(1, ("m", "other"), recycle=Recycling(jobs=1))
    pool.start()
    pool.live("a")
    pool.heard()
    break_other(pool)
    pool.processes[0].owner.messages([Result(1, 1, 1, 0.0)])
    assert len(pool.processes) == 2
