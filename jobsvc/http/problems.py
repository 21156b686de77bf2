"""F3: every refusal as an RFC 9457 document. The only place that knows which code has which status.

Must not know routes or the engine: it turns an error into bytes.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, NamedTuple
from uuid import uuid4

import msgspec
from twisted.logger import Logger
from twisted.python.failure import Failure

from jobsvc.http.limits import ECHO_MAX_CHARS
from jobsvc.model.errors import Code, JobsvcError
from jobsvc.model.job import NAME_PATTERN

MEDIA = b"application/problem+json"
_TYPE_PREFIX = "urn:jobsvc:problem:"
_MARKUP = re.compile(rb"[<>&]")
_POINTER_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


class ProblemType(NamedTuple):
    """What is the same for all problems of one code.

    `retry_safe`: nothing was done, and the very same request may succeed later.
    """

    status: int
    title: str
    source: Literal["client", "service", "job"] = "client"
    retry_safe: bool = False


PROBLEM_TYPES: dict[Code, ProblemType] = {
    "bad_json": ProblemType(400, "The body is not JSON"),
    "bad_query": ProblemType(400, "A query parameter or header is wrong"),
    "bad_host": ProblemType(421, "This host name is not served here"),
    "unauthenticated": ProblemType(401, "A valid token is required"),
    "forbidden": ProblemType(403, "The token does not allow this"),
    "cross_site": ProblemType(403, "Requests from other sites are refused"),
    "not_found": ProblemType(404, "There is no such thing"),
    "no_such_task": ProblemType(422, "There is no such task"),
    "method_not_allowed": ProblemType(405, "This method does not exist here"),
    "invalid_args": ProblemType(422, "The arguments do not fit the task"),
    "invalid_field": ProblemType(422, "A field of the body is wrong"),
    "key_reused": ProblemType(422, "The key belongs to another body"),
    "conflict": ProblemType(409, "The job's state does not allow this"),
    "cannot_kill": ProblemType(409, "This executor cannot kill"),
    "stale": ProblemType(412, "The job has changed meanwhile"),
    "precondition_required": ProblemType(428, "The request must say which revision it means"),
    "too_large": ProblemType(413, "Over a limit"),
    "media_type": ProblemType(415, "This media type is not understood"),
    "job_failed": ProblemType(424, "The job has no result", "job"),
    "rate_limited": ProblemType(429, "Too many requests", "service", retry_safe=True),
    "queue_full": ProblemType(429, "The queue is full", "service", retry_safe=True),
    "draining": ProblemType(503, "The daemon is stopping", "service", retry_safe=True),
    "overloaded": ProblemType(503, "The daemon is overloaded", "service", retry_safe=True),
    "wait_over": ProblemType(504, "The job was not done in time", "service"),
    "purged": ProblemType(410, "The job was there and has been removed"),
    "disk_full": ProblemType(507, "The disk is full", "service", retry_safe=True),
    "internal": ProblemType(500, "An error inside the daemon", "service"),
    # What goes wrong before there is a request to speak of.
    "bad_request": ProblemType(400, "This is not a sound HTTP request"),
    "not_acceptable": ProblemType(406, "Not to be had in any of these media types"),
    "request_timeout": ProblemType(408, "The request came too slowly", retry_safe=True),
    "uri_too_long": ProblemType(414, "The request line is too long"),
    "expectation_failed": ProblemType(417, "This expectation cannot be met"),
    "headers_too_large": ProblemType(431, "The headers are too large"),
}

_log = Logger()
_encode = msgspec.json.Encoder().encode


def document(error: JobsvcError, instance: str) -> dict[str, Any]:
    """The problem as plain data.

    Args:
        error: its `context` gives the optional members; `status` there overrides the table (a task that is missing
            from the path is 404, from a body 422).
        instance: the request's id.
    """
    kind = PROBLEM_TYPES[error.code]
    return {
        "type": _TYPE_PREFIX + error.code,
        "title": kind.title,
        "status": kind.status,
        "detail": error.detail,
        "instance": instance,
        "code": error.code,
        "source": kind.source,
        "retry_safe": kind.retry_safe,
        **error.context,
    }


def encoded(error: JobsvcError, instance: str) -> bytes:
    """The problem as JSON. What a client sent and the detail repeats can never be taken for markup."""
    text = _encode(document(error, instance))
    return _MARKUP.sub(_escaped, text)


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found[0])


def status_of(error: JobsvcError) -> int:
    """The status of the reply that carries it."""
    status: int = error.context.get("status", PROBLEM_TYPES[error.code].status)
    return status


def internal(failure: Failure, what: str) -> JobsvcError:
    """An unexpected exception: the traceback goes to the log, the client gets the number under which it is there."""
    incident = uuid4().hex[:12]
    _log.failure(
        "{what} failed, incident {incident}", failure, what=what, incident=incident, action="request_failed"
    )
    return JobsvcError("internal", f"Unexpected error; the log has it as incident {incident}.")


def shortened(text: str) -> str:
    """A text that a client had a hand in, cut: a reply must not grow with what it refuses."""
    return text if len(text) <= ECHO_MAX_CHARS else text[:ECHO_MAX_CHARS] + "…"


def not_json(error: Exception) -> JobsvcError:
    """The body cannot be read as JSON at all."""
    return JobsvcError("bad_json", f"The body is not JSON: {str(error) or type(error).__name__}.")


_IN_WORDS: Final = {
    f"Expected `str` matching regex {NAME_PATTERN!r}": (
        "a name is expected: letters, digits, `_`, `.` and `-`, at most 128 of them, first a letter or `_`"
    ),
    "Invalid RFC3339 encoded datetime": "a time with a zone is expected, such as 2026-11-23T12:00:00Z",
}
"""What msgspec says for programmers → the same for those who send the request."""


def wrong_shape(error: msgspec.ValidationError, root: str = "") -> JobsvcError:
    """JSON of the wrong shape, with a JSON pointer made from msgspec's path.

    Args:
        root: pointer of the value that was decoded, put before the path.
    """
    detail, pointer = pointer_of(str(error))
    detail, pointer = shortened(detail), shortened(root + pointer)
    text = f"{pointer or 'the body'}: {detail}"
    return JobsvcError("invalid_field", text, errors=[{"pointer": pointer, "detail": detail}])


def pointer_of(message: str) -> tuple[str, str]:
    """Take a message of msgspec apart: what is wrong, and where as a JSON pointer (RFC 6901).

    A missing or unknown field stands in the text, not in the path; its name is added to the pointer. A key of a
    mapping is not named by msgspec (`[...]`): the pointer then ends at the mapping.
    """
    detail, _, path = message.partition(" - at `$")
    detail = _IN_WORDS.get(detail, detail)
    if detail.startswith("Invalid enum value"):
        detail += "; GET /openapi.json lists what may stand here"
    pointer = ""
    for step in _POINTER_STEP.finditer(path.rstrip("`")):
        if step[2] == "...":
            break
        pointer += "/" + (step[1] or step[2]).replace("~", "~0").replace("/", "~1")
    named = re.fullmatch(r"Object (?:contains unknown|missing required) field `(.*)`", detail)
    if named is not None:
        pointer += "/" + named[1].replace("~", "~0").replace("/", "~1")
    return detail, pointer
