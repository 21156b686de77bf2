"""F1: results, items and log fields to JSON. Values are encoded, not checked against a type hint.

msgspec's own rules hold (dataclasses and attrs as objects, bytes as base64, times as RFC 3339, decimals and UUIDs as
text, sets as arrays, NaN and infinities as null); this module adds what people return beside that.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from pathlib import PurePath
from types import NoneType
from typing import Any

import msgspec

from jobsvc.model.text import has_break

DETAIL_MAX_CHARS = 500
"""Of the reason why a value cannot be encoded, so much is kept: it may hold the value itself."""


class NotSerialisable(Exception):
    """A value that has no JSON form.

    Args:
        type_name: the qualified name of the type that was met, perhaps deep inside of the value.
        why: what is wrong with it, when it is not the type as such.
    """

    def __init__(self, type_name: str, why: str = "there is no JSON form for it") -> None:
        super().__init__(f"{type_name}: {why}")
        self.type_name = type_name
        self.why = why

    def __reduce__(self) -> tuple[type[NotSerialisable], tuple[str, str]]:
        return (NotSerialisable, (self.type_name, self.why))


def type_name(value: object) -> str:
    """The qualified name of a value's type, without `builtins.`."""
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def encode_result(value: Any) -> bytes:
    """JSON text of `value`, without a line break.

    Raises:
        NotSerialisable: a type without a JSON form, a dict key that is no text or number, a lone surrogate, a value
            that contains itself, one whose own methods raise.
    """
    try:
        text = _encode(value)
        if has_break(text):
            # Only ready-made JSON (msgspec.Raw) brings line breaks, and one would cut the line of a stream in two.
            text = _encode(msgspec.json.decode(text))
    except NotSerialisable:
        raise
    except RecursionError:
        raise NotSerialisable(type_name(value), "it contains itself, or is nested too deeply") from None
    except Exception as error:  # beside msgspec's own: whatever a value's own methods raise
        raise NotSerialisable(type_name(value), str(error)[:DETAIL_MAX_CHARS]) from error
    return text


def encode_loosely(value: Any) -> bytes:
    """The same for what is only shown to people: what has no JSON form becomes its `repr`."""
    try:
        return encode_result(value)
    except NotSerialisable:
        return _encode(_shown(value))


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001  # the author's own code
        text = f"<{type_name(value)}: {type_name(error)} in its repr>"
    return printable(text)


def printable(text: str) -> str:
    """The text with lone surrogates written as escapes: every byte of it is UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _exception(error: BaseException) -> dict[str, str]:
    return {"type": type_name(error), "message": str(error)}


_FORMS: tuple[tuple[type[Any], Callable[[Any], Any]], ...] = (
    # Subclasses of plain types first: some of them are sequences too.
    (str, str.__str__),
    (int, int),
    (float, float),
    (bytes, bytes),
    (dt.datetime, dt.datetime.isoformat),
    (dt.date, dt.date.isoformat),
    (Decimal, str),
    (PurePath, str),
    (BaseException, _exception),
    (Mapping, dict),
    (Sequence, list),
    (AbstractSet, list),
)


_NO_KEYS: frozenset[type[Any]] = frozenset({list, tuple, dict, set, frozenset, bool, NoneType})
"""msgspec knows these as values: where it asks for one of them, it stands as a key."""


def _plain(value: Any) -> Any:
    """What msgspec shall encode in place of a value it does not know: its `enc_hook`."""
    if type(value) in _NO_KEYS:
        raise NotSerialisable(type_name(value), "not as a key of a dict: keys are text or numbers")
    if isinstance(value, type):
        raise NotSerialisable(type_name(value))  # a class has the methods asked for below, but no value
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")  # pydantic's models, and what behaves like one
    for kind, convert in _FORMS:
        if isinstance(value, kind):
            return convert(value)
    to_list = getattr(value, "tolist", None)
    if callable(to_list):
        return to_list()  # arrays and scalars of numpy, and what behaves like them
    raise NotSerialisable(type_name(value))


_encode = msgspec.json.Encoder(enc_hook=_plain).encode
