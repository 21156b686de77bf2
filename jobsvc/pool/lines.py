"""F2: cuts what a process prints into lines, whatever the pieces in which it arrives. Pure.

A line longer than the limit is split at the limit: nothing is lost, and nothing waits for a newline that never comes.
"""

from __future__ import annotations

import msgspec

from jobsvc.model.limits import LOG_LINE_MAX_BYTES


class Lines:
    """See the module.

    Args:
        max_bytes: longest line, without its newline.
    """

    __slots__ = ("_max_bytes", "_pieces", "_size")

    def __init__(self, max_bytes: int = LOG_LINE_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []  # of the line that is not complete yet
        self._size = 0

    def __bool__(self) -> bool:
        """Whether a line has begun and not ended."""
        return self._size > 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete with `data`, without their newlines."""
        at = data.rfind(b"\n")
        if at < 0:
            self._keep(data)
            return self._split(self._take()) if self._size > self._max_bytes else []
        self._keep(data[:at])
        lines = self._take().split(b"\n")
        self._keep(data[at + 1 :])
        if max(map(len, lines)) > self._max_bytes:
            lines = [piece for line in lines for piece in (self._split(line, last=True))]
        if self._size > self._max_bytes:
            lines += self._split(self._take())
        return lines

    def rest(self) -> list[bytes]:
        """What came after the last newline: a list of one line or none. The next `feed` starts afresh."""
        return [self._take()] if self._size else []

    def _keep(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)
            self._size += len(data)

    def _take(self) -> bytes:
        whole = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return whole

    def _split(self, line: bytes, *, last: bool = False) -> list[bytes]:
        """Pieces of at most the limit; the last one goes back unless the line is complete."""
        cuts = [line[at : at + self._max_bytes] for at in range(0, max(1, len(line)), self._max_bytes)]
        if not last:
            self._keep(cuts.pop())
        return cuts


class LogLine(msgspec.Struct):
    """One log event as it travels in `frames.Log`, in the order of design section 8."""

    level: str
    message: str
    fields: dict[str, str]
    source: str


LEVELS = {"stdout": "info", "stderr": "warning"}
"""What printed text counts as: programs complain on stderr."""

_encode = msgspec.json.Encoder().encode


def log_body(lines: list[bytes], source: str) -> bytes:
    """The body of a `frames.Log` for printed lines; bytes that are no UTF-8 become U+FFFD."""
    level = LEVELS[source]
    return b"\n".join([_encode(LogLine(level, line.decode(errors="replace"), {}, source)) for line in lines])


def item_body(lines: list[bytes]) -> bytes:
    """The body of a `frames.Items` for lines of text: JSON strings; bytes that are no UTF-8 become U+FFFD."""
    return b"\n".join([_encode(line.decode(errors="replace")) for line in lines])
