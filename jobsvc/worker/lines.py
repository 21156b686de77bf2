"""Log events as JSON text, and lines cut to the limit. F2, free of Twisted; pure."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from jobsvc.model.limits import LOG_LINE_MAX_BYTES

Printed: TypeAlias = Literal["stdout", "stderr"]
"""Where printed text comes from."""

_encode = msgspec.json.Encoder().encode
_SAFE_CHARS = LOG_LINE_MAX_BYTES // 4
"""A line of so many characters is within the limit whatever they are."""


_HEAD_BITS, _CONTINUES = 0xC0, 0x80
"""UTF-8: a byte with these first bits goes on with the character before it."""


class LogEvent(msgspec.Struct, gc=False):
    """The `data` of a log event, in the order of design section 8."""

    level: str
    message: str
    fields: msgspec.Raw
    source: Literal["task", "stdout", "stderr"]


NO_FIELDS = msgspec.Raw(b"{}")


def log_text(event: LogEvent) -> bytes:
    """Its JSON text."""
    try:
        return _encode(event)
    except UnicodeEncodeError:  # a lone surrogate: a file name that is not UTF-8, for one
        event.message = event.message.encode("utf-8", "backslashreplace").decode()
        return _encode(event)


def pieces(line: str) -> list[str]:
    """The line, cut into pieces of at most `LOG_LINE_MAX_BYTES` where it is longer."""
    if len(line) <= _SAFE_CHARS:
        return [line]
    data = line.encode("utf-8", "backslashreplace")
    found = []
    at = 0
    while len(data) - at > LOG_LINE_MAX_BYTES:
        end = at + LOG_LINE_MAX_BYTES
        while data[end] & _HEAD_BITS == _CONTINUES:  # never within a character
            end -= 1
        found.append(data[at:end].decode())
        at = end
    return [*found, data[at:].decode()]
