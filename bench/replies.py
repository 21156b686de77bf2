"""Reads HTTP replies as cheaply as Python can: status, end, size, and how often a marker occurs in the body.

Knows Content-Length and chunked bodies, keep-alive, and nothing else; replies are those of our own servers.
"""

from __future__ import annotations

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_CHUNKED = b"transfer-encoding: chunked"


END_BYTES = 400


class BadReply(Exception):
    """These bytes are no reply this reader knows."""


class ReplyReader:
    """One reply after the other on one connection.

    Args:
        marker: is counted in bodies, across the borders of chunks and reads; empty: nothing is counted.

    Attributes:
        status: of the reply in hand.
        body_bytes, marks: of its body so far.
        end: the last bytes of its body, to show when it is not what was expected.
    """

    def __init__(self, marker: bytes = b"") -> None:
        self._marker = marker
        self._keep = max(0, len(marker) - 1)
        self._buffer = b""
        self.begin()

    def begin(self) -> None:
        """A request was sent: the next bytes are the head of its reply."""
        self.status = 0
        self.body_bytes = 0
        self.marks = 0
        self.end = b""
        self._tail = b""
        self._left = -1
        """Of the body, or of the chunk in hand with its line end; -1: not known yet."""
        self._chunked = False

    def feed(self, data: bytes) -> bool:
        """Bytes of the server; whether the reply is complete.

        Raises:
            BadReply: no status line, or bytes beyond the end.
        """
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        if not self.status:
            end = data.find(_HEAD_END)
            if end < 0:
                self._buffer = data
                return False
            self._read_head(data[:end].lower())
            data = data[end + 4 :]
        return self._feed_chunks(data) if self._chunked else self._feed_plain(data)

    def _read_head(self, head: bytes) -> None:
        if not head.startswith(b"http/1.1 "):
            raise BadReply(repr(head[:80]))
        self.status = int(head[9:12])
        at = head.find(_LENGTH)
        if at >= 0:
            self._left = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0])
        elif _CHUNKED in head:
            self._chunked = True
        else:
            self._left = 0  # 204, 304

    def _feed_plain(self, data: bytes) -> bool:
        self._left -= len(data)
        if self._left < 0:
            raise BadReply(f"{-self._left} bytes beyond the end")
        self._take(data)
        return not self._left

    def _feed_chunks(self, data: bytes) -> bool:
        at = 0
        while at < len(data):
            if self._left < 0:
                end = data.find(b"\r\n", at)
                if end < 0:
                    break
                size = int(data[at:end].split(b";", 1)[0], 16)
                if not size:
                    if len(data) < end + 4:
                        break
                    if len(data) > end + 4:
                        raise BadReply(f"{len(data) - end - 4} bytes beyond the end")
                    return True
                self._left = size + 2
                at = end + 2
            piece = min(self._left, len(data) - at)
            body = min(piece, max(0, self._left - 2))
            if body:
                self._take(data[at : at + body])
            at += piece
            self._left -= piece
            if not self._left:
                self._left = -1
        self._buffer = data[at:]
        return False

    def _take(self, body: bytes) -> None:
        self.body_bytes += len(body)
        self.end = body[-END_BYTES:]
        if not self._marker:
            return
        if self._tail:
            body = self._tail + body
        self.marks += body.count(self._marker)
        # One byte short of a marker is kept: a whole one in it would have been counted already.
        self._tail = body[-self._keep :] if self._keep else b""
