"""Readers of one job share its tail: what is new is read and rendered once, whoever comes, dawdles or leaves."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from twisted.internet.task import deferLater

from jobsvc.http import limits, tails
from tests.http.house import House
from tests.http.wire import Wire

NDJSON = {"Accept": "application/x-ndjson"}


def lines(wire: Wire) -> list[Any]:
    [reply] = wire.replies()
    return reply.lines()


def count_reads(house: House, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the store's reads of events and items from now on."""
    reads: list[str] = []

    def counted(name: str, read: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            reads.append(name)
            return read(*args, **options)

        return call

    for name in ("chunks", "items", "get"):
        monkeypatch.setattr(house.store, name, counted(name, getattr(house.store, name)))
    return reads


def test_what_all_wait_for_is_read_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """And handed out in slices, between which others are served; numbers without a gap."""
    readers = 2 * limits.TAIL_SLICE_READERS + 1
    job = house.submit()
    start = house.worker.started[0]
    target = f"/v1/jobs/{job['id']}/events"
    wires = [house.start("GET", target, headers=NDJSON) for _ in range(readers)]
    house.worker.items(start, 0)  # whoever has just come reads the first one for itself
    house.after(0)
    reads = count_reads(house, monkeypatch)
    house.worker.items(start, 1)
    assert reads == ["chunks"]
    assert sum(len(lines(wire)) == 4 for wire in wires) == limits.TAIL_SLICE_READERS
    house.after(0)
    assert len({wire.transport.value().partition(b"\r\n\r\n")[2] for wire in wires}) == 1
    house.worker.succeed(start)
    house.after(0)
    assert [[event["seq"] for event in wire.reply().lines()] for wire in wires] == [
        [1, 2, 3, 4, 5, 5]
    ] * readers
    assert reads.count("get") <= 3  # the end too is looked up and rendered once
    assert len(house.api.edge.tails) == 0


def test_a_slow_reader_holds_nobody_and_little(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has not taken is kept up to a bound; beyond that it reads for itself when it comes back."""
    monkeypatch.setattr(tails, "TAIL_WINDOW_BYTES", 1_000)
    job = house.submit()
    start = house.worker.started[0]
    target = f"/v1/jobs/{job['id']}/streams/out"
    slow, quick = house.start("GET", target), house.start("GET", target)
    house.worker.items(start, 0)
    slow.channel.pauseProducing()
    for n in range(1, 100):
        house.worker.items(start, n)
        assert lines(quick)[-1]["data"] == n
    assert len(lines(slow)) <= 2
    [tail] = house.api.edge.tails._tails.values()
    assert 0 < sum(len(piece.data) for piece in tail._window.values()) <= 1_000
    reads = count_reads(house, monkeypatch)
    slow.channel.resumeProducing()
    assert reads.count("items") <= 2  # what the window has is not read
    assert [line["data"] for line in lines(slow)] == list(range(100))
    house.worker.items(start, 100)
    assert lines(slow) == lines(quick)
    assert tail._window == {}  # all are here
    house.worker.succeed(start)
    assert slow.reply().body == quick.reply().body


def test_who_leaves_is_not_waited_for(house: House) -> None:
    """Also between two slices; the last one leaves nothing behind."""
    readers = limits.TAIL_SLICE_READERS + 5
    job = house.submit()
    start = house.worker.started[0]
    wires = [house.start("GET", f"/v1/jobs/{job['id']}/events") for _ in range(readers)]
    house.worker.items(start, 1)
    house.worker.items(start, 2)
    for wire in wires:
        wire.leave()
    assert len(house.api.edge.tails) == 0
    assert house.engine.bus._interests == {}
    assert [call for call in house.clock.getDelayedCalls() if call.getTime() == house.clock.seconds()] == []
    house.worker.items(start, 3)


def test_a_number_that_is_yet_to_come_is_waited_for_alone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps no one from the tail who waits for an earlier one."""
    job = house.submit()
    start = house.worker.started[0]
    target = f"/v1/jobs/{job['id']}/events?from="
    late = house.start("GET", f"{target}7", headers=NDJSON)
    early = [house.start("GET", f"{target}1", headers=NDJSON) for _ in range(2)]
    house.worker.items(start, 3)
    reads = count_reads(house, monkeypatch)
    for seq in range(4, 9):
        house.worker.items(start, seq)
        assert [[event["seq"] for event in lines(wire)] for wire in early] == [list(range(1, seq + 1))] * 2
        assert [event["seq"] for event in lines(late)] == list(range(7, seq + 1))
        assert len(reads) == seq - 3 + (seq >= 7)  # one for all, and the first one of the late
    for wire in (late, *early):
        wire.leave()


def test_an_error_at_the_tail_cuts_all_who_wait_there(house: House, flush_failures: Any) -> None:
    """None of them is left waiting, or takes its reply for whole."""
    job = house.submit()
    start = house.worker.started[0]
    wires = [house.start("GET", f"/v1/jobs/{job['id']}/events", headers=NDJSON) for _ in range(3)]
    house.worker.items(start, 1)

    def broken(*_: Any) -> Any:
        raise RuntimeError("the disk is gone")

    house.store.chunks = broken
    house.worker.items(start, 2)
    for wire in wires:
        assert wire.transport.disconnecting
        wire.leave()
    assert len(flush_failures(RuntimeError)) == 3
    assert len(house.api.edge.tails) == 0


class Crowd:
    """Readers of every kind of one job that come, stop, go on and leave at any moment; its store is slow."""

    def __init__(self, house: House, random: Random) -> None:
        self._house = house
        self._random = random
        self._job = house.submit("retried", retries=50, backoff={"base_s": 0, "max_s": 0})
        for name in ("chunks", "items"):
            setattr(house.store, name, self._late(getattr(house.store, name)))
        self.readers: list[tuple[str, Wire]] = []
        self._acts = [
            self.come,
            self.come,
            self.say,
            self.say,
            self.say,
            self.stop,
            self.go_on,
            self.leave,
            self.fail,
        ]

    def _late(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            found = read(*args)
            return deferLater(self._house.clock, self._random.random(), lambda: found)

        return call

    def act(self) -> None:
        self._random.choice(self._acts)()

    def come(self) -> None:
        what = self._random.choice(("events?", "events?kinds=log&", "streams/out?", "streams/side?"))
        target = f"/v1/jobs/{self._job['id']}/{what}from={self._random.choice((1, 1, 4, 12))}"
        self.readers.append((target, self._house.start("GET", target, headers=NDJSON)))

    def say(self) -> None:
        start, random = self._house.worker.started[-1], self._random
        if random.random() < 0.3:
            self._house.worker.log(start, "well")
        else:
            self._house.worker.items(start, random.random(), stream=random.choice(("out", "out", "side")))

    def stop(self) -> None:
        for _, wire in self._random.sample(self.readers, min(1, len(self.readers))):
            wire.channel.pauseProducing()

    def go_on(self) -> None:
        for _, wire in self._random.sample(self.readers, min(2, len(self.readers))):
            wire.channel.resumeProducing()

    def leave(self) -> None:
        if len(self.readers) > 3:
            self.readers.pop(self._random.randrange(len(self.readers)))[1].leave()

    def fail(self) -> None:
        if self._random.random() < 0.3:
            self._house.worker.fail(self._house.worker.started[-1])
            self._house.after(0.01)

    def settle(self) -> None:
        for _, wire in self.readers:
            wire.channel.resumeProducing()
        for _ in range(60):
            self._house.after(1)


@pytest.mark.parametrize("seed", range(8))
def test_each_gets_what_it_would_get_alone(house: House, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Whatever the order of things: window and slices of any size, attempts that begin anew."""
    random = Random(seed)
    monkeypatch.setattr(tails, "TAIL_WINDOW_BYTES", random.choice((0, 300, 100_000)))
    monkeypatch.setattr(tails, "TAIL_SLICE_READERS", random.choice((1, 2, 32)))
    crowd = Crowd(house, random)
    for _ in range(120):
        crowd.act()
        house.after(random.choice((0, 0.1, 1)))
    crowd.settle()
    alone = {target: house.start("GET", f"{target}&follow=0", headers=NDJSON) for target, _ in crowd.readers}
    crowd.settle()
    for target, wire in crowd.readers:
        assert lines(wire) == alone[target].reply().lines(), target
    house.worker.succeed(house.worker.started[-1])
    crowd.settle()
    assert all(wire.reply().whole for _, wire in crowd.readers)
    assert len(house.api.edge.tails) == 0
