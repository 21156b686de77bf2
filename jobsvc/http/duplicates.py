"""F3: keys that stand twice in one JSON object. Pure.

RFC 8259 leaves open which of them counts, so two readers of one body may act on two different requests. msgspec takes
the last and says nothing. Looking costs a second pass, so a quick one first sees whether there can be any at all.
"""

from __future__ import annotations

import json
from typing import Any

from jobsvc.http.problems import shortened
from jobsvc.model.errors import JobsvcError


class _Members(list[tuple[str, Any]]):
    """The members of one object, in order."""


_decoder = json.JSONDecoder(object_pairs_hook=_Members)


def check_unique(text: bytes) -> None:
    """Raise `bad_json` for a repeated key, with its pointer. A text that is no JSON passes: its decoder says why."""
    if not may_repeat(text):
        return
    try:
        pointer = _repeated(_decoder.decode(text.decode()), "")
    except (ValueError, RecursionError):
        return
    if pointer is not None:
        pointer = shortened(pointer)
        detail = "this key stands twice in its object"
        raise JobsvcError(
            "bad_json", f"{pointer}: {detail}.", errors=[{"pointer": pointer, "detail": detail}]
        )


def may_repeat(text: bytes) -> bool:
    """Whether a key may stand twice: the same words do, or an escape hides what a key says."""
    if b"\\" in text:
        return True
    pieces = text.split(b'"')  # without escapes every other one is a string
    strings = pieces[1::2]
    if len(set(strings)) == len(strings):
        return False
    keys = [
        string for string, rest in zip(strings, pieces[2::2], strict=False) if rest.lstrip().startswith(b":")
    ]
    return len(set(keys)) != len(keys)


def _repeated(value: object, at: str) -> str | None:
    """The pointer of the first repeated key in `value`."""
    if isinstance(value, _Members):
        seen: set[str] = set()
        for key, member in value:
            pointer = f"{at}/{key.replace('~', '~0').replace('/', '~1')}"
            if key in seen:
                return pointer
            seen.add(key)
            if isinstance(member, list):
                found = _repeated(member, pointer)
                if found is not None:
                    return found
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, list):
                found = _repeated(item, f"{at}/{index}")
                if found is not None:
                    return found
    return None
