"""The control channel: what one side encodes the other side decodes, however the bytes are cut."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.model.errors import Exit, JobError, Where
from jobsvc.model.frames import (
    Again,
    Begin,
    Cancel,
    Credit,
    Deframer,
    FrameError,
    FromWorker,
    Hello,
    Items,
    Loading,
    Log,
    Manifest,
    Message,
    Part,
    Ping,
    Pong,
    Progress,
    Quit,
    Recall,
    Result,
    Returned,
    Start,
    ToWorker,
    encode,
    head,
    split,
)  # fmt: skip
from jobsvc.model.limits import FRAME_MAX_BYTES, PART_BYTES, RESULT_MAX_BYTES
from jobsvc.model.task import CommandSpec, Policy, Port, TaskSpec

SPEC = TaskSpec(
    name="cat", module="m", executor="command", args_tree=b"\x80", args_schema=b"{}", result_schema=b"{}",
    policy=Policy(max_attempts=3), ports=(Port("out", "out"),), command=CommandSpec(("cat", "{path}"), env={"A": "b"}),
)  # fmt: skip
ERROR = JobError(
    "crashed",
    "pkg.Error",
    "bad",
    traceback="…",
    exit=Exit(signal=9, name="SIGKILL"),
    where=Where("process", "w", 1, 2),
)
FROM: list[Message] = [
    Hello(1, 42, "boot"),
    Loading("tasks"),
    Manifest([SPEC], {"tasks": ["render"]}),
    Manifest([], {}, {"tasks": "Traceback"}),
    Begin(1, 2, 3),
    Result(1, 2, 3, 0.25, None, 0, b'"x"'),
    Result(1, 2, 0, 0.25, ERROR),
    Result(1, 2, 3, 0.25, ERROR, again=Again("retry", 7.5)),
    Result(1, 2, 3, 0.25, again=Again("snooze", at_us=1_795_000_000_000_000)),
    Items(1, 2, "out", 3, 0, b"1\n2\n3"),
    Log(1, 2, 1, 0, b"{}"),
    Progress(1, 2, b'{"n":1}'),
    Returned([(1, 2), (3, 4)]),
    Pong(7, 1_000),
]
TO: list[Message] = [
    Start(1, 2, bytes(16), "cat", "command", 1, 2.5, quick=True, body=b'{"path":"x"}'),
    Start(1, 2, bytes(16), "cat", "command", 1, origin=("request-1", None)),
    Cancel(1, 2, "timeout"),
    Recall(),
    Credit(1, 2, "out", 300),
    Ping(7),
    Quit(),
]


def framed(text: bytes, *, parts: bool = False) -> bytes:
    return head(len(text) | parts << 31) + text


def payload(*messages: Message, parts: bool = False) -> bytes:
    """A frame of just these messages, split or not."""
    return framed(msgspec.msgpack.encode(messages), parts=parts)


@pytest.mark.parametrize(("union", "messages"), [(FromWorker, FROM), (ToWorker, TO)], ids=["from", "to"])
def test_every_message_travels(union: object, messages: Sequence[Message]) -> None:
    assert Deframer(union).feed(encode(messages)) == messages


def test_every_message_has_a_tag_of_its_own() -> None:
    tags = [kind.__struct_config__.tag for kind in Message.__subclasses__()]
    assert len(set(tags)) == len(tags)
    assert {type(message) for message in (*FROM, *TO)} | {Part} == set(Message.__subclasses__())


@given(st.lists(st.integers(1, 60), max_size=60))
def test_the_bytes_may_be_cut_anywhere(cuts: list[int]) -> None:
    data = encode(FROM[:5]) + encode(FROM[5:])
    deframer, out, at = Deframer(FromWorker), [], 0
    for size in [*cuts, len(data)]:
        out += deframer.feed(data[at : at + size])
        at += size
    assert out == FROM


def test_frames_that_come_together_are_all_there() -> None:
    assert Deframer(FromWorker).feed(b"".join(encode([message]) for message in FROM)) == FROM


def test_an_empty_batch_is_a_frame_without_messages() -> None:
    assert Deframer(FromWorker).feed(encode([])) == []


# -- large bodies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [0, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 5 * PART_BYTES + 3]
)
def test_large_bodies_travel_in_parts_and_arrive_whole(size: int) -> None:
    body = bytes(n % 251 for n in range(size))
    messages = [
        Begin(1, 1, 1),
        Items(1, 1, "out", 1, 0, body),
        Result(1, 1, 1, 0.5, None, 0, body),
        Log(2, 1, 1, 0, b"{}"),
    ]
    pieces = [piece for message in messages for piece in split(msgspec.structs.replace(message))]
    assert all(len(getattr(p, "body", b"")) + len(getattr(p, "data", b"")) <= PART_BYTES for p in pieces)
    assert Deframer(FromWorker).feed(encode(messages)) == messages
    start = Start(1, 1, bytes(16), "t", "process", 1, body=body)
    assert Deframer(ToWorker).feed(encode([start])) == [start]


def test_no_frame_of_a_large_body_holds_up_the_channel() -> None:
    """Between its parts messages of other attempts may come, and both arrive."""
    body = b"x" * (3 * PART_BYTES)
    parts = [payload(piece, parts=True) for piece in split(Result(1, 1, 1, 0.5, None, 0, body))]
    assert len(parts) == 3
    other = Items(2, 1, "out", 1, 0, b"1")
    assert max(len(part) for part in parts) < PART_BYTES + 100
    deframer = Deframer(FromWorker)
    got = [message for part in parts for message in (*deframer.feed(encode([other])), *deframer.feed(part))]
    assert got[:3] == [other] * 3
    assert isinstance(got[3], Result)
    assert (got[3].body, got[3].parts) == (body, 0)


def test_parts_of_two_attempts_may_alternate() -> None:
    bodies = {1: b"a" * (2 * PART_BYTES), 2: b"b" * (2 * PART_BYTES)}
    pieces = [list(split(Items(no, 1, "out", 1, 0, body))) for no, body in bodies.items()]
    mixed = [piece for pair in zip(*pieces, strict=True) for piece in pair]
    got = Deframer(FromWorker).feed(payload(*mixed, parts=True))
    assert {message.no: message.body for message in got if isinstance(message, Items)} == bodies


def test_the_largest_result_travels() -> None:
    body = b"x" * RESULT_MAX_BYTES
    [got] = Deframer(FromWorker).feed(encode([Result(1, 1, 1, 0.5, None, 0, body)]))
    assert isinstance(got, Result)
    assert got.body == body


# -- broken peers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        head(0),
        head(FRAME_MAX_BYTES + 1),
        head(0xFFFFFFFF),
        b"\x00\x00\x10\x00\x00\x00\x10\x00",
        b"\x00\xff\xfe\x1b[31m and so on",
        payload()[:8] + b"\xc1",
        head(1) + b"\x01",
        head(2) + b"\xa1x",
        payload(Ping(1)),  # this side does not send that
        framed(msgspec.msgpack.encode([[99, 1]])),
        framed(msgspec.msgpack.encode([[3, "x", 1, 1]])),
        framed(msgspec.msgpack.encode([[3, 1]])),
        framed(msgspec.msgpack.encode([[5, 1, 1, "S", 1]]).replace(b"\xa1S", b"\xa1\xff")),
        payload(Result(1, 1, 1, 0.5, None, 2, b""), parts=True),
        payload(Part(1, 1, b"x"), Result(1, 1, 1, 0.5, None, 2, b""), parts=True),
    ],
    ids=[
        "empty",
        "too long",
        "far too long",
        "a length alone",
        "what a task wrote",
        "no payload type",
        "a number",
        "a text",
        "of the other side",
        "no such tag",
        "a wrong type",
        "too short",
        "no utf-8",
        "parts missing",
        "a part missing",
    ],
)
def test_what_is_no_frame_of_ours_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        Deframer(FromWorker).feed(data)


@pytest.mark.parametrize(
    "again",
    [
        Again("retry", nan),
        Again("retry", -1),
        Again("snooze", inf),
        Again("snooze", 1e9),
        Again("snooze", at_us=-1),
    ],
)
def test_no_worker_asks_for_a_moment_that_is_none(again: Again) -> None:
    with pytest.raises(FrameError):
        Deframer(FromWorker).feed(payload(Result(1, 1, 1, 0.5, again=again)))


@pytest.mark.parametrize(
    "message",
    [
        Begin(1, 1, 2**62),
        Begin(1, 1, -1),
        Begin(2**63, 1, 1),
        Result(1, 1, 2**63, 0.5),
        Result(1, 1, 1, nan),
        Result(1, 1, 1, inf),
        Log(1, 1, -1, 0, b"{}"),
        Items(1, 1, "out", 2**63 - 1, 0, b"1"),
        Returned([(1, 2**63)]),
    ],
)
def test_no_worker_says_a_number_that_the_database_cannot_hold(message: Message) -> None:
    """A write that fails ends the daemon."""
    with pytest.raises(FrameError):
        Deframer(FromWorker).feed(payload(message))


def test_parts_whose_message_never_comes_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobsvc.model.frames.PARTS_MAX_BYTES", 2 * PART_BYTES)
    deframer = Deframer(FromWorker)
    whole = encode([Result(1, 1, 1, 0.5, None, 0, bytes(3 * PART_BYTES))])
    assert [len(deframer.feed(whole)) for _ in range(3)] == [1, 1, 1], "what has come no longer counts"
    deframer.feed(payload(*[Part(no, 1, bytes(PART_BYTES)) for no in range(2)], parts=True))
    with pytest.raises(FrameError):
        deframer.feed(payload(Part(9, 1, b"x"), parts=True))


@given(st.binary(max_size=200))
def test_noise_is_refused_or_waits_for_more(data: bytes) -> None:
    deframer = Deframer(FromWorker)
    try:
        out = deframer.feed(data)
    except FrameError:
        return
    assert all(isinstance(message, Message) for message in out)


@given(st.binary(min_size=1, max_size=60))
def test_noise_of_a_right_length_is_refused_or_a_list_of_messages(text: bytes) -> None:
    try:
        out = Deframer(FromWorker).feed(framed(text))
    except FrameError:
        return
    assert all(isinstance(message, Message) for message in out)
