"""What an attempt says on its way to the daemon: windows, order, lines, progress. No processes, no waiting."""

from __future__ import annotations

import io
import threading

import pytest

from jobsvc.model.errors import JobError
from jobsvc.model.frames import Begin, Items, Log, Message, Progress, Result, Start
from jobsvc.model.limits import ITEM_MAX_BYTES, LOG_LINE_MAX_BYTES, STREAM_WINDOW_BYTES
from jobsvc.worker.attempt import Port, current_port
from jobsvc.worker.blame import TooLarge
from jobsvc.worker.capture import LineWriter
from jobsvc.worker.lines import pieces
from jobsvc.worker.outbox import BATCH_BYTES, Outbox, Outlet


class FreePort(Port):
    """A producer that never waits, so that one thread can play both sides."""

    __slots__ = ("asked_later_s",)

    def press(self, outlet: Outlet) -> None:
        pass

    def later(self, after_s: float) -> None:
        self.asked_later_s = after_s


def make_port(outbox: Outbox, no: int = 1) -> FreePort:
    start = Start(no, 1, bytes(16), "task", "process", 1)
    port = FreePort(start, outbox, threading.Condition())
    port.begin(1_000_000)
    return port


def messages_of(port: Port) -> list[str]:
    """The log messages that may leave."""
    import msgspec

    bodies = [m.body for m in port.take() if isinstance(m, Log)]
    return [msgspec.json.decode(line)["message"] for body in bodies for line in body.split(b"\n")]


def test_output_comes_before_the_result() -> None:
    """Items, an unfinished line and the last progress leave before the result; afterwards nothing does."""
    outbox = Outbox()
    port = make_port(outbox)
    outbox.post(Begin(1, 1, 1_000_000))
    port.item("out", b"1")
    port.item("out", b"2")
    port.write("stdout", "no newline")
    port.progress(b'{"n":1}')
    port.finish(0.5, None, b"null")
    port.item("out", b"3")
    port.write("stdout", "too late\n")
    kinds = [type(message) for message in outbox.collect()]
    assert kinds == [Begin, Items, Log, Progress, Result]
    assert outbox.collect() == []


def test_items_wait_for_credit_and_are_counted_in_bytes() -> None:
    """A window used up holds the stream, another stream goes on; what comes back goes out again."""
    outbox = Outbox()
    port = make_port(outbox)
    text = b"x" * BATCH_BYTES
    for _ in range(STREAM_WINDOW_BYTES // BATCH_BYTES):
        port.item("out", text)
        assert len(outbox.collect()) == 1
    port.item("out", b"1")
    port.item("side", b"2")
    assert [m.stream for m in outbox.collect() if isinstance(m, Items)] == ["side"]
    port.add_credit("out", BATCH_BYTES)
    left = outbox.collect()
    assert [(m.stream, m.count, m.body) for m in left if isinstance(m, Items)] == [("out", 1, b"1")]
    port.add_credit("never used", 1)
    assert outbox.collect() == []


def test_the_end_does_not_wait_for_credit() -> None:
    """What is left of a stream goes with the result, though its window is used up."""
    outbox = Outbox()
    port = make_port(outbox)
    port.item("out", b"x" * STREAM_WINDOW_BYTES)
    outbox.collect()
    port.item("out", b"1")
    assert outbox.collect() == []
    port.finish(0.1, JobError("task_error"), b"")
    assert [type(m) for m in outbox.collect()] == [Items, Result]


def test_producer_waits_as_a_thread_until_there_is_room() -> None:
    """The blocking port holds its thread at a full batch and lets it go when the batch has left."""
    outbox = Outbox()
    start = Start(1, 1, bytes(16), "task", "thread", 1)
    port = Port(start, outbox, threading.Condition())
    put = threading.Event()

    def produce() -> None:
        port.item("out", b"x" * BATCH_BYTES)
        put.set()

    thread = threading.Thread(target=produce)
    thread.start()
    collected: list[Message] = []
    while not collected:
        collected = outbox.collect()
    assert put.wait(10)
    thread.join(10)
    assert isinstance(collected[0], Items)


def test_result_follows_what_was_collected_before() -> None:
    """A batch never holds output of an attempt behind its result, whoever posts in between."""
    outbox = Outbox()
    first, second = make_port(outbox, 1), make_port(outbox, 2)
    first.item("out", b"1")
    second.item("out", b"1")
    first.finish(0.1, None, b"null")
    kinds = [(type(m), getattr(m, "no", 0)) for m in outbox.collect()]
    assert kinds == [(Items, 1), (Result, 1), (Items, 2)]


def test_wakes_once_for_what_gathers() -> None:
    """The sender is woken by the first thing that waits on a source, not by each."""
    woken: list[None] = []
    outbox = Outbox(lambda: woken.append(None))
    port = make_port(outbox)
    port.item("out", b"1")
    port.item("out", b"2")
    assert len(woken) == 1
    outbox.collect()
    port.item("out", b"3")
    assert len(woken) == 2


def test_progress_is_thinned_and_the_last_one_kept() -> None:
    """The first leaves at once, the next ones wait and only the latest is sent."""
    outbox = Outbox()
    port = make_port(outbox)
    port.progress(b"1")
    assert [m.body for m in outbox.collect() if isinstance(m, Progress)] == [b"1"]
    port.progress(b"2")
    port.progress(b"3")
    assert outbox.collect() == []
    assert 0 < port.asked_later_s <= 0.25
    port.finish(0.1, None, b"null")
    assert [m.body for m in outbox.collect() if isinstance(m, Progress)] == [b"3"]


def test_item_over_the_limit_is_refused() -> None:
    """Its size is told, nothing is sent."""
    outbox = Outbox()
    with pytest.raises(TooLarge, match="1,048,577"):
        make_port(outbox).item("out", b"x" * (ITEM_MAX_BYTES + 1))
    assert outbox.collect() == []


def test_lines_are_found_in_pieces() -> None:
    """A line ends at its newline, whatever the writes; a carriage return overwrites; empty lines stay."""
    port = make_port(Outbox())
    for text in ("a", "b\n", "c\r\n\n", "10 %\r", "20 %\r", "30 %", "\n", "rest"):
        port.write("stdout", text)
    assert messages_of(port) == ["ab", "c", "", "30 %"]


def test_line_without_end_does_not_pile_up() -> None:
    """Whole pieces leave before the newline comes; joined they are the line."""
    port = make_port(Outbox())
    for _ in range(5):
        port.write("stdout", "y" * 10_000)
    early = messages_of(port)
    assert [len(piece) for piece in early] == [LOG_LINE_MAX_BYTES] * 3
    port.write("stdout", "\n")
    assert "".join([*early, *messages_of(port)]) == "y" * 50_000


@pytest.mark.parametrize("character", ["x", "ü", "€", "😀"])
def test_pieces_keep_characters_whole(character: str) -> None:
    """Each piece is within the limit in bytes; together they are the line."""
    line = character * 30_000
    found = pieces(line)
    assert "".join(found) == line
    assert max(len(piece.encode()) for piece in found) <= LOG_LINE_MAX_BYTES
    assert all(found)


def test_writer_asks_the_context_then_the_fallback_then_its_own_stream() -> None:
    """Printed text goes to the job of the context, else to the one attempt of the process, else out."""
    outbox = Outbox()
    mine, running = make_port(outbox, 1), make_port(outbox, 2)
    own = io.StringIO()
    fallback: list[Port] = []
    writer = LineWriter("stderr", own, lambda: fallback[0] if fallback else None)
    writer.write("nobody\n")
    fallback.append(running)
    writer.write("the running one\n")
    token = current_port.set(mine)
    try:
        print("mine", file=writer)
        writer.buffer.write(b"bytes \xff\n")
        mine.finish(0.1, None, b"null")
        print("too late", file=writer)
    finally:
        current_port.reset(token)
    assert own.getvalue() == "nobody\ntoo late\n"
    assert messages_of(running) == ["the running one"]
    logs = [m.body for m in outbox.collect() if isinstance(m, Log)]
    assert b'"message":"mine"' in logs[0]
    assert "bytes \ufffd".encode() in logs[0]
    assert b'"level":"warning"' in logs[0]
    with pytest.raises(TypeError):
        writer.write(b"no text")  # type: ignore[arg-type]  # what is tested
