"""F3: query parameters: declared per route with their type, parsed strictly. An unknown or repeated one is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from jobsvc.model.clock import time_us
from jobsvc.model.errors import JobsvcError
from jobsvc.model.ids import parse_id
from jobsvc.model.job import NAME_PATTERN
from jobsvc.model.limits import LABELS_MAX, LIST_LIMIT_MAX, MANY_MAX, WAIT_MAX_S

Query = Mapping[str, Any]
NOTHING: Query = {}


class Parameter(NamedTuple):
    """One query parameter: how its text becomes a value, its JSON Schema, and what it is for.

    `parse` raises ValueError with a text for people.
    """

    parse: Callable[[str], Any]
    schema: Mapping[str, Any]
    doc: str


_SECONDS = r"[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?"
"""A number as JSON writes it; what is longer than any double needs is no number of seconds."""
_NO_CONTROLS = r"[^\x00-\x1f\x7f-\x9f]"
_NAME = re.compile(NAME_PATTERN)
_DIGITS_MAX = 18
"""Longer numbers leave the 64 bits of a column."""


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if (
            not text.isascii()
            or not text.isdigit()
            or len(text) > _DIGITS_MAX
            or not low <= int(text) <= high
        ):
            raise ValueError(f"a whole number from {low} to {high} is expected")
        return int(text)

    return parse


def _seconds(text: str) -> float:
    if not re.fullmatch(_SECONDS, text):
        raise ValueError("a number of seconds is expected")
    return min(float(text), WAIT_MAX_S)


def _flag(text: str) -> bool:
    if text not in ("", "0", "1", "true", "false"):
        raise ValueError("1 or 0 is expected")
    return text not in ("0", "false")


def _text(text: str) -> str:
    if not re.fullmatch(_NO_CONTROLS + "+", text):
        raise ValueError("a text without control characters is expected")
    return text


def _name(text: str) -> str:
    if not _NAME.match(text):
        raise ValueError("a name is expected: letters, digits, `_.-`, starting with a letter or `_`")
    return text


def _label(text: str) -> str:
    return _text(text) if text else text


def _time(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.min  # noqa: DTZ901 - only its missing zone matters
    if moment.tzinfo is None:
        raise ValueError("a time with a zone is expected, such as 2026-11-23T12:00:00Z")
    return time_us(moment)


def _ids(text: str) -> tuple[bytes | str, ...]:
    parts = text.split(",")
    if not all(parts):
        raise ValueError("ids separated by commas are expected")
    if len(parts) > MANY_MAX:
        raise ValueError(f"at most {MANY_MAX} ids are looked at at once")
    # What is no id names no job either: it comes back among the missing.
    return tuple(parse_id(part) or part for part in parts)


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)} is expected")
        return text

    return parse


def _some_of(choices: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        parts = tuple(text.split(","))
        for part in parts:
            if part not in choices:
                raise ValueError(f"{part[:64]!r} is none of {', '.join(choices)}")
        return parts

    return parse


def _names(text: str) -> tuple[str, ...]:
    return tuple(_name(part) for part in text.split(","))


_PLAIN: Mapping[str, Any] = {"type": "string", "minLength": 1, "pattern": f"^{_NO_CONTROLS}*$"}
_NAMED: Mapping[str, Any] = {"type": "string", "pattern": NAME_PATTERN}


def number(doc: str, low: int = 0, high: int = 2**53) -> Parameter:
    """A whole number."""
    return Parameter(_integer(low, high), {"type": "integer", "minimum": low, "maximum": high}, doc)


def seconds(doc: str) -> Parameter:
    """Seconds to wait; more than the longest wait is cut."""
    return Parameter(_seconds, {"type": "number", "minimum": 0}, doc)


def flag(doc: str) -> Parameter:
    """1 or 0; the bare name is 1."""
    return Parameter(_flag, {"type": "string", "enum": ["0", "1", "true", "false", ""]}, doc)


def text(doc: str) -> Parameter:
    """A text."""
    return Parameter(_text, _PLAIN, doc)


def name(doc: str) -> Parameter:
    """The name of a task, a queue, a stream."""
    return Parameter(_name, _NAMED, doc)


def label(doc: str) -> Parameter:
    """The value of a label, which may be empty."""
    return Parameter(_label, {"type": "string", "pattern": f"^{_NO_CONTROLS}*$"}, doc)


def time(doc: str) -> Parameter:
    """A time, in microseconds."""
    return Parameter(_time, {"type": "string", "format": "date-time"}, doc)


def ids(doc: str) -> Parameter:
    """Job ids; what is no id is kept as text."""
    schema = {
        "type": "array",
        "minItems": 1,
        "maxItems": MANY_MAX,
        "items": {"type": "string", "format": "uuid"},
    }
    return Parameter(_ids, schema, doc)


def one_of(doc: str, *choices: str) -> Parameter:
    """One of these words."""
    return Parameter(_one_of(choices), {"type": "string", "enum": list(choices)}, doc)


def some_of(doc: str, *choices: str) -> Parameter:
    """Some of these words, joined by commas."""
    return Parameter(
        _some_of(choices),
        {"type": "array", "minItems": 1, "items": {"type": "string", "enum": list(choices)}},
        doc,
    )


def names(doc: str) -> Parameter:
    """Names joined by commas."""
    return Parameter(_names, {"type": "array", "minItems": 1, "items": _NAMED}, doc)


def limit(doc: str) -> Parameter:
    """Rows of a page."""
    return number(doc, 1, LIST_LIMIT_MAX)


def parse_query(raw: bytes, parameters: Mapping[str, Parameter]) -> Query:
    """The parameters of a query string.

    A name that ends in `.` in the table stands for all names that begin so; their values come as a dict.

    Raises:
        JobsvcError: bad_query.
    """
    values: dict[str, Any] = {}
    for pair in raw.split(b"&"):
        if not pair:
            continue
        name_bytes, _, value_bytes = pair.partition(b"=")
        try:
            name, value = _unquoted(name_bytes), _unquoted(value_bytes)
        except UnicodeDecodeError:
            raise JobsvcError("bad_query", "The query is not UTF-8.") from None
        stem, dot, rest = name.partition(".")
        known = parameters.get(stem + dot if dot else name)
        if known is None or (dot and not rest):
            raise JobsvcError(
                "bad_query", f"There is no query parameter {name[:64]!r} here. {_offer(parameters)}"
            )
        try:
            parsed = known.parse(value)
        except ValueError as error:
            raise JobsvcError("bad_query", f"{name[:64]}: {error}.") from None
        place: dict[str, Any] = values.setdefault(stem + dot, {}) if dot else values
        key = rest if dot else name
        if key in place:
            raise JobsvcError("bad_query", f"{name[:64]} is given twice.")
        place[key] = parsed
        if dot and len(place) > LABELS_MAX:
            raise JobsvcError("bad_query", f"{stem}.: at most {LABELS_MAX} of these; no job has more.")
    return values


def _unquoted(raw: bytes) -> str:
    return unquote_to_bytes(raw.replace(b"+", b" ")).decode()


def _offer(parameters: Mapping[str, Parameter]) -> str:
    return f"Known: {', '.join(sorted(parameters))}." if parameters else "This route takes none."
