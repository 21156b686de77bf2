"""F2: Server-Sent Events out of bytes, in whatever pieces they come (WHATWG HTML, section 9.2.6). No I/O."""

from __future__ import annotations

from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"


class ServerEvent(NamedTuple):
    """One dispatched event: its name, its data, the last id seen up to it (None: none yet)."""

    name: str
    data: str
    last_id: str | None


class SseParser:
    """Feed it bytes, take events.

    `last_id` is what a reconnect sends as Last-Event-ID: of the last event that came whole, never of one cut off.
    `retry_s` is the delay before it, when the server named one.
    """

    def __init__(self) -> None:
        self.last_id: str | None = None
        self.retry_s: float | None = None
        self._parts: list[bytes] = []
        self._after_cr = False
        self._at_start = True
        self._id: str | None = None
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that `chunk` completes. An event not yet ended by an empty line is kept for the next call."""
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        cut = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
        if not cut:
            self._parts.append(chunk)
            return []
        # A CR at the very end ends its line now; should an LF follow, it belongs to it.
        self._after_cr = chunk.endswith(b"\r")
        whole = b"".join((*self._parts, chunk[:cut]))
        self._parts = [chunk[cut:]] if cut < len(chunk) else []
        if self._at_start:
            self._at_start = False
            whole = whole.removeprefix(_BOM)
        events: list[ServerEvent] = []
        for line in whole.splitlines():
            if line:
                self._field(line.decode("utf-8", "replace"))
            elif (event := self._dispatch()) is not None:
                events.append(event)
        return events

    def _dispatch(self) -> ServerEvent | None:
        self.last_id = self._id
        name, data = self._name or "message", self._data
        self._name, self._data = "", []
        return ServerEvent(name, "\n".join(data), self.last_id) if data else None

    def _field(self, line: str) -> None:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry_s = int(value) / 1000
