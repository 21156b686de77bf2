"""F3: chunks of events and items as bytes on the wire: SSE, NDJSON, bare lines, raw bytes. Pure.

One call formats a whole chunk; nothing here waits or knows a connection.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Protocol

import msgspec

from jobsvc.http.negotiate import Form
from jobsvc.model.clock import time_text
from jobsvc.model.errors import JobsvcError
from jobsvc.model.events import Chunk, event_lines

HEARTBEATS: dict[Form, bytes] = {"sse": b":\n\n", "ndjson": b"\n"}
"""What is sent into silence, where the form has something that means nothing."""

_UNNUMBERED = frozenset(("gap", "end"))


class Format(Protocol):
    """How chunks become bytes.

    Attributes:
        form: the media type they come in.
        heartbeat: sent into silence; empty = none.
        farewell: last words when the daemon stops.
        after: number of the last event or item that was sent or is not wanted.
        epoch: of the last item sent or seen; None where none was, or where it does not matter.
    """

    form: Form
    heartbeat: bytes
    farewell: bytes
    after: int
    epoch: int | None

    def __call__(self, chunk: Chunk) -> bytes:
        """What of `chunk` has not been sent yet."""


class EventFormat:
    """Events of one job, from number `after` + 1 on.

    Args:
        wants_end: whether `end` is among the kinds asked for.
    """

    def __init__(self, form: Form, after: int, *, wants_end: bool = True) -> None:
        self.form = form
        self.heartbeat = HEARTBEATS[form]
        # Tells an SSE client to come back: the daemon stops, the job does not.
        self.farewell = b"event: reconnect\ndata: {}\n\n" if form == "sse" else b""
        self.wants_end = wants_end
        self._sse = form == "sse"
        self.after = after
        self.epoch: int | None = None

    def __call__(self, chunk: Chunk) -> bytes:
        """All events of `chunk` not yet sent."""
        out: list[bytes] = []
        for seq, kind, line in event_lines(chunk, self.after):
            if not self._sse:
                out.append(line + b"\n")
            elif kind in _UNNUMBERED:
                out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), line))
            else:
                out.append(b"id: %d\nevent: %b\ndata: %b\n\n" % (seq, kind.encode(), line))
        self.after = max(self.after, chunk.last)
        return b"".join(out)

    def end(self, job_json: bytes, seq: int, at: int) -> bytes:
        """The last event, which says that no more will come; `seq` is the number of the one before it."""
        line = b'{"seq":%d,"at":"%b","kind":"end","data":%b}' % (seq, time_text(at).encode(), job_json)
        return b"event: end\ndata: %b\n\n" % line if self._sse else line + b"\n"


class ItemFormat:
    """Items of one stream, from number `after` + 1 on."""

    farewell = b""

    def __init__(self, form: Form, after: int) -> None:
        self.form = form
        self.heartbeat = HEARTBEATS[form]
        self._sse = form == "sse"
        self.after = after
        self.epoch: int | None = None

    def __call__(self, chunk: Chunk) -> bytes:
        """All items of `chunk` not yet sent, after a mark where an attempt began anew."""
        if chunk.kind == "gap":
            line = b'{"seq":%d,"kind":"gap","data":%b}' % (chunk.seq, chunk.body)
            return b"event: gap\ndata: %b\n\n" % line if self._sse else line + b"\n"
        first = chunk.n or 1
        texts = chunk.body.split(b"\n")
        if first <= self.after:
            texts = texts[self.after + 1 - first :]
            first = self.after + 1
        if not texts:
            self.epoch = chunk.epoch
            return b""
        out: list[bytes] = []
        epoch = chunk.epoch
        if self.epoch is not None and epoch != self.epoch:
            line = b'{"seq":%d,"epoch":%d,"restart":true}' % (first, epoch)
            out.append(b"event: restart\ndata: %b\n\n" % line if self._sse else line + b"\n")
        self.epoch = epoch
        if self._sse:
            out += [
                b'id: %d\nevent: item\ndata: {"seq":%d,"epoch":%d,"data":%b}\n\n' % (n, n, epoch, text)
                for n, text in enumerate(texts, first)
            ]
        else:
            out += [
                b'{"seq":%d,"epoch":%d,"data":%b}\n' % (n, epoch, text) for n, text in enumerate(texts, first)
            ]
        self.after = first + len(texts) - 1
        return b"".join(out)


class Restarted(Exception):
    """A bare reader cannot be told that an attempt began anew: it is cut off."""


class BareFormat:
    """Only the data of items: JSON values one a line, or the bytes they stand for.

    Args:
        as_text: a command's output lines: strings are written as they are, with their newlines. None: JSON. False:
            strings are base64 of bytes.
    """

    heartbeat = b""  # every byte is data here
    farewell = b""

    def __init__(self, form: Form, after: int, *, as_text: bool | None = None) -> None:
        self.form = form
        self.after = after
        self.epoch: int | None = None
        self._as_text = as_text

    def __call__(self, chunk: Chunk) -> bytes:
        """The data of all items of `chunk` not yet sent. Raises Restarted."""
        if chunk.kind == "gap":
            raise Restarted
        first = chunk.n or 1
        if first + chunk.count - 1 <= self.after:
            self.epoch = chunk.epoch
            return b""
        if self.epoch is not None and chunk.epoch != self.epoch:
            raise Restarted
        self.epoch = chunk.epoch
        body = chunk.body
        if first <= self.after:
            body = body.split(b"\n", self.after + 1 - first)[-1]
        self.after = first + chunk.count - 1
        return body + b"\n" if self._as_text is None else self._plain(body)

    def _plain(self, body: bytes) -> bytes:
        values = msgspec.json.decode(b"[" + body.replace(b"\n", b",") + b"]")
        if self._as_text:
            return "".join(f"{value}\n" for value in values).encode()
        try:
            return b"".join([b64decode(value, validate=True) for value in values])
        except (binascii.Error, TypeError, ValueError):
            raise JobsvcError(
                "media_type", "The items of this stream are JSON, not bytes: ask for application/x-ndjson."
            ) from None
