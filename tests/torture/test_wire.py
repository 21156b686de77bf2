"""What a client may say of an operation: it went well, it was refused, or nobody knows."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.torture.kinds import JobSpec
from tests.torture.records import History, Line, operations, read_lines
from tests.torture.wire import Received, Wire

JOB = b'{"id":"job-a","state":"queued","revision":1,"epoch":0,"finished_at":null,"result":null}'
HARD = struct.pack("ii", 1, 0)
"""SO_LINGER: the connection ends with a reset."""


class Answering:
    """A daemon that gives one prepared answer and closes."""

    token = "secret"

    def __init__(self, answer: bytes | None, *, reset: bool = False) -> None:
        self._answer, self._reset = answer, reset
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    def address(self, wait_s: float) -> tuple[str, int]:
        name: tuple[str, int] = self._listener.getsockname()
        return name

    @contextmanager
    def serving(self) -> Iterator[Answering]:
        self._thread.start()
        yield self
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.recv(65_536)
            if self._answer is not None:
                connection.sendall(self._answer)
            if self._reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, HARD)


def reply(status: bytes, body: bytes, *, length: int | None = None, extra: bytes = b"") -> bytes:
    """An HTTP reply, with a Content-Length that may be a lie."""
    size = len(body) if length is None else length
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status, size, extra, body)


@pytest.mark.parametrize(
    ("answer", "reset", "outcome"),
    [
        (reply(b"201 Created", JOB), False, "ok"),
        (reply(b"503 Draining", b"{}"), False, "fail"),
        (reply(b"507 Full", b"{}"), False, "fail"),
        (reply(b"500 Internal", b"{}"), False, "info"),
        (reply(b"201 Created", JOB[:20], length=len(JOB)), False, "info"),
        (b"HTTP/1.1 201 Cre", False, "info"),
        (None, False, "info"),
        (None, True, "info"),
    ],
    ids=["created", "draining", "full", "internal", "half a body", "half a head", "closed", "reset"],
)
def test_what_is_known_of_a_submit(tmp_path: Path, answer: bytes | None, reset: bool, outcome: str) -> None:
    """Only a whole 2xx is an acknowledgement; a reply that breaks off, or none, leaves it open."""
    history = History(tmp_path / "history")
    with Answering(answer, reset=reset).serving() as daemon:
        wire = Wire(daemon, history, 3)
        line = wire.submit({"task": "t", "key": "k"})
        wire.close()
    history.close()
    assert line.type == outcome
    (op,) = operations(read_lines(tmp_path / "history", Line))
    assert (op.kind, op.client, op.key, op.outcome) == ("submit", 3, "k", outcome)
    assert op.job == ("job-a" if outcome == "ok" else "")
    assert op.invoked <= op.ended


def test_replay_is_told(tmp_path: Path) -> None:
    """An acknowledgement of what had been stored before is known as such."""
    history = History(tmp_path / "history")
    answer = reply(b"200 OK", JOB, extra=b"Idempotency-Replayed: true\r\n")
    with Answering(answer).serving() as daemon:
        wire = Wire(daemon, history, 0)
        assert wire.submit({"task": "t", "key": "k"}).replayed
        wire.close()
    history.close()


def test_operation_that_never_ended_is_unknown(tmp_path: Path) -> None:
    """An invocation without a second line, and a last line that is cut off: `info`, not lost."""
    history = History(tmp_path / "history")
    history.invoke(0, "submit", key="k")
    history.close()
    with (tmp_path / "history").open("ab") as file:
        file.write(b'{"op":1,"type":"ok"')
    (op,) = operations(read_lines(tmp_path / "history", Line))
    assert op.outcome == "info"


def test_numbers_of_a_stream_are_kept_as_ranges() -> None:
    """A hole shows as a second range; what the service says is gone is no hole."""
    seen = Received()
    events: list[dict[str, Any]] = [
        {"kind": "log", "seq": seq, "data": {"text": "line"}} for seq in (1, 2, 3, 5, 6)
    ]
    events += [
        {"kind": "gap", "seq": 6, "data": {"from": 7, "to": 9}},
        {"kind": "end", "data": {"state": "failed"}},
    ]
    for event in events:
        seen.take(event)
    assert seen.ranges == [(1, 3), (5, 6)]
    assert seen.gaps == [(7, 9)]
    assert (seen.ended, seen.state) == (True, "failed")
    assert [seq for seq, _ in seen.said] == [1, 2, 3, 5, 6]


UPLOADED = [JobSpec("k1", "t", {}), JobSpec("k2", "t", {}), JobSpec("k3", "t", {})]


@pytest.mark.parametrize(
    ("answer", "outcomes"),
    [
        (reply(b"200 OK", b'{"line":1,"id":"a"}\n{"line":2,"id":"b"}\n{"line":3,"id":"c"}\n'), ["ok"] * 3),
        (reply(b"200 OK", b'{"line":1,"id":"a"}\n{"line":2,"i', length=99), ["ok", "info", "info"]),
        (
            reply(b"200 OK", b'{"line":1,"id":"a"}\n{"line":2,"problem":{"status":507}}\n', length=99),
            ["ok", "fail", "info"],
        ),
        (reply(b"503 Draining", b"{}"), ["fail"] * 3),
        (None, ["info"] * 3),
    ],
    ids=["all", "cut off", "one refused, then cut off", "draining", "closed"],
)
def test_what_is_known_of_an_upload(tmp_path: Path, answer: bytes | None, outcomes: list[str]) -> None:
    """Each line of it stands for itself: what was answered before a break is definite, the rest is open."""
    history = History(tmp_path / "history")
    with Answering(answer).serving() as daemon:
        wire = Wire(daemon, history, 0)
        lines = wire.upload(UPLOADED, "bulk")
        wire.close()
    history.close()
    assert [line.type for line in lines] == outcomes
    ops = operations(read_lines(tmp_path / "history", Line))
    assert {op.key for op in ops} == {"k1", "k2", "k3"}
