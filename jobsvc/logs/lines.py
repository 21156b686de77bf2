"""F3: one event of twisted.logger as one line: JSON for machines, words for people.

    {"at","level","logger","message","action"?,"job_id"?,"request_id"?,"thread"?,"fields"?,"traceback"?}

Runs in the thread that logs, so ids are those of its context. Never raises: what cannot be shown is named.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from twisted.logger import LogLevel, formatEvent

from jobsvc.logs.text import (
    FIELD_MAX_CHARS,
    MESSAGE_MAX_CHARS,
    TRACEBACK_MAX_CHARS,
    capped,
    escaped,
    escaped_json,
    is_secret_name,
    redacted,
)
from jobsvc.model.clock import time_text
from jobsvc.model.secret import MASK
from jobsvc.runtime.context import JOB_ID, REQUEST_ID

FIELDS_MAX: Final = 32
"""Fields of one event; ours have at most ten."""
ITEMS_MAX: Final = 32
DEPTH_MAX: Final = 3
"""Of a field that is a list or a mapping; beyond that its text."""
WHOLE_MAX: Final = 1 << 64
"""A larger number is shown as text: many JSON readers lose its digits."""
LEVEL_WIDTH: Final = 5

Event = Mapping[str, Any]

_OWN: Final = frozenset({"action", "job_id", "job", "request_id"})
_LEGACY: Final = frozenset({"message", "time", "system", "format", "isError", "failure", "why"})
"""What twisted.python.log adds to each event of its own; its message is in `log_format` too."""
_BLOCKS: Final = ("error", "words")
"""Fields that hold whole reports (a module that does not load, with its traceback): for people on lines of their own,
each behind a bar, so that none can be taken for a line of the log."""
_BAR: Final = "\n    | "

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def json_line(event: Event) -> str:
    """The event as one line of JSON, without its end."""
    head: dict[str, Any] = {
        "at": _at(event),
        "level": _level(event),
        "logger": _name(event),
        "message": capped(redacted(_message(event)), MESSAGE_MAX_CHARS),
    }
    if "action" in event:
        head["action"] = _plain(event["action"])
    head |= _ids(event)
    if fields := _fields(event):
        head["fields"] = fields
    if traceback := _traceback(event):
        head["traceback"] = traceback
    return escaped_json(encode(head))


def human_line(event: Event) -> str:
    """The event for people: its time, level, origin, sentence and ids; a traceback or `stack` follows behind bars."""
    message = capped(redacted(_message(event)), MESSAGE_MAX_CHARS)
    parts = message.splitlines() if any(key in event for key in _BLOCKS) else [message]
    ids = " ".join(f"{key}={escaped(str(value))}" for key, value in _ids(event).items())
    said = parts[0] if parts else ""
    first = f"{_at(event)} {_level(event).upper():{LEVEL_WIDTH}} {escaped(_name(event))}: {escaped(said)}"
    if ids:
        first += f" [{ids}]"
    if missed := event.get("held_back_before"):
        first += f" (and {missed} like it before, held back)"
    stack = event.get("stack")
    rest = [
        *parts[1:],
        *(stack.splitlines() if isinstance(stack, str) else ()),
        *_traceback(event).splitlines(),
    ]
    return first + "".join(_BAR + escaped(part) for part in rest)


def _at(event: Event) -> str:
    try:
        return time_text(int(event["log_time"] * 1_000_000))
    except (KeyError, TypeError, ValueError, OverflowError):
        return "-"


def _level(event: Event) -> str:
    level = event.get("log_level")
    return "info" if level is None else str(level.name)


def _name(event: Event) -> str:
    name = _text(event.get("log_namespace", "-"), FIELD_MAX_CHARS)
    return "twisted" if name == "log_legacy" else name


def _message(event: Event) -> str:
    """The sentence. A failure without one is told by its exception."""
    message = formatEvent(dict(event))
    failure = event.get("log_failure")
    if not message and failure is not None:
        message = f"{failure.type.__qualname__}: {_shown(failure.value)}"
    return message


def _ids(event: Event) -> dict[str, Any]:
    """Which job, which request, which thread."""
    job = event.get("job_id", event.get("job")) or JOB_ID.get()
    request = event.get("request_id") or REQUEST_ID.get()
    found: dict[str, Any] = {}
    if job is not None:
        found["job_id"] = str(UUID(bytes=job)) if isinstance(job, bytes) and len(job) == 16 else _plain(job)  # noqa: PLR2004 - of a UUID
    if request is not None:
        found["request_id"] = _plain(request)
    thread = threading.current_thread()
    if thread is not threading.main_thread():
        found["thread"] = thread.name
    return found


def _fields(event: Event) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in event.items():
        if name.startswith("log_") or name in _OWN or (name in _LEGACY and "log_text" in event):
            continue
        if len(fields) == FIELDS_MAX:
            fields["…"] = "more fields are left out"
            break
        fields[_text(name, FIELD_MAX_CHARS)] = MASK if is_secret_name(name) else _plain(value)
    return fields


def _traceback(event: Event) -> str:
    failure = event.get("log_failure")
    if failure is None:
        return ""
    try:
        text: str = failure.getTraceback()
    except Exception as error:  # noqa: BLE001 - an exception's own text may raise; the line must come out
        text = f"the traceback cannot be shown: {type(error).__name__}"
    return capped(redacted(text), TRACEBACK_MAX_CHARS)


def _plain(value: Any, depth: int = 0) -> Any:
    """The value as JSON has it, or its text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < WHOLE_MAX:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if depth < DEPTH_MAX:
        if isinstance(value, Mapping):
            return {
                (key := _text(name, FIELD_MAX_CHARS)): MASK
                if is_secret_name(key)
                else _plain(item, depth + 1)
                for name, item in list(value.items())[:ITEMS_MAX]
            }
        if isinstance(value, (list, tuple, set, frozenset)):
            return [_plain(item, depth + 1) for item in list(value)[:ITEMS_MAX]]
    return _text(value, FIELD_MAX_CHARS)


def _text(value: Any, most: int) -> str:
    return capped(redacted(_shown(value)), most)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode(errors="backslashreplace")
    if isinstance(value, datetime):
        return value.isoformat()
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - whatever its author wrote; the line must come out
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"


LEVELS: Final = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
}
"""What an operator can ask for, least first."""
