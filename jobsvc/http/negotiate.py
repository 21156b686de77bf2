"""F3: request headers that steer a reply: Accept, Prefer, Last-Event-ID. Values in, values out."""

from __future__ import annotations

import re
from typing import Literal

from jobsvc.http.request import Request
from jobsvc.model.errors import JobsvcError
from jobsvc.model.limits import WAIT_MAX_S

Form = Literal["json", "sse", "ndjson", "bytes"]

MEDIA: dict[Form, bytes] = {
    "json": b"application/json",
    "sse": b"text/event-stream",
    "ndjson": b"application/x-ndjson",
    "bytes": b"application/octet-stream",
}
_FORMS: dict[bytes, Form] = {media: form for form, media in MEDIA.items()} | {b"application/jsonl": "ndjson"}
_WAIT = re.compile(rb"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9}(?:\.\d{1,6})?)\"?\s*(?:$|[,;])", re.IGNORECASE)
_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"(?:[ ]*;[ ]*[a-z*][a-z0-9_.*-]*(?:=[!-:<-~]*)?)*')
"""A string of structured fields (RFC 9651, section 3.3.3), with parameters, which mean nothing here."""
_ESCAPED = re.compile(r"\\(.)")
_NUMBER = re.compile(rb"\d{1,18}")


def form_of(request: Request, *, default: Form) -> Form:
    """The first form of the Accept header that is known here; `default` when there is none or anything goes."""
    accept = request.requestHeaders.getRawHeaders(b"accept")
    if accept is None or accept[0] == b"*/*":
        return default
    for part in b",".join(accept).split(b","):
        form = _FORMS.get(part.partition(b";")[0].strip().lower())
        if form is not None:
            return form
    return default


def preferred_wait_s(request: Request) -> float | None:
    """Seconds of `Prefer: wait=N` (RFC 7240), cut to the longest wait; a Prefer that says other things is no error."""
    given = request.requestHeaders.getRawHeaders(b"prefer")
    if given is None:
        return None
    found = _WAIT.search(b",".join(given))
    return None if found is None else min(float(found[1]), WAIT_MAX_S)


def applied_wait(request: Request, wait_s: float) -> None:
    """Say that the wait was honoured, and how long it could have been."""
    request.header(
        b"Preference-Applied", b"wait=%d" % wait_s if wait_s == int(wait_s) else b"wait=%g" % wait_s
    )


def last_event(request: Request) -> int | None:
    """The number in Last-Event-ID. Raises `bad_query` when it is no number of ours."""
    given = request.requestHeaders.getRawHeaders(b"last-event-id")
    if given is None or not given[0]:
        return None
    if not _NUMBER.fullmatch(given[0]):
        raise JobsvcError("bad_query", "Last-Event-ID is not the number of an event.")
    return int(given[0])


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key header: the text as it is or, as its draft has it, a string in quotes, which means the text
    within. Raises `bad_query` for two of them, none within, a broken string, or control characters.
    """  # fmt: skip
    given = request.requestHeaders.getRawHeaders(b"idempotency-key")
    if given is None:
        return None
    if len(given) > 1:
        raise JobsvcError("bad_query", "Idempotency-Key: one value is expected, there are several.")
    try:
        key = given[0].strip(b" \t").decode()
    except UnicodeDecodeError:
        key = ""
    if key.startswith('"'):
        found = _STRING.fullmatch(key)
        key = "" if found is None else _ESCAPED.sub(r"\1", found[1])
    if not key.isprintable() or not key:
        raise JobsvcError(
            "bad_query", "Idempotency-Key: one value of printable characters is expected, in quotes or bare."
        )
    return key


def no_key(request: Request) -> None:
    """A key for a whole upload would be taken for a promise. Raises `bad_query`."""
    if request.requestHeaders.hasHeader(b"idempotency-key"):
        raise JobsvcError(
            "bad_query", "Idempotency-Key: an upload has none; give every line a key of its own."
        )
