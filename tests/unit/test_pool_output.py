"""Printed text: lines whatever the pieces, the attempt it belongs to, credit for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import msgspec
import pytest

from jobsvc.model.frames import Credit, Log
from jobsvc.model.limits import STREAM_WINDOW_BYTES
from jobsvc.pool.descriptors import Inlet
from jobsvc.pool.lines import Lines, item_body, log_body
from jobsvc.pool.printed import Attempt, Printed


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_lines_do_not_depend_on_how_the_bytes_arrive(size: int) -> None:
    text = b"one\n\ntwo three\nlast"
    lines = Lines()
    found = [line for at in range(0, len(text), size) for line in lines.feed(text[at : at + size])]
    assert found == [b"one", b"", b"two three"]
    assert lines.rest() == [b"last"]
    assert lines.rest() == []


@pytest.mark.parametrize("size", [1, 3, 4, 7, 100])
def test_a_long_line_is_split_and_nothing_is_lost(size: int) -> None:
    text = b"abcdefghij\nkl\n" + b"m" * 9
    lines = Lines(4)
    found = [
        line for at in range(0, len(text), size) for line in lines.feed(text[at : at + size])
    ] + lines.rest()
    assert b"".join(found) == text.replace(b"\n", b"")
    assert max(map(len, found)) <= 4
    assert b"kl" in found


def test_bodies_are_json_texts_one_a_line() -> None:
    """Newlines, quotes and bytes that are no UTF-8 cannot break the framing."""
    body = log_body([b'a "quoted" line', b"\xff"], "stderr")
    assert [msgspec.json.decode(text) for text in body.split(b"\n")] == [
        {"level": "warning", "message": 'a "quoted" line', "source": "stderr", "fields": {}},
        {"level": "warning", "message": "�", "source": "stderr", "fields": {}},
    ]
    assert item_body([b"x", b"tab\t"]) == b'"x"\n"tab\\t"'


class FakeInlet:
    """Holds what a pipe would give at `drain`."""

    def __init__(self) -> None:
        self.paused = False
        self.pending: list[bytes] = []
        self.printed: Printed | None = None
        self.before_drain: Callable[[], None] = lambda: None

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def drain(self) -> None:
        assert self.printed is not None
        pending, self.pending = self.pending, []
        for data in pending:
            self.printed.look()
            self.before_drain()
            self.printed.feed(data)


class Pipe:
    """A Printed with a settable running attempt; `got` is (attempt, messages)."""

    def __init__(self) -> None:
        self._now: Attempt | None = None
        self.latest: tuple[Attempt, int] = ((0, 0), 0)
        self.got: list[tuple[Attempt, list[str]]] = []
        self.sizes: list[int] = []
        self.inlet = FakeInlet()
        self.printed = Printed("cpu-1", "stdout", lambda: self.now, lambda: self.latest, self._take)
        self.inlet.printed = self.printed
        self.printed.inlet = cast("Inlet", self.inlet)

    @property
    def now(self) -> Attempt | None:
        """Who runs."""
        return self._now

    @now.setter
    def now(self, attempt: Attempt | None) -> None:
        if attempt not in (None, self._now):
            self.latest = (attempt, self.latest[1] + 1)
        self._now = attempt

    def _take(self, log: Log) -> None:
        self.sizes.append(len(log.body))
        lines = [msgspec.json.decode(text)["message"] for text in log.body.split(b"\n")]
        assert log.count == len(lines)
        self.got.append(((log.no, log.epoch), lines))

    def read(self, data: bytes) -> None:
        self.printed.look()
        self.printed.feed(data)


def test_a_line_belongs_to_the_attempt_that_runs() -> None:
    pipe = Pipe()
    pipe.now = (7, 2)
    pipe.read(b"hello\nunfini")
    pipe.read(b"shed\n")
    assert pipe.got == [((7, 2), ["hello"]), ((7, 2), ["unfinished"])]


def test_what_is_printed_while_nothing_runs_is_no_attempts() -> None:
    pipe = Pipe()
    pipe.read(b"import noise\n")
    assert pipe.got == []


def test_text_of_an_attempt_that_began_after_the_look_waits_for_its_seal() -> None:
    """By the time the daemon has read it, others may have run: neither they nor the end in hand get it."""
    pipe = Pipe()
    pipe.now = (6, 1)
    pipe.printed.look()
    pipe.now = (7, 1)
    pipe.now = (8, 1)
    pipe.printed.feed(b"six\x1ejobsvc end 6 1\nseven")
    pipe.printed.finish((6, 1))
    assert pipe.got == [((6, 1), ["six"])]
    pipe.inlet.pending = [b" too\n\x1ejobsvc end 7 1\neight\n"]
    pipe.printed.finish((7, 1))
    assert pipe.got[1:] == [((7, 1), ["seven too"]), ((8, 1), ["eight"])]


def test_text_without_a_seal_is_of_the_one_that_had_begun_when_it_was_read() -> None:
    """The first attempt of a task that prints so, read before its end: it finds an empty pipe then."""
    pipe = Pipe()
    pipe.printed.look()
    pipe.now = (7, 1)
    pipe.printed.feed(b"mine")
    assert pipe.printed.holding
    pipe.now = None
    pipe.printed.finish((7, 1))
    assert pipe.got == [((7, 1), ["mine"])]


def test_an_end_takes_what_still_lies_in_the_pipe() -> None:
    """The result of an idle worker's last attempt is read first; its output is delivered before it all the same."""
    pipe = Pipe()
    pipe.inlet.pending = [b"late\nno newline"]
    pipe.printed.finish((7, 1))
    assert pipe.got == [((7, 1), ["late"]), ((7, 1), ["no newline"])]


def test_an_end_leaves_the_next_attempts_unfinished_line_alone() -> None:
    pipe = Pipe()
    pipe.now = (8, 1)
    pipe.read(b"half")
    pipe.printed.finish((7, 1))
    pipe.read(b" and half\n")
    assert pipe.got == [((8, 1), ["half and half"])]


SEALED = b"of seven\npart\x1ejobsvc end 7 1\nof eight\n"


@pytest.mark.parametrize("cut", range(len(SEALED) + 1))
def test_a_seal_tells_two_attempts_apart_wherever_a_read_ends(cut: int) -> None:
    pipe = Pipe()
    first, second = SEALED[:cut], SEALED[cut:]
    pipe.now = (8, 1) if b"end 7 1\n" in first else (7, 1)
    pipe.read(first)
    pipe.now = (8, 1)
    pipe.read(second)
    by_attempt: dict[Attempt, list[str]] = {}
    for attempt, lines in pipe.got:
        by_attempt.setdefault(attempt, []).extend(lines)
    assert by_attempt == {(7, 1): ["of seven", "part"], (8, 1): ["of eight"]}


def test_a_line_that_one_attempt_has_begun_is_not_continued_by_the_next() -> None:
    """All of the first one's text had been read before it ended, so there is no seal."""
    pipe = Pipe()
    pipe.now = (7, 1)
    pipe.read(b"seven")
    pipe.now = (8, 1)
    pipe.printed.finish((7, 1))
    pipe.read(b"eight\nnine")
    pipe.now = None
    pipe.read(b"nobody\n")
    assert pipe.got == [((7, 1), ["seven"]), ((8, 1), ["eight"]), ((8, 1), ["nine"])]


def test_an_end_takes_no_line_that_a_later_attempt_has_begun() -> None:
    """Two ends in one batch: each takes its own."""
    pipe = Pipe()
    pipe.now = (8, 1)
    pipe.read(b"eight")
    pipe.now = None
    pipe.printed.finish((7, 1))
    assert pipe.got == []
    pipe.printed.finish((8, 1))
    assert pipe.got == [((8, 1), ["eight"])]


def test_a_separator_that_starts_no_seal_is_text() -> None:
    pipe = Pipe()
    pipe.now = (1, 1)
    pipe.read(b"a\x1eb\n")
    pipe.read(b"c\x1ejob")
    pipe.read(b"less\n")
    assert [lines for _, lines in pipe.got] == [["a\x1eb"], ["c\x1ejobless"]]


def test_a_full_window_stops_the_pipe_until_credit_comes() -> None:
    pipe = Pipe()
    pipe.now = (3, 1)
    while not pipe.inlet.paused:
        pipe.read(b"x" * 9_999 + b"\n")
    owed = sum(pipe.sizes)
    assert STREAM_WINDOW_BYTES < owed < STREAM_WINDOW_BYTES + 11_000
    assert pipe.printed.settle(Credit(4, 1, "log", 50)) == Credit(4, 1, "log", 50), "another attempt's"
    assert pipe.printed.settle(Credit(3, 1, "out", 50)) == Credit(3, 1, "out", 50), "another stream"
    assert pipe.printed.settle(Credit(3, 1, "log", 20_000)) is None
    assert not pipe.inlet.paused
    assert pipe.printed.owing
    left = pipe.printed.settle(Credit(3, 1, "log", owed))
    assert left == Credit(3, 1, "log", 20_000), "what the worker sent itself is passed on"
    assert not pipe.printed.owing


def test_the_end_of_an_attempt_forgives_what_it_owes() -> None:
    """An ended attempt gets no more credit; the pipe must not stay shut for the next one."""
    pipe = Pipe()
    pipe.now = (3, 1)
    while not pipe.inlet.paused:
        pipe.read(b"x" * 9_999 + b"\n")
    pipe.now = None
    pipe.printed.finish((3, 1))
    assert not pipe.inlet.paused
    assert not pipe.printed.owing


def test_the_tail_is_what_was_printed_last() -> None:
    pipe = Pipe()
    pipe.read(b"x" * 10_000 + b"\n")
    pipe.read(b"the end\n")
    assert pipe.printed.tail().endswith("x\nthe end")
    assert len(pipe.printed.tail()) <= 4096
