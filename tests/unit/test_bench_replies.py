"""The load generator's reader: a reply has ended exactly when its last byte came, however its bytes were cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.replies import BadReply, ReplyReader


def plain(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nServer: x\r\n\r\n%b" % (status, len(body), body)


def chunked(*pieces: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


def fed(reader: ReplyReader, reply: bytes, cuts: list[int]) -> list[bool]:
    """What `feed` says of each part of a reply."""
    reader.begin()
    borders = [0, *sorted({cut % len(reply) for cut in cuts} - {0}), len(reply)]
    parts = [reply[a:b] for a, b in pairwise(borders)]
    return [reader.feed(part) for part in parts]


cuts = st.lists(st.integers(min_value=1, max_value=10_000), max_size=12)
bodies = st.text(alphabet="ab\r\n:0", max_size=80).map(str.encode)


@given(bodies, cuts)
def test_a_plain_reply_ends_with_its_last_byte(body: bytes, at: list[int]) -> None:
    reader = ReplyReader(b"ab")
    said = fed(reader, plain(body, 201), at)
    assert said[-1]
    assert not any(said[:-1])
    assert (reader.status, reader.body_bytes, reader.marks) == (201, len(body), body.count(b"ab"))


@given(st.lists(bodies, max_size=6), cuts)
def test_a_chunked_reply_ends_with_its_last_byte_and_markers_are_found_across_chunks(
    pieces: list[bytes], at: list[int]
) -> None:
    reader = ReplyReader(b"ab:")
    said = fed(reader, chunked(*pieces), at)
    whole = b"".join(pieces)
    assert said[-1]
    assert not any(said[:-1])
    assert (reader.body_bytes, reader.marks) == (len(whole), whole.count(b"ab:"))


def test_one_connection_carries_one_reply_after_the_other() -> None:
    reader = ReplyReader(b"x")
    assert fed(reader, chunked(b"xx"), []) == [True]
    assert fed(reader, plain(b"x"), []) == [True]
    assert (reader.status, reader.marks, reader.end) == (200, 1, b"x")


def test_a_reply_without_body_ends_with_its_head() -> None:
    reader = ReplyReader()
    assert fed(reader, b"HTTP/1.1 204 No Content\r\n\r\n", [5, 9]) == [False, False, True]
    assert reader.status == 204


@pytest.mark.parametrize("bytes_", [plain(b"ok") + b"!", chunked(b"ok") + b"!", b"SSH-2.0-x\r\n\r\n"])
def test_what_does_not_belong_to_the_reply_is_an_error(bytes_: bytes) -> None:
    reader = ReplyReader()
    with pytest.raises(BadReply):
        reader.feed(bytes_)
