"""Secrets taken out of what an attempt says: its log, its output, its error. F2; pure but for `recent`.

Looks for the secret itself and for the forms in which Python and JSON write it; a task that encodes it otherwise, or
writes it to descriptors 1 and 2 past `sys.stdout`, is not hindered.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from jobsvc.model.errors import JobError
from jobsvc.model.secret import MASK

REDACTED_MIN_CHARS: Final = 4
"""Shorter ones would be found everywhere, and the holes would tell what they are."""
LINE_MIN_CHARS: Final = 8
"""Of a secret of several lines, as keys in PEM form are, each line of so many characters counts alone."""
RECENT_MAX: Final = 256
"""Attempts whose secrets are looked for in what the process says outside of any attempt."""

_encode = msgspec.json.Encoder().encode


class Veil:
    """What is in front of one attempt's secrets."""

    __slots__ = ("_forms",)

    def __init__(self, secrets: Iterable[str]) -> None:
        found = {form for secret in secrets for form in _forms(secret) if len(form) >= REDACTED_MIN_CHARS}
        # The longest first: a line of a secret is a part of it.
        self._forms = [(form, _escaped(form)) for form in sorted(found, key=lambda each: (-len(each), each))]

    def text(self, text: str) -> str:
        """`text` without them."""
        for form, _ in self._forms:
            text = text.replace(form, MASK)
        return text

    def json(self, data: bytes) -> bytes:
        """A JSON text without them."""
        for _, escaped in self._forms:
            data = data.replace(escaped, MASK.encode())
        return data

    def error(self, error: JobError) -> JobError:
        """The error without them."""
        return msgspec.structs.replace(
            error,
            message=self.text(error.message),
            traceback=None if error.traceback is None else self.text(error.traceback),
        )


recent: deque[Veil] = deque(maxlen=RECENT_MAX)
"""Of this process: what it says outside of any attempt may still be about one."""


def veiled(text: str) -> str:
    """What the process says outside of any attempt, without the secrets of the last ones."""
    for veil in tuple(recent):
        text = veil.text(text)
    return text


def _forms(secret: str) -> Iterator[str]:
    """How it may stand in a text."""
    yield secret
    yield repr(secret)[1:-1]
    yield _escaped(secret).decode()
    yield json.dumps(secret)[1:-1]
    yield ascii(secret)[1:-1]
    lines = secret.splitlines()
    if len(lines) > 1:
        yield from (line for line in map(str.strip, lines) if len(line) >= LINE_MIN_CHARS)


def _escaped(text: str) -> bytes:
    """As it stands within a JSON string."""
    try:
        return _encode(text)[1:-1]
    except UnicodeEncodeError:  # a lone surrogate
        return _encode(text.encode("utf-8", "backslashreplace").decode())[1:-1]
