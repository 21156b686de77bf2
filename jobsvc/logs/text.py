r"""F3: text from anywhere, made harmless for a log: nothing that moves a cursor, breaks a line or is a secret.

What comes from clients and from tasks may hold terminal sequences (CVE-2003-0063 and its many successors), line breaks
that forge a line of the log, marks that turn the direction of writing round (CVE-2021-42574), and tokens.
"""

from __future__ import annotations

import json
import re
from typing import Final

from jobsvc.model.secret import MASK

FIELD_MAX_CHARS: Final = 4_096
"""Of one field: a path or an error message fits, an argument of a job does not take the log over."""
MESSAGE_MAX_CHARS: Final = 8_192
"""Of the sentence itself."""
TRACEBACK_MAX_CHARS: Final = 32_768
"""Beyond that its middle goes: the entry and the cause are at its ends."""

_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL, C1
    "\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # line ends, direction, what is unseen
    "\ud800-\udfff"  # half a pair: cannot be encoded
    "\U000e0000-\U000e007f]"  # tags
)
_TOKEN: Final = re.compile(r"(jobsvc_[0-9A-Za-z]+)\.[0-9A-Za-z_-]+")
_CREDENTIALS: Final = re.compile(
    r"((?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?(?:b[\"'])?)[^\s\"',;]+(?:\s+[^\s\"',;]+)?"
    r"|((?:bearer|basic)\s+)[0-9A-Za-z._~+/=-]{8,}",
    re.IGNORECASE,
)
_SECRET_NAMES: Final = re.compile(
    r"authorization|cookie|password|passwd|secret|token|api_?key", re.IGNORECASE
)


def escaped(text: str) -> str:
    r"""The text on one line: every unsafe character as `\n`, `\x1b` or `\u202e`, a backslash before those doubled not.

    A reader sees that something was there; a terminal does nothing.
    """
    return _UNSAFE.sub(_visible, text)


def escaped_json(text: str) -> str:
    r"""A JSON text whose strings hold nothing unsafe raw: as `\u202e`, which any JSON reader turns back."""
    return _UNSAFE.sub(_as_json, text)


def redacted(text: str) -> str:
    """The text without secrets: tokens keep their id, which tells the operator which one it was."""
    if "jobsvc_" in text:
        text = _TOKEN.sub(r"\1." + MASK, text)
    return _CREDENTIALS.sub(lambda match: (match[1] or match[2]) + MASK, text)


def is_secret_name(name: str) -> bool:
    """Whether a field of this name is not to be shown, whatever it holds."""
    return _SECRET_NAMES.search(name) is not None


def capped(text: str, most: int) -> str:
    """At most about `most` characters, with a note of how many are left out of the middle."""
    if len(text) <= most:
        return text
    head = most // 4
    return f"{text[:head]}…[{len(text) - most} characters left out]…{text[head - most :]}"


_DELETE: Final = "\x7f"
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _visible(match: re.Match[str]) -> str:
    char = match[0]
    return _SHORT.get(char) or char.encode("ascii", "backslashreplace").decode().replace(
        char, f"\\x{ord(char):02x}"
    )


def _as_json(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1] if match[0] != _DELETE else "\\u007f"
