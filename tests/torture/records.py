"""What is written down during a run, line by line, and read again for the checks. Moments are CLOCK_MONOTONIC in ns."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from sys import intern
from time import monotonic_ns, time_ns
from typing import Any, Literal, TypeVar

import msgspec

Outcome = Literal["ok", "fail", "info"]
Kind = Literal["submit", "status", "result", "cancel", "events", "list", "patch", "retry", "batch"]

T = TypeVar("T")


class Line(msgspec.Struct, omit_defaults=True, gc=False):
    """One line of the history: an operation is invoked, and later `ok`, `fail` or `info` (nobody knows).

    `key` of a submit; `job` where it is known. Of an ok: `status` of HTTP and what the reply says of the job. Of
    `events`: `ranges` of numbers received in a row, `gaps` of numbers the service said are gone, what each event `said`
    (a digest), whether `end` came. Of `batch`: the `count` of its jobs.
    """

    op: int
    type: Literal["invoke", "ok", "fail", "info"]
    at: int
    wall: int
    client: int = 0
    kind: Kind = "status"
    key: str = ""
    job: str = ""
    status: int = 0
    replayed: bool = False
    mode: str = ""
    state: str = ""
    revision: int = 0
    epoch: int = 0
    finished_at: str | None = None
    result: str | None = None
    after: int = 0
    ranges: tuple[tuple[int, int], ...] = ()
    gaps: tuple[tuple[int, int], ...] = ()
    said: tuple[tuple[int, str], ...] = ()
    ended: bool = False
    count: int = 0
    why: str = ""


class Op(msgspec.Struct, gc=False):
    """An operation, put together: from `invoked` to `ended` (both ns), with what came of it."""

    kind: Kind
    client: int
    key: str
    job: str
    invoked: int
    wall: int
    """Microseconds of the wall clock when it ended."""
    ended: int
    outcome: Outcome
    seen: Line


class Effect(msgspec.Struct, gc=False):
    """One line of a job about itself."""

    what: Literal["start", "effect", "end"]
    mark: str
    job: str | None
    epoch: int | None
    pid: int
    life: str
    at: int
    wall: int
    outcome: str | None = None


class Life(msgspec.Struct):
    """One life of the daemon, from launch to end. `how` it ended; `point`: the crash point it was armed with."""

    name: str
    launched: int
    launched_wall: int = 0
    ready: int | None = None
    ended: int | None = None
    how: Literal["", "killed", "crashed", "terminated", "failed"] = ""
    status: int | None = None
    point: str = ""
    asked: int | None = None
    """When it got SIGTERM."""
    asked_wall: int = 0
    ready_wall: int = 0
    unguarded: bool = False
    """Its guard was killed with it: what had left its tree lives until the next life has swept, before it is ready."""
    orphans_gone_s: float | None = None
    """How long processes that it had started outlived it."""
    orphans: list[str] = []
    """Those that were still there after the time they are given."""


class Deed(msgspec.Struct):
    """What the nemesis did. `hit`: whether it came to pass as planned."""

    kind: str
    at: int
    until: int
    hit: bool
    wall: int = 0
    """When it was done, in microseconds of the wall clock."""
    detail: str = ""


class History:
    """The append-only file of operations. Any thread; a line is one write."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lock = threading.Lock()
        self._ops = 0

    def invoke(self, client: int, kind: Kind, **fields: Any) -> int:
        """An operation is about to be sent; its number."""
        with self._lock:
            self._ops += 1
            op = self._ops
        self._put(Line(op, "invoke", monotonic_ns(), _wall(), client, kind, **fields))
        return op

    def done(self, op: int, outcome: Outcome, **fields: Any) -> Line:
        """What came of it."""
        line = Line(op, outcome, monotonic_ns(), _wall(), **fields)
        self._put(line)
        return line

    def close(self) -> None:
        """Nothing more is written."""
        os.fsync(self._fd)
        os.close(self._fd)

    def _put(self, line: Line) -> None:
        os.write(self._fd, msgspec.json.encode(line) + b"\n")


def _wall() -> int:
    return time_ns() // 1000


def read_lines(path: Path, kind: type[T]) -> Iterator[T]:
    """The lines of a file. The last one may be cut off: its writer was killed."""
    decode = msgspec.json.Decoder(kind).decode
    if not path.exists():
        return
    with path.open("rb") as file:
        for text in file:
            if text.endswith(b"\n"):
                yield decode(text)


def operations(lines: Iterator[Line]) -> list[Op]:
    """Invocations with what came of them, in the order of their ends; what never ended is `info`."""
    open_ops: dict[int, Line] = {}
    done: list[Op] = []
    for line in lines:
        if line.type == "invoke":
            open_ops[line.op] = line
            continue
        begun = open_ops.pop(line.op)
        done.append(_joined(begun, line, line.type))
    done += [_joined(begun, begun, "info") for begun in open_ops.values()]
    return done


def _joined(begun: Line, end: Line, outcome: Outcome) -> Op:
    # A job is read dozens of times: its id is kept once.
    job = end.job = intern(end.job or begun.job)
    end.state, end.finished_at = intern(end.state), None
    return Op(begun.kind, begun.client, intern(begun.key), job, begun.at, end.wall, end.at, outcome, end)
