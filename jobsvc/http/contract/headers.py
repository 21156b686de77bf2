"""F3: headers and parts of paths as the contract describes them. A route that names another one fails at start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jobsvc.http.contract.refined import NAME, UUID
from jobsvc.http.limits import REQUEST_ID_MAX_CHARS
from jobsvc.model.limits import KEY_MAX_CHARS


class Described(NamedTuple):
    """A header or a part of a path: what it is for, its JSON Schema, and how one looks."""

    doc: str
    schema: Mapping[str, Any]
    example: Any


_TEXT = {"type": "string"}
_REQUEST_ID = {"type": "string", "pattern": f"^[A-Za-z0-9._:-]{{1,{REQUEST_ID_MAX_CHARS}}}$"}
_ETAG = {"type": "string", "pattern": '^"[^"]+"$'}
_SECONDS = {"type": "integer", "minimum": 1}
JOB_ID = "01900000-0000-7000-8000-000000000001"

REPLY: Mapping[str, Described] = {
    "Allow": Described("The methods that this path has.", _TEXT, "GET, HEAD"),
    "Content-Length": Described(
        "Bytes of the body; streams have none.", {"type": "integer", "minimum": 0}, 2
    ),
    "ETag": Described("Revision of what was sent; send it back in If-None-Match.", _ETAG, '"r3"'),
    "Idempotency-Replayed": Described("The key was known: no new job was made.", {"const": "true"}, "true"),
    "Idempotency-Key-Expires": Described(
        "When the key may be used anew; there once the job has ended.",
        {"type": "string", "description": "HTTP date"},
        "Thu, 03 Dec 2026 12:00:00 GMT",
    ),
    "Location": Described(
        "Path of what the request made, or of the job that it found.",
        {"type": "string", "format": "uri-reference"},
        f"/v1/jobs/{JOB_ID}",
    ),
    "Preference-Applied": Described(
        "How long the reply could have waited.",
        {"type": "string", "pattern": r"^wait=[0-9.e+-]+$"},
        "wait=30",
    ),
    "RateLimit": Described(
        "What is left of each limit, in jobs: r; seconds until all of it is there again: t.",
        _TEXT,
        '"depth";r=9999',
    ),
    "RateLimit-Policy": Described(
        "The limits in force, in jobs: q; their window in seconds: w.", _TEXT, '"depth";q=10000'
    ),
    "Retry-After": Described("Seconds after which to ask again.", _SECONDS, 1),
    "WWW-Authenticate": Described("How to send the token.", _TEXT, 'Bearer realm="jobsvc"'),
    "X-Request-ID": Described(
        "Id of the request: the client's own, or one that was made for it.", _REQUEST_ID, "5f0c1a2b3c4d-1f"
    ),
}
"""Of replies. Where a status need not have it, the header is not required."""

SURE = frozenset(("Allow", "ETag", "Location", "WWW-Authenticate", "X-Request-ID"))
"""Headers that a reply that lists them always has."""

REQUEST: Mapping[str, Described] = {
    "Idempotency-Key": Described(
        "The same key and body give the same job, as long as it is kept; another body is refused.",
        {"type": "string", "minLength": 1, "maxLength": KEY_MAX_CHARS, "pattern": "^[!-~]+( +[!-~]+)*$"},
        "order-4711",
    ),
    "If-Match": Described(
        "ETags, or *: nothing is done unless the job is still in one of these revisions.", _TEXT, '"r3"'
    ),
    "If-None-Match": Described(
        "The ETag that is known: 304 while it is still the one. Any other value is ignored.", _TEXT, '"r3"'
    ),
    "Last-Event-ID": Described(
        "The last number that was read: the reply goes on behind it.",
        {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
        7,
    ),
    "Prefer": Described(
        "wait=N: answer when the job is done, or after N seconds. Other preferences are ignored.",
        _TEXT,
        "wait=30",
    ),
    "traceparent": Described(
        "W3C Trace Context: stored with the job and handed to its task.",
        _TEXT,
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
    "X-Request-ID": Described(
        "An id of your own for this request, of at most 64 letters, digits and `._:-` (else it is replaced); it comes "
        "back, stands in the log, and is stored with a job.",
        _TEXT,
        "checkout-7f3a",
    ),
}
"""Of requests."""

PATH: Mapping[str, Described] = {
    "job_id": Described("Id of a job.", UUID, JOB_ID),
    "task": Described("Name of a task.", NAME, "echo"),
    "token_id": Described(
        "Id of a token: what stands before the dot of its text, without jobsvc_.",
        {"type": "string", "minLength": 1},
        "k3v9x2",
    ),
    "name": Described(
        "Name of a stream: out, or one of the task's own.", {"type": "string", "minLength": 1}, "out"
    ),
}
"""Parts of paths, by name."""


def reply_header(name: str) -> dict[str, Any]:
    """The header as OpenAPI describes it in a reply."""
    header = REPLY[name]
    return {
        "description": header.doc,
        "required": name in SURE,
        "schema": dict(header.schema),
        "example": header.example,
    }


def reply_headers(names: Iterable[str]) -> dict[str, Any]:
    """References to the headers of a reply. Raises LookupError for one that is not described here."""
    if unknown := [name for name in names if name not in REPLY]:
        raise LookupError(f"headers {unknown} are not described in {__name__}.REPLY")
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def parameter(
    name: str, place: str, table: Mapping[str, Described], *, required: bool = False
) -> dict[str, Any]:
    """A header of the request or a part of the path as OpenAPI describes it."""
    known = table.get(name)
    if known is None:
        raise LookupError(f"the {place} parameter {name} is not described in {__name__}")
    return {
        "name": name,
        "in": place,
        "required": required,
        "description": known.doc,
        "schema": dict(known.schema),
        "example": known.example,
    }
