"""F3: what a route is: one method of one path, with all that is checked, served and described of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec

from jobsvc.http.query import Parameter
from jobsvc.model.access import Wanted
from jobsvc.model.errors import Code

Handler = Callable[..., Coroutine[Any, Any, bytes]]
"""`handler(edge, request, query, **path)`; a path's `job_id` comes as 16 bytes. Returns the body of the reply."""

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
JSON = "application/json"


class Answer(msgspec.Struct, frozen=True):
    """One status of a route: what it means, and in which forms its body comes.

    Attributes:
        shape: of the JSON: a type, the name of a component that no type stands for, or None for any JSON.
        line: likewise, of each line of a body of lines.
    """

    doc: str
    shape: Any = None
    media: tuple[str, ...] = (JSON,)
    headers: tuple[str, ...] = ()
    line: Any = None


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path.

    Attributes:
        path: with `{job_id}`-like parts.
        body: type of the JSON body, or the name of a component; without a body `takes_body` is False.
        line: of a body of lines, the shape of each; as `Answer.line`.
        streams: its body is taken as it arrives.
        headers: of the request, those that steer the reply; they are described in `contract.headers`. Accept follows
            from `answers`.
        scope: what the token must allow, `any` for every good one; None for what load balancers ask, without a token.
        shared: a ticket for the job opens it.
        whole_daemon: concerns all jobs of all tenants: not for tokens that are narrowed, or of another tenant than
            the operator's.
        refusals: codes beyond those that any route may give.
        refusal_headers: what refusals of a status carry beside what all with their codes do.
    """

    method: str
    path: str
    name: str
    handler: Handler
    doc: str
    answers: Mapping[int, Answer]
    query: Mapping[str, Parameter] = msgspec.field(default_factory=dict)
    takes_body: bool = False
    body: Any = None
    body_media: tuple[str, ...] = (JSON,)
    line: Any = None
    streams: bool = False
    headers: tuple[str, ...] = ()
    scope: Wanted | None = "read"
    shared: bool = False
    whole_daemon: bool = False
    refusals: tuple[Code, ...] = ()
    refusal_headers: Mapping[int, tuple[str, ...]] = msgspec.field(default_factory=dict)


READING: tuple[Code, ...] = ("bad_json", "invalid_field", "media_type", "too_large")
"""What any JSON body may be refused for."""


def look(
    path: str, name: str, handler: Handler, doc: str, shape: Any = None, *, open_: bool = False
) -> Route:
    """A plain GET of JSON."""
    return Route(
        method="GET",
        path=path,
        name=name,
        handler=handler,
        doc=doc,
        answers={200: Answer(doc, shape)},
        scope=None if open_ else "read",
    )
