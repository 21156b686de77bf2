"""What a task can say: the context to its port, values to JSON."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import pathlib
import time
import types
from collections.abc import Callable
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.authoring.context import Context
from jobsvc.authoring.results import NotSerialisable, encode_loosely, encode_result


class Port:
    """Keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.cancelled = False
        self.deadline_at: float | None = None

    def item(self, stream: str, body: bytes) -> None:
        self.sent.append(("item", stream, body))

    def log(self, level: str, message: str, fields_json: bytes, source: str) -> None:
        self.sent.append(("log", level, message, json.loads(fields_json), source))

    def progress(self, body: bytes) -> None:
        self.sent.append(("progress", json.loads(body)))

    def is_cancelled(self) -> bool:
        return self.cancelled

    def deadline(self) -> float | None:
        return self.deadline_at


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.fixture
def context(port: Port) -> Context:
    return Context(port, job_id="j", attempt=2, epoch=3)


class Unprintable:
    def __repr__(self) -> str:
        raise LookupError("no repr")


def test_context_knows_its_job(context: Context, port: Port) -> None:
    assert (context.job_id, context.attempt, context.epoch) == ("j", 2, 3)
    assert not context.cancelled
    port.cancelled = True
    assert context.cancelled


def test_deadline_is_a_moment_and_a_rest(context: Context, port: Port) -> None:
    assert context.deadline is None
    assert context.remaining_s is None
    port.deadline_at = time.monotonic() + 1000
    assert context.remaining_s == pytest.approx(1000, abs=5)
    assert context.deadline is not None
    assert (context.deadline - dt.datetime.now(dt.UTC)).total_seconds() == pytest.approx(1000, abs=5)
    port.deadline_at = time.monotonic() - 5
    assert context.remaining_s == 0


def test_progress(context: Context, port: Port) -> None:
    context.progress(1)
    context.progress(2.5, 10, "half \ud800")
    assert port.sent == [
        ("progress", {"n": 1, "of": None, "note": None}),
        ("progress", {"n": 2.5, "of": 10, "note": "half \\ud800"}),
    ]


@pytest.mark.parametrize(
    ("args", "error"),
    [(("1",), TypeError), ((True,), TypeError), ((1, "2"), TypeError), ((1, 2, 3), TypeError),
     ((math.nan,), ValueError), ((1, math.inf), ValueError)],
)  # fmt: skip
def test_wrong_progress_is_refused_and_not_sent(
    context: Context, port: Port, args: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="progress: "):
        context.progress(*args)
    assert port.sent == []


def test_log_takes_any_field(context: Context, port: Port) -> None:
    """A log line never ends a job, whatever it is given."""
    context.log("plain")
    context.log("two", level="warning", n=1, at=pathlib.PurePath("a"), message="kept", source="kept")
    context.log("odd", thing=object, bad=Unprintable(), text="\ud800", good=1)
    context.log(5)  # type: ignore[arg-type]
    context.log("\ud800")
    assert port.sent == [
        ("log", "info", "plain", {}, "task"),
        ("log", "warning", "two", {"n": 1, "at": "a", "message": "kept", "source": "kept"}, "task"),
        ("log", "info", "odd",
         {"thing": "<class 'object'>", "bad": f"<{__name__}.Unprintable: LookupError in its repr>",
          "text": "'\\ud800'", "good": 1}, "task"),
        ("log", "info", "5", {}, "task"),
        ("log", "info", "\\ud800", {}, "task"),
    ]  # fmt: skip


def test_unknown_level_is_refused(context: Context) -> None:
    with pytest.raises(ValueError, match="level must be one of debug, info, warning, error, not 'fatal'"):
        context.log("x", level="fatal")  # type: ignore[arg-type]


def test_emit(context: Context, port: Port) -> None:
    context.emit({"a": 1})
    context.emit(b"x", "frames.left")
    assert port.sent == [("item", "out", b'{"a":1}'), ("item", "frames.left", b'"eA=="')]


@pytest.mark.parametrize("stream", ["in", "log", "events", "", "a b", "a\nb", 'a"b', "1st", "x" * 129])
def test_emit_refuses_what_is_no_output_stream(context: Context, port: Port, stream: str) -> None:
    with pytest.raises(ValueError, match="no name for an output stream"):
        context.emit(1, stream)
    assert port.sent == []


# -- values to JSON -----------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    inner: Any = None


@attrs.define
class Leaf:
    size: int


class Model:
    def model_dump(self, *, mode: str) -> dict[str, Any]:
        return {"mode": mode, "at": pathlib.PurePath("p")}


class Array:
    def tolist(self) -> list[int]:
        return [1, 2]


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another"


class Number(int):
    pass


class Moment(dt.datetime):
    pass


class Broken:
    def model_dump(self, *, mode: str) -> Any:
        raise LookupError("half made")


@pytest.mark.parametrize(
    ("value", "json_text"),
    [
        (None, "null"),
        (math.nan, "null"),
        ([math.inf, -math.inf], "[null,null]"),
        (10**40, "1" + "0" * 40),
        (b"x", '"eA=="'),
        ({1}, "[1]"),
        ((1, "a"), '[1,"a"]'),
        ({1: 2, "b": 3}, '{"1":2,"b":3}'),
        (Colour.RED, '"red"'),
        (Point(1, Leaf(2)), '{"x":1,"inner":{"size":2}}'),
        (Model(), '{"mode":"json","at":"p"}'),
        (Array(), "[1,2]"),
        (Text("a"), '"a"'),
        ({"k": Number(4)}, '{"k":4}'),
        (Moment(2026, 11, 23), '"2026-11-23T00:00:00"'),
        (pathlib.Path("a/b"), '"a/b"'),
        (collections.deque([1]), "[1]"),
        (range(3), "[0,1,2]"),
        (types.MappingProxyType({"a": 1}), '{"a":1}'),
        ({"a": 1}.keys(), '["a"]'),
        (ValueError("no"), '{"type":"ValueError","message":"no"}'),
        (decimal.Decimal("1.10"), '"1.10"'),
        (msgspec.Raw(b'{\n "a": 1\r\n}'), '{"a":1}'),
        ("line\nbreak\r", '"line\\nbreak\\r"'),
    ],
)
def test_what_people_return_has_a_json_form(value: Any, json_text: str) -> None:
    assert encode_result(value).decode() == json_text


def endless() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("make", "type_name", "words"),
    [
        (object, "object", "no JSON form"),
        (lambda: [{"a": object()}], "object", "no JSON form"),
        (lambda: Model, "type", "no JSON form"),
        (lambda: 2j, "complex", "no JSON form"),
        (lambda: (n for n in [1]), "generator", "no JSON form"),
        (lambda: {(1, 2): 3}, "tuple", "keys are text or numbers"),
        (lambda: {True: 3}, "bool", "keys are text or numbers"),
        (lambda: {None: 3}, "NoneType", "keys are text or numbers"),
        (lambda: "\ud800", "str", "surrogates"),
        (endless, "list", "contains itself"),
        (Broken, f"{__name__}.Broken", "half made"),
        (lambda: msgspec.Raw(b"{\n"), "msgspec.Raw", "truncated"),
    ],
)
def test_what_has_none_is_named(make: Callable[[], Any], type_name: str, words: str) -> None:
    with pytest.raises(NotSerialisable) as refused:
        encode_result(make())
    assert refused.value.type_name == type_name
    assert words in str(refused.value)
    copied = copy.copy(refused.value)
    assert (copied.type_name, str(copied)) == (type_name, str(refused.value))


def test_reason_is_short_even_where_the_value_is_long() -> None:
    class Chatty:
        def model_dump(self, *, mode: str) -> Any:
            raise ValueError("x" * 100_000)

    with pytest.raises(NotSerialisable) as refused:
        encode_result(Chatty())
    assert len(str(refused.value)) < 1000


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.complex_numbers()
    | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.integers() | st.tuples(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_any_value_is_one_line_of_json_or_refused(value: Any) -> None:
    """Streams are lines: no value may bring a line break."""
    try:
        text = encode_result(value)
    except NotSerialisable:
        text = encode_loosely(value)
    json.loads(text)
    assert not {b"\n"[0], b"\r"[0]} & set(text)
