"""F0: the messages of the control channel between daemon and worker, and how they travel.

A frame is a head of 8 bytes and a msgpack array of messages: one decode call for a whole batch. The head is the length
and the length once more in disguise, both big-endian: what a task writes on the channel by mistake shows at once, and
is not waited for as a frame of megabytes. The length's top bit says that parts of bodies are among them. A message is
an array that starts with its tag. Bodies are opaque encoded bytes; above `PART_BYTES` they travel ahead of their
message in `Part`s, so that no large value holds up a channel that carries a hundred jobs.

An attempt is named by (no, epoch): the job's row number and its epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import msgspec

from jobsvc.model.clock import TIME_MAX_US
from jobsvc.model.errors import JobError
from jobsvc.model.limits import ARGS_CEILING_BYTES, DURATION_MAX_S, FRAME_MAX_BYTES, PART_BYTES
from jobsvc.model.task import TaskSpec

PROTO = 3
"""Version of this table; a worker of another version is refused at `Hello`."""


# What a worker says is made by code that is not ours: no number in it may be one that the database cannot hold, as a
# write that fails ends the daemon, and would end it anew with every start of the job.
Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
TimeUs = Annotated[int, msgspec.Meta(ge=0, le=TIME_MAX_US)]
Count = Annotated[int, msgspec.Meta(ge=0, le=FRAME_MAX_BYTES)]
"""Of texts in one body; each has a byte at least."""
Seconds = Annotated[float, msgspec.Meta(ge=0, le=2**32)]
"""More than a century is a lie, and NaN or infinity would spoil every mean that they come into."""


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages."""


# -- worker to daemon ---------------------------------------------------------------------------------------------


class Hello(Message, tag=1):
    """First message of a worker: who it is and to which start of the daemon it belongs."""

    proto: int
    pid: int
    boot: str


class Manifest(Message, tag=2, gc=True):
    """What the worker can run.

    `modules`: for each module that has loaded, the names of the tasks it holds. `errors`: for each other one its
    traceback, or what else is wrong with it; `tasks` has none of its.
    """

    tasks: list[TaskSpec]
    modules: dict[str, list[str]] = {}
    errors: dict[str, str] = {}


class Begin(Message, tag=3):
    """The attempt's code starts now; `at_us` is the wall clock."""

    no: Number
    epoch: Number
    at_us: TimeUs


class Again(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the attempt's code has said about running again.

    `retry`: this error is worth it, after `after_s` (None: the policy's backoff). `never`: this error is not. `snooze`:
    there is no error, it only waits, for `after_s` or until the wall clock says `at_us`.
    """

    how: Literal["retry", "never", "snooze"]
    after_s: Annotated[float, msgspec.Meta(ge=0, le=DURATION_MAX_S)] | None = None
    at_us: Number | None = None


class Result(Message, tag=4, gc=True):
    """The attempt ended: `error` is None and `body` the JSON of the result, or `error` says why (kind, type, …).

    `began_us` is the wall clock at begin, `run_s` the time it ran. With `again` of a snooze there is neither.
    """

    no: Number
    epoch: Number
    began_us: TimeUs
    run_s: Seconds
    error: JobError | None = None
    parts: Count = 0
    body: bytes = b""
    again: Again | None = None


class Items(Message, tag=5):
    """`count` items of one stream: their JSON texts joined by newlines."""

    no: Number
    epoch: Number
    stream: str
    count: Count
    parts: Count = 0
    body: bytes = b""


class Log(Message, tag=6):
    """`count` log events: JSON objects {"level","message","fields","source"} joined by newlines."""

    no: Number
    epoch: Number
    count: Count
    parts: Count = 0
    body: bytes = b""


class Progress(Message, tag=7):
    """The latest progress: JSON {"n","of","note"}. Workers send at most one per `PROGRESS_EVERY_S`, and the last."""

    no: Number
    epoch: Number
    body: bytes


class Returned(Message, tag=8):
    """Attempts that had not begun and will not: the answer to `Recall` and to a `Cancel` of one not begun."""

    attempts: list[tuple[Number, Number]]


class Pong(Message, tag=9):
    """The answer to `Ping`. From an io worker it comes from its loop, so it proves that the loop turns."""

    n: Number
    rss_bytes: Number = 0


class Loading(Message, tag=17):
    """The worker is about to import this module: should it hang or die in there, that one is to blame."""

    module: str


# -- daemon to worker ---------------------------------------------------------------------------------------------


class Start(Message, tag=10):
    """Run this attempt. `body` is the JSON of the arguments; `run_s` the run timeout (for `ctx.deadline`); `origin` the
    request id and the traceparent of the request that made the job, None when it brought neither. `secret_key` opens
    the secrets in `body`: it is of this job alone.
    """  # fmt: skip

    no: int
    epoch: int
    id: bytes
    task: str
    executor: str
    attempt: int
    run_s: float | None = None
    quick: bool = False
    parts: int = 0
    body: bytes = b""
    origin: tuple[str | None, str | None] | None = None
    secret_key: bytes = b""


class Cancel(Message, tag=11):
    """Ask the attempt to stop; `reason` is `cancel_asked`, `timeout` or `drained`."""

    no: int
    epoch: int
    reason: str


class Recall(Message, tag=12):
    """Give back all attempts that have not begun."""


class Credit(Message, tag=13):
    """The producer may send so many more bytes of that stream (`log` for output)."""

    no: int
    epoch: int
    stream: str
    bytes: int


class Ping(Message, tag=14):
    """Are you there?"""

    n: int


class Quit(Message, tag=15):
    """Finish what has begun, then exit."""


# -- both ---------------------------------------------------------------------------------------------------------


class Part(Message, tag=16):
    """A piece of the body of a later message of the same attempt; `key` says which: see `split`."""

    no: Number
    epoch: Number
    data: bytes


FromWorker = Hello | Loading | Manifest | Begin | Result | Items | Log | Progress | Returned | Pong | Part
ToWorker = Start | Cancel | Recall | Credit | Ping | Quit | Part
Bodied = Result | Items | Log | Start

_HEAD_BYTES = 8
_DISGUISE = 0x6A6F6273
"""What the second half of a head differs by from the first."""
_encoder = msgspec.msgpack.Encoder()


def encode(messages: Sequence[Message]) -> bytes:
    """These messages as one frame, or as several when large bodies are among them."""
    if not any(len(getattr(message, "body", b"")) > _LARGE_BYTES for message in messages):
        return _frame(messages)
    frames: list[bytes] = []
    held: list[Message] = []
    size = 0
    for message in messages:
        for piece in split(message):
            held.append(piece)
            size += len(getattr(piece, "body", b"")) + len(getattr(piece, "data", b""))
            if size >= PART_BYTES:
                frames.append(_frame(held, _HAS_PARTS))
                held, size = [], 0
    if held:
        frames.append(_frame(held, _HAS_PARTS))
    return b"".join(frames)


_LARGE_BYTES = 4096
"""Batches in which no body is larger stay far below a frame's limit (at most `PREFETCH_JOBS` messages of 4 KiB)."""


_HAS_PARTS = 1 << 31
"""In a frame's length; the others need no look at each message."""


def _frame(messages: Sequence[Message], flag: int = 0) -> bytes:
    payload = _encoder.encode(messages)
    return head(len(payload) | flag) + payload


def head(length: int) -> bytes:
    """The head of a frame of this length, the top bit with it."""
    return (length << 32 | length ^ _DISGUISE).to_bytes(_HEAD_BYTES, "big")


def split(message: Message) -> Iterator[Message]:
    """The message itself, or its body in `Part`s and then the message with the rest.

    A sender must not put another bodied message of the same attempt between the parts and their message.
    """
    body: bytes = getattr(message, "body", b"")
    if len(body) <= PART_BYTES or isinstance(message, Progress):
        yield message
        return
    assert isinstance(message, (Result, Items, Log, Start))
    cuts = range(0, len(body) - PART_BYTES, PART_BYTES)
    for at in cuts:
        yield Part(message.no, message.epoch, body[at : at + PART_BYTES])
    rest = body[len(cuts) * PART_BYTES :]
    yield msgspec.structs.replace(message, parts=len(cuts), body=rest)


PARTS_MAX_BYTES = 2 * ARGS_CEILING_BYTES
"""Of all parts that wait for their message: a sender sends them in one go, so there is one such message at a time, and
the largest are arguments, of which secrets grow when they are sealed."""


class FrameError(Exception):
    """The peer sent what is no frame of ours; the channel must be closed."""


class Deframer:
    """Bytes in, messages out; keeps the parts of a frame in a list and joins them once.

    Args:
        union: `FromWorker` or `ToWorker`, what the peer may send.
    """

    def __init__(self, union: object) -> None:
        self._decode = msgspec.msgpack.Decoder(list[union]).decode  # type: ignore[valid-type]
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = _HEAD_BYTES
        self._parts: dict[tuple[int, int], list[bytes]] = {}
        self._parts_bytes = 0

    def feed(self, data: bytes) -> list[Message]:
        """All messages that are complete with `data`, with split bodies joined.

        Raises:
            FrameError: the length is out of bounds, or the payload is not a list of known messages.
        """
        self._chunks.append(data)
        self._have += len(data)
        if self._have < self._need:
            return []
        buffer = b"".join(self._chunks) if len(self._chunks) > 1 else data
        out: list[Message] = []
        at, end = 0, len(buffer)
        self._need = _HEAD_BYTES
        while end - at >= _HEAD_BYTES:
            length, check = divmod(int.from_bytes(buffer[at : at + _HEAD_BYTES], "big"), 1 << 32)
            size = length & ~_HAS_PARTS
            if check != length ^ _DISGUISE:
                raise FrameError(f"{buffer[at : at + _HEAD_BYTES].hex(' ')} is the head of no frame")
            if not 0 < size <= FRAME_MAX_BYTES:
                raise FrameError(f"frame of {size} bytes")
            at += _HEAD_BYTES
            if end - at < size:
                at -= _HEAD_BYTES
                self._need = size + _HEAD_BYTES
                break
            try:
                messages = self._decode(memoryview(buffer)[at : at + size])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise FrameError(str(error)) from None
            at += size
            out += self._joined(messages) if length & _HAS_PARTS else messages
        self._chunks = [buffer[at:]] if at < end else []
        self._have = end - at
        return out

    def _joined(self, messages: list[Message]) -> list[Message]:
        """`messages` with their bodies whole, and without the parts."""
        out: list[Message] = []
        for message in messages:
            if isinstance(message, Part):
                self._parts.setdefault((message.no, message.epoch), []).append(message.data)
                self._parts_bytes += len(message.data)
                if self._parts_bytes > PARTS_MAX_BYTES:
                    raise FrameError(f"parts of {self._parts_bytes} bytes whose message has not come")
                continue
            if isinstance(message, (Result, Items, Log, Start)) and message.parts:
                pieces = self._parts.pop((message.no, message.epoch), [])
                if len(pieces) != message.parts:
                    raise FrameError(f"{len(pieces)} parts where {message.parts} were announced")
                self._parts_bytes -= sum(map(len, pieces))
                message.body = b"".join((*pieces, message.body))
                message.parts = 0
            out.append(message)
        return out
