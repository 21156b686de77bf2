"""F3: request bodies, decoded strictly. Not JSON is 400, JSON of the wrong shape 422 with a pointer, a form 415.

msgspec lets pass inside `Raw` what others choke on: bad UTF-8, numbers beyond a double, depth; and everywhere NUL
characters and repeated keys.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from jobsvc.http.duplicates import check_unique
from jobsvc.http.limits import ELEMENTS_MAX, NESTING_MAX, UNIQUE_KEYS_BYTES
from jobsvc.http.problems import not_json, wrong_shape
from jobsvc.http.request import Request
from jobsvc.model.errors import JobsvcError
from jobsvc.model.job import Submit

T = TypeVar("T")

_EXPONENT = re.compile(rb"[0-9][eE]")
_LONG_NUMBER = re.compile(rb"[0-9]{300}")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SQUARE = bytes.maketrans(b"{}", b"[]")
_BOM = b"\xef\xbb\xbf"
_NUL_ESCAPE = b"\\u0000"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""Databases and C programs behind us take it for the end of the text. An escaped backslash before `u0000` is none."""
_NDJSON = frozenset((b"application/x-ndjson", b"application/jsonl", b"application/json"))
_FORMS = frozenset((b"application/x-www-form-urlencoded", b"multipart/form-data"))

SHORT_BYTES = 2 * NESTING_MAX
"""A text shorter than this cannot nest too deeply, nor hold a number of hundreds of digits."""

LONG_BYTES = 1024
"""From here on decoding it is quicker than looking for odd numbers: the patterns took 3 to 9 ms on 100 KB of text."""

submit_decoder = msgspec.json.Decoder(Submit)
_any_decoder = msgspec.json.Decoder()


def media_type(request: Request) -> bytes:
    """Content-Type without its parameters, empty when there is none. Raises `media_type` for what cannot be read."""
    headers = request.requestHeaders
    given = headers.getRawHeaders(b"content-type")
    if headers.hasHeader(b"content-encoding") and headers.getRawHeaders(b"content-encoding") != [b"identity"]:
        raise JobsvcError("media_type", "Compressed bodies are not understood; send it plain.")
    if given is None:
        return b""
    if given[0] == b"application/json" and len(given) == 1:
        return given[0]
    media, _, rest = given[0].lower().partition(b";")
    charset = re.search(rb"charset=\"?([^\s;\"]+)", rest)
    if len(given) > 1 or (charset is not None and charset[1] not in (b"utf-8", b"utf8", b"us-ascii")):
        raise JobsvcError("media_type", "One Content-Type with UTF-8 is expected.")
    return media.strip()


def json_body(request: Request) -> bytes:
    """The body, known to be meant as JSON; empty when there was none.

    Raises:
        JobsvcError: media_type; bad_json for a key that stands twice, in bodies up to `UNIQUE_KEYS_BYTES`.
    """
    body = request.body()
    if not body:
        return body
    media = media_type(request)
    if media != b"application/json" and not (media.startswith(b"application/") and media.endswith(b"+json")):
        if media in _FORMS:
            detail = "Forms are not understood; with curl, send JSON by --json '{…}' in place of -d."
        else:
            detail = "Content-Type: application/json is expected (curl --json sends it)."
        raise JobsvcError("media_type", detail)
    if len(body) <= UNIQUE_KEYS_BYTES:
        check_unique(body)
    return body


def check_ndjson(request: Request) -> None:
    """A streamed body of lines may come without a type (`curl -T`), but not as something else."""
    media = media_type(request)
    if media and media not in _NDJSON:
        raise JobsvcError("media_type", "Lines of JSON are expected: Content-Type: application/x-ndjson.")


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode `body`. Raises bad_json or invalid_field."""
    try:
        if not body.isascii():
            body.decode()
            if body.startswith(_BOM):
                raise not_json(ValueError("it begins with a byte order mark"))
        if _NUL_ESCAPE in body and _NUL.search(body) is not None:
            raise not_json(ValueError("a string holds the character \\u0000"))
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        if _many_brackets(body) and too_deep(body):
            raise _nested() from None
        raise wrong_shape(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise not_json(_in_words(error, body)) from None
    except RecursionError:
        raise not_json(ValueError("nested too deeply")) from None


def _in_words(error: Exception, body: bytes) -> Exception:
    """What msgspec calls cut off, though it is not."""
    if not body:
        return ValueError("it is empty")
    if "truncated" in str(error) and _SURROGATE.search(body) is not None:
        return ValueError("a string holds half of a surrogate pair, or its end is missing")
    return error


def decode_submit(body: bytes) -> Submit:
    """The envelope of one job; its `args` are sound JSON."""
    submit = decode(submit_decoder, body)
    if suspicious(body):
        check_raw(submit.args)
    return submit


def plain_throughout(lines: Sequence[bytes]) -> bool:
    """Whether every line shorter than `SHORT_BYTES` is above suspicion: ASCII, no number beyond a double, no NUL."""
    block = b"\n".join(lines)
    return block.isascii() and _NUL_ESCAPE not in block and _EXPONENT.search(block) is None


def suspicious(text: bytes) -> bool:
    """Whether raw JSON in `text` needs a closer look: a short one with an exponent, and every long one."""
    return (
        len(text) >= LONG_BYTES
        or _EXPONENT.search(text) is not None
        or (len(text) >= SHORT_BYTES and _odd(text))
    )


def _odd(text: bytes) -> bool:
    return _many_brackets(text) or _LONG_NUMBER.search(text) is not None


def _many_brackets(text: bytes) -> bool:
    return text.count(b"[") + text.count(b"{") > NESTING_MAX


def check_raw(raw: Raw | Any) -> None:
    """Refuse numbers that no double holds, integers of thousands of digits, deep nesting, and too many values."""
    if not isinstance(raw, Raw):
        return
    text = bytes(raw)
    if _many_brackets(text) and too_deep(text):
        raise _nested()
    if len(text) > 2 * ELEMENTS_MAX and too_many(text):
        raise not_json(ValueError(f"more than {ELEMENTS_MAX} values"))
    try:
        _any_decoder.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise not_json(error) from None


def _nested() -> JobsvcError:
    return not_json(ValueError(f"nested more than {NESTING_MAX} deep"))


def too_many(text: bytes) -> bool:
    """Whether `text`, which is sound JSON, holds more than `ELEMENTS_MAX` items and members."""
    if _separators(text) <= ELEMENTS_MAX:
        return False
    return _separators(_STRING.sub(b"", text)) > ELEMENTS_MAX


def _separators(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def too_deep(text: bytes) -> bool:
    """Whether arrays and objects in `text`, which is sound JSON, are nested deeper than `NESTING_MAX`.

    Works at the speed of bytes.replace: each pass takes away the innermost level.
    """
    rest = _STRING.sub(b"", text).translate(_SQUARE, _NOT_BRACKETS)
    for _ in range(NESTING_MAX):
        if not rest:
            return False
        rest = rest.replace(b"[]", b"")
    return bool(rest)
