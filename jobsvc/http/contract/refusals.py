"""F3: which refusals each route may give, by status, and the reply that carries them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jobsvc.http.contract.headers import JOB_ID, reply_headers
from jobsvc.http.contract.refined import ref
from jobsvc.http.problems import PROBLEM_TYPES, document
from jobsvc.http.route import Route
from jobsvc.model.errors import Code, JobsvcError

MEDIA = "application/problem+json"

_EVERYWHERE = frozenset(
    (
        # Of the request line, the headers and the body's length, before the path is looked at
        "bad_request",
        "request_timeout",
        "too_large",
        "uri_too_long",
        "expectation_failed",
        "headers_too_large",
        "bad_host",
        "cross_site",
        "unauthenticated",  # open routes too: with a query they want the token
        "rate_limited",  # after wrong tokens from the same address
        "bad_query",  # an unknown query parameter
        "not_acceptable",
        "internal",
    )
)
_WITH_SCOPE = frozenset(("forbidden",))
_WITH_STORE = frozenset(("overloaded",))  # while the daemon starts, and when a pool of threads is full
_RETRY_AFTER = frozenset(("rate_limited", "queue_full", "draining", "overloaded", "disk_full"))


def refusals(route: Route) -> Mapping[int, tuple[Code, ...]]:
    """Codes by status, those that any route may give included, in the order of the table of codes."""
    codes = _EVERYWHERE.union(route.refusals)
    if route.scope is not None:
        codes |= _WITH_SCOPE
    if route.path.startswith("/v1/"):
        codes |= _WITH_STORE
    by_status: dict[int, list[Code]] = {}
    for code in PROBLEM_TYPES:
        if code in codes:
            by_status.setdefault(_status(code, route), []).append(code)
    return {status: tuple(found) for status, found in sorted(by_status.items())}


def _status(code: Code, route: Route) -> int:
    """A task that is missing from the path is 404, one from a body 422."""
    if code == "no_such_task" and route.path.startswith("/v1/tasks/"):
        return 404
    return PROBLEM_TYPES[code].status


def component_name(status: int, codes: Iterable[Code], headers: Iterable[str]) -> str:
    """Of the shared reply: the same for all routes that refuse alike."""
    return ".".join((str(status), *codes, *headers))


def headers_of(codes: Iterable[Code]) -> tuple[str, ...]:
    """What a refusal with one of these codes may carry beside its body."""
    found: tuple[str, ...] = ("Retry-After",) if _RETRY_AFTER.intersection(codes) else ()
    if "unauthenticated" in codes:
        found += ("WWW-Authenticate",)
    return (*found, "Allow") if "method_not_allowed" in codes else found


def reply(status: int, codes: tuple[Code, ...], headers: Iterable[str]) -> dict[str, Any]:
    """The shared reply."""
    return {
        "description": "\n".join(f"- `{code}`: {PROBLEM_TYPES[code].title}" for code in codes),
        "headers": reply_headers(headers),
        "content": {
            MEDIA: {
                "schema": {
                    "allOf": [
                        ref("Problem"),
                        {"properties": {"status": {"const": status}, "code": {"enum": list(codes)}}},
                    ]
                },
                "example": _example(status, codes[0]),
            }
        },
    }


def _example(status: int, code: Code) -> dict[str, Any]:
    context: dict[str, Any] = {"status": status}
    if code in _RETRY_AFTER:
        context["retry_after_s"] = 1
    if code in ("invalid_field", "invalid_args"):
        context["errors"] = [{"pointer": "/args/n", "detail": "Expected `int`, got `str`"}]
    if code in ("job_failed", "wait_over"):
        context["job"] = JOB_ID
    if code == "job_failed":
        context["error"] = {
            "kind": "task_error",
            "type": "ValueError",
            "message": "no such file",
            "retryable": True,
            "traceback": None,
            "exit": None,
            "where": {"executor": "process", "worker": "cpu-1", "attempt": 1, "epoch": 1},
        }
    return document(JobsvcError(code, f"{PROBLEM_TYPES[code].title}.", **context), "5f0c1a2b3c4d-1f")
