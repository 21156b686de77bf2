"""The pure parts of the edge: queries, pointers, bodies, formats, negotiation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.http import query
from jobsvc.http.bodies import decode_submit, too_deep
from jobsvc.http.formats import BareFormat, EventFormat, ItemFormat, Restarted
from jobsvc.http.limits import NESTING_MAX
from jobsvc.http.metrics import BUCKETS_S, Metrics
from jobsvc.http.problems import document, encoded, pointer_of
from jobsvc.http.query import parse_query
from jobsvc.model.errors import JobsvcError
from jobsvc.model.events import Chunk

PARAMETERS = {
    "n": query.number("", 1, 10),
    "wait": query.seconds(""),
    "flag": query.flag(""),
    "label.": query.text(""),
    "names": query.names(""),
    "since": query.time(""),
    "ids": query.ids(""),
    "order": query.one_of("", "asc", "desc"),
    "state": query.some_of("", "a", "b"),
}


def test_a_query_becomes_typed_values() -> None:
    """Percent signs, plus signs and empty pairs as browsers and curl write them."""
    raw = b"n=7&wait=1.5&flag&label.x=a+b&label.y=%C3%A4&&names=p,q&order=asc&state=a,b&since=1970-01-01T00:00:01Z"
    assert parse_query(raw, PARAMETERS) == {
        "n": 7, "wait": 1.5, "flag": True, "label.": {"x": "a b", "y": "ä"}, "names": ("p", "q"), "order": "asc",
        "state": ("a", "b"), "since": 1_000_000,
    }  # fmt: skip


def test_waits_are_cut_and_ids_that_are_none_are_kept() -> None:
    """More than 300 s is 300 s; what is no id will be reported missing."""
    values = parse_query(b"wait=99999&ids=x,01999999-0000-7000-8000-000000000000&flag=0", PARAMETERS)
    assert (values["wait"], values["flag"]) == (300.0, False)
    assert values["ids"] == ("x", bytes.fromhex("01999999000070008000000000000000"))


@pytest.mark.parametrize(
    "raw",
    [
        b"x=1", b"n=0", b"n=11", b"n=-1", b"n=1.0", b"n=", b"n=\xd9\xa1", b"n=1&n=2", b"wait=-1", b"wait=1e",
        b"wait=nan", b"flag=maybe", b"label.=x", b"label=x", b"label.x=", b"label.x=1&label.x=2", b"names=a,,b",
        b"order=up", b"state=c", b"since=2026-01-01", b"since=now", b"n=%ff", b"label.x=%00", b"n.x=1",
    ],
)  # fmt: skip
def test_a_query_that_is_wrong_is_refused(raw: bytes) -> None:
    """Always bad_query, never a traceback, never a guess."""
    with pytest.raises(JobsvcError) as caught:
        parse_query(raw, PARAMETERS)
    assert caught.value.code == "bad_query"


def outcome(call: Callable[[], Any]) -> tuple[set[str], Any]:
    """The code of a refusal, or what came back."""
    try:
        return set(), call()
    except JobsvcError as error:
        return {error.code}, None


@given(st.binary(max_size=60))
def test_any_bytes_are_a_query_or_a_refusal(raw: bytes) -> None:
    """Nothing else comes out."""
    codes, values = outcome(lambda: parse_query(raw, PARAMETERS))
    assert codes <= {"bad_query"}
    assert set(values or ()) <= set(PARAMETERS)


@pytest.mark.parametrize(
    ("message", "detail", "pointer"),
    [
        ("Expected `str`, got `int` - at `$.task`", "Expected `str`, got `int`", "/task"),
        ("Expected `int`, got `str` - at `$.a[1][...]`", "Expected `int`, got `str`", "/a/1"),
        ("Object missing required field `task`", "Object missing required field `task`", "/task"),
        (
            "Object contains unknown field `a/b~c` - at `$.x`",
            "Object contains unknown field `a/b~c`",
            "/x/a~1b~0c",
        ),
        ("Expected `object`, got `array`", "Expected `object`, got `array`", ""),
    ],
)
def test_pointers_from_messages(message: str, detail: str, pointer: str) -> None:
    """JSON pointers, escaped by RFC 6901."""
    assert pointer_of(message) == (detail, pointer)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_envelope_or_a_refusal(body: bytes) -> None:
    """400 or 422, nothing else leaves the decoder."""
    codes, submit = outcome(lambda: decode_submit(body))
    assert codes <= {"bad_json", "invalid_field"}
    assert codes or submit.task


def nested(depth: int) -> bytes:
    """Arrays and objects in turn."""
    text: Any = 1
    for level in range(depth):
        text = [text, "[[[{{{"] if level % 2 else {"a": text, '"}]': 2}
    return msgspec.json.encode(text)


@given(st.integers(0, 2 * NESTING_MAX))
def test_depth_is_counted_exactly(depth: int) -> None:
    """Brackets inside strings are none; siblings do not add up."""
    assert too_deep(nested(depth)) is (depth > NESTING_MAX)
    assert not too_deep(b"[" + b"[]," * 1000 + b"[]]")


def test_problems_have_exactly_their_members() -> None:
    """The optional ones only when there is something to say."""
    plain = document(JobsvcError("conflict", "no"), "r-1")
    assert plain == {
        "type": "urn:jobsvc:problem:conflict", "title": "The job's state does not allow this", "status": 409,
        "detail": "no", "instance": "r-1", "code": "conflict", "source": "client", "retry_safe": False,
    }  # fmt: skip
    more = msgspec.json.decode(encoded(JobsvcError("queue_full", "later", retry_after_s=3), "r-2"))
    assert (more["retry_after_s"], more["retry_safe"], more["source"]) == (3, True, "service")


def items(first: int, *values: str, epoch: int = 1) -> Chunk:
    body = "\n".join(values).encode()
    return Chunk(
        no=1,
        seq=first + 1,
        count=len(values),
        kind="item",
        epoch=epoch,
        at=0,
        body=body,
        stream="out",
        n=first,
    )


def test_items_begin_where_they_are_asked_to() -> None:
    """In the middle of a chunk too; a whole chunk before it gives nothing but tells its epoch."""
    render = ItemFormat("ndjson", 2)
    assert render(items(1, "1", "2")) == b""
    assert render(items(3, "3", epoch=2)).startswith(b'{"seq":3,"epoch":2,"restart":true}\n')
    assert ItemFormat("ndjson", 2)(items(1, "1", "2", "3")) == b'{"seq":3,"epoch":1,"data":3}\n'
    assert BareFormat("ndjson", 2)(items(1, "1", "2", "3", "4")) == b"3\n4\n"


def test_bare_readers_are_stopped_at_a_restart_and_at_a_gap() -> None:
    """They cannot be told."""
    bare = BareFormat("ndjson", 0)
    assert bare(items(1, "1")) == b"1\n"
    with pytest.raises(Restarted):
        bare(items(2, "2", epoch=2))
    with pytest.raises(Restarted):
        BareFormat("ndjson", 0)(Chunk(no=1, seq=4, count=1, kind="gap", epoch=0, at=0, body=b"{}"))


def test_gap_and_end_have_no_id() -> None:
    """A reconnect continues after the last real event."""
    render = EventFormat("sse", 3)
    body = b'{"from":4,"to":9,"why":"quota"}'
    assert b"id:" not in render(Chunk(no=1, seq=9, count=1, kind="gap", epoch=0, at=0, body=body))
    assert render.after == 9
    end = render.end(b"{}", 9, 0)
    assert b"id:" not in end
    assert b'"seq":9' in end


def test_latency_falls_into_its_bucket() -> None:
    """Bounds are inclusive, as Prometheus wants them; the last bucket takes the rest."""
    metrics = Metrics({}, {})
    for elapsed_s in (0.0, BUCKETS_S[0], BUCKETS_S[0] * 1.01, 1e9):
        metrics.observe("r", "GET", 200, elapsed_s)
    text = metrics.exposition().decode()
    assert 'jobsvc_http_request_seconds_bucket{le="0.001",route="r"} 2.0' in text
    assert 'jobsvc_http_request_seconds_bucket{le="0.0025",route="r"} 3.0' in text
    assert 'jobsvc_http_request_seconds_bucket{le="+Inf",route="r"} 4.0' in text
    assert 'jobsvc_http_request_seconds_count{route="r"} 4.0' in text
