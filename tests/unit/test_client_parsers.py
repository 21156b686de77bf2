"""SSE and NDJSON out of bytes: the same whatever the pieces, nothing lost when the end is missing."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.client.lines import LineParser
from jobsvc.client.sse import ServerEvent, SseParser


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at these places (modulo its length)."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


CUTS = st.lists(st.integers(0, 10_000), max_size=40)
TEXT = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=20)
EVENTS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(1, 999).map(str)),
        TEXT,
        st.lists(TEXT, min_size=1, max_size=3),
        st.booleans(),
    ),
    max_size=8,
)


def written(events: list[tuple[str | None, str, list[str], bool]], newline: str) -> bytes:
    """The events as a server would write them, comments between some."""
    lines: list[str] = []
    for event_id, name, data, comment in events:
        if comment:
            lines += [": heartbeat", ""]
        if event_id is not None:
            lines.append(f"id: {event_id}")
        lines.append(f"event: {name}")
        lines += [f"data: {text}" for text in data]
        lines.append("")
    return "".join(line + newline for line in lines).encode()


@given(EVENTS, st.sampled_from(["\n", "\r\n", "\r"]), CUTS)
def test_sse_is_the_same_in_any_pieces(
    events: list[tuple[str | None, str, list[str], bool]], newline: str, cuts: list[int]
) -> None:
    """Every event comes once and whole, with the last id so far, however the bytes were cut."""
    parser = SseParser()
    found = [event for piece in pieces(written(events, newline), cuts) for event in parser.feed(piece)]
    last_id: str | None = None
    expected = []
    for event_id, name, data, _ in events:
        last_id = event_id or last_id
        expected.append(ServerEvent(name or "message", "\n".join(data), last_id))
    assert found == expected
    assert parser.last_id == last_id


@given(st.lists(st.integers() | TEXT, max_size=20), st.booleans(), CUTS)
def test_ndjson_is_the_same_in_any_pieces(values: list[int | str], blank: bool, cuts: list[int]) -> None:
    """Every line comes once; empty lines are heartbeats."""
    newline = b"\n\n" if blank else b"\n"
    data = b"".join(msgspec.json.encode(value) + newline for value in values)
    parser: LineParser[int | str] = LineParser(int | str)  # type: ignore[arg-type]
    assert [value for piece in pieces(data, cuts) for value in parser.feed(piece)] == values


def test_sse_keeps_the_id_of_whole_events_only() -> None:
    """An event cut off before its empty line does not count as seen: a reconnect must bring it again."""
    parser = SseParser()
    assert parser.feed(b"id: 4\ndata: x\n\nid: 5\ndata: y\n") == [ServerEvent("message", "x", "4")]
    assert parser.last_id == "4"
    assert parser.feed(b"\n") == [ServerEvent("message", "y", "5")]
    assert parser.last_id == "5"


def test_sse_fields_as_the_standard_says() -> None:
    """One space after the colon goes; a field without colon is empty; unknown fields and bad values are ignored."""
    parser = SseParser()
    text = (
        b"\xef\xbb\xbfdata:  two\ndata\nid: a\x00b\nretry: 1500\nretry: soon\nother: x\n\n:\n\nevent: e\n\n"
    )
    assert parser.feed(text) == [ServerEvent("message", " two\n", None)]
    assert parser.retry_s == 1.5


def test_lf_after_cr_in_the_next_piece_ends_no_second_line() -> None:
    """CRLF cut in two is one end of line, not an empty line that would dispatch half an event."""
    parser = SseParser()
    assert parser.feed(b"data: a\r") == []
    assert parser.feed(b"\ndata: b\r\n\r\n") == [ServerEvent("message", "a\nb", None)]


def test_ndjson_end_gives_a_last_line_without_newline() -> None:
    """The last line counts even if its newline is missing, but only at a clean end."""
    parser = LineParser(int)
    assert parser.feed(b"1\n2") == [1]
    assert parser.end() == [2]
    assert parser.end() == []


def test_ndjson_of_another_shape_is_an_error() -> None:
    """A line that is no JSON, or not what was expected, is never skipped in silence."""
    with pytest.raises(msgspec.DecodeError):
        LineParser(int).feed(b'"x"\n')
    with pytest.raises(msgspec.DecodeError):
        LineParser(int).feed(b"1\n{\n")
