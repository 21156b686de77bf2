"""F3: the API's description, OpenAPI 3.1, from the table of routes and the types of bodies. Made once, at start."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UnsetType

from jobsvc.http.api_daemon import running_version
from jobsvc.http.problems import PROBLEM_TYPES
from jobsvc.http.routes import Answer, Route
from jobsvc.model.errors import Code, JobError
from jobsvc.model.job import JobView

_REF = "#/components/schemas/{name}"
_PATH_PART = re.compile(r"\{(\w+)\}")
_PROBLEM_MEDIA = "application/problem+json"
_EVERYWHERE: tuple[Code, ...] = ("bad_host", "cross_site", "internal")
"""Codes that any route may give."""
_PATH_DOCS = {
    "job_id": ({"type": "string", "format": "uuid"}, "Id of a job."),
    "task": ({"type": "string"}, "Name of a task."),
    "name": ({"type": "string"}, "Name of a stream: out, or one of the task's own."),
    "token_id": (
        {"type": "string"},
        "Id of a token: what stands before the dot of its text, without jobsvc_.",
    ),
}
_HEADER_DOCS = {
    "Location": "Path of the job.",
    "ETag": "Revision of the job; send it back in If-None-Match.",
    "Preference-Applied": "How long the reply could have waited.",
    "Idempotency-Replayed": "true: this job was submitted before, with the same key and body.",
    "Idempotency-Key-Expires": "When the key may be used anew (HTTP date); there once the job has ended.",
    "RateLimit": "What is left of each limit, in jobs: r; seconds until all of it is there again: t.",
    "RateLimit-Policy": "The limits in force, of which half is used, in jobs: q; their window in seconds: w.",
    "Retry-After": "Seconds after which to ask again.",
}
_STEERING_DOCS = {
    "Idempotency-Key": "The same key and body give the same job, as long as it is kept; another body is refused.",
    "If-Match": "ETags (or *): nothing is done unless the job is still in one of these revisions.",
    "If-None-Match": "The ETags that are known (or *): 304 while it is still one of them.",
    "Last-Event-ID": "The last number that was read: the reply goes on behind it.",
    "X-Request-ID": "The client's name of the request: comes back, and is kept with the job.",
    "traceparent": "W3C Trace Context: kept with the job and handed to its task.",
    "Prefer": "wait=N: answer when the job is done, or after N seconds.",
}
"""Headers of requests."""


class FieldError(msgspec.Struct):
    """One wrong place: a JSON pointer into what was sent, and what is wrong there."""

    pointer: str
    detail: str


class Problem(msgspec.Struct):
    """RFC 9457 problem document; `code` is from a closed list."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: Code
    source: str
    retry_safe: bool
    errors: list[FieldError] | UnsetType = msgspec.UNSET
    retry_after_s: float | UnsetType = msgspec.UNSET
    job: str | UnsetType = msgspec.UNSET
    revision: int | UnsetType = msgspec.UNSET
    error: JobError | UnsetType | None = msgspec.UNSET


def describe(routes: Iterable[Route]) -> dict[str, Any]:
    """The whole document."""
    routes = tuple(routes)
    types = _types(routes)
    shapes, components = msgspec.json.schema_components(types, ref_template=_REF)
    schema_of = {repr(kind): shape for kind, shape in zip(types, shapes, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "jobsvc",
            "version": running_version(),
            "description": "Submit jobs over HTTP; poll, wait for or stream their results.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "ticket": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "ticket",
                    "description": "From POST /v1/jobs/{job_id}/share: follows that job, for a while.",
                },
            },
        },
    }


def _types(routes: Iterable[Route]) -> list[Any]:
    found: dict[str, Any] = {repr(kind): kind for kind in (Problem, JobView)}
    for route in routes:
        for kind in (route.body, *(answer.shape for answer in route.answers.values())):
            if kind is not None:
                found[repr(kind)] = kind
    return list(found.values())


def _operation(route: Route, schema_of: dict[str, Any]) -> dict[str, Any]:
    answers = {str(status): _answer(answer, schema_of) for status, answer in route.answers.items()}
    for status, codes in _refusals(route).items():
        answers.setdefault(str(status), _refusal(codes, schema_of))
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.doc,
        "parameters": [*_path_parameters(route), *_query_parameters(route), *_header_parameters(route)],
        "responses": answers,
        "security": _security(route),
    }
    if route.takes_body:
        schema = {} if route.body is None else schema_of[repr(route.body)]
        operation["requestBody"] = {
            "required": route.body is not None and "task" in getattr(route.body, "__struct_fields__", ()),
            "content": {media: {"schema": schema} for media in route.body_media},
        }
    return operation


def _security(route: Route) -> list[dict[str, list[str]]]:
    """What may open the route; each alone is enough."""
    if route.scope is None:
        return []
    return [{"token": []}, {"ticket": []}] if route.shared else [{"token": []}]


def _answer(answer: Answer, schema_of: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {"description": answer.doc}
    if answer.media:
        json_schema = {} if answer.shape is None else schema_of[repr(answer.shape)]
        out["content"] = {
            media: {"schema": json_schema if media == "application/json" else {"type": "string"}}
            for media in answer.media
        }
    if answer.headers:
        out["headers"] = {
            name: {"description": _HEADER_DOCS[name], "schema": {"type": "string"}} for name in answer.headers
        }
    return out


def _refusals(route: Route) -> dict[int, list[Code]]:
    """Codes by status, those that any route may give included."""
    codes: list[Code] = [*_EVERYWHERE, *route.refusals]
    if route.scope is not None:
        codes += ["unauthenticated", "forbidden"]
    if route.query or route.scope is None:
        codes.append("bad_query")
    by_status: dict[int, list[Code]] = {}
    for code in codes:
        status = (
            404
            if code == "no_such_task" and route.path.startswith("/v1/tasks/")
            else PROBLEM_TYPES[code].status
        )
        by_status.setdefault(status, []).append(code)
    return by_status


def _refusal(codes: list[Code], schema_of: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": "; ".join(f"{code}: {PROBLEM_TYPES[code].title}" for code in codes),
        "content": {_PROBLEM_MEDIA: {"schema": schema_of[repr(Problem)]}},
    }


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    out = []
    for name in _PATH_PART.findall(route.path):
        schema, doc = _PATH_DOCS[name]
        out.append({"name": name, "in": "path", "required": True, "schema": schema, "description": doc})
    return out


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for name, parameter in route.query.items():
        if name.endswith("."):
            # OpenAPI has no parameter with a free name; a deep object comes nearest, its text says the true form.
            schema: dict[str, Any] = {"type": "object", "additionalProperties": parameter.schema}
            out.append(
                {
                    "name": name,
                    "in": "query",
                    "schema": schema,
                    "style": "form",
                    "explode": True,
                    "description": parameter.doc,
                }
            )
        else:
            out.append(
                {"name": name, "in": "query", "schema": dict(parameter.schema), "description": parameter.doc}
            )
    return out


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "header", "schema": {"type": "string"}, "description": _STEERING_DOCS[name]}
        for name in route.headers
    ]
