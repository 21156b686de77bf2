"""F3: the OpenAPI 3.1 document, from the table of routes and the types of bodies. Made once, at start.

`python -m jobsvc.http.contract` prints it; a copy lies in docs/openapi.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from jobsvc.http.api_daemon import running_version
from jobsvc.http.contract import examples, prose, refined
from jobsvc.http.contract.headers import PATH, REPLY, REQUEST, parameter, reply_header, reply_headers
from jobsvc.http.contract.refusals import component_name, headers_of, refusals, reply
from jobsvc.http.contract.shapes import Problem
from jobsvc.http.route import NDJSON, SSE, Answer, Route
from jobsvc.model.access import SCOPES
from jobsvc.model.errors import Code
from jobsvc.model.job import JobView

_REF = "#/components/schemas/{name}"
_PATH_PART = re.compile(r"\{(\w+)\}")
_SUFFIX = "View"
"""Of classes that are only the shape of a reply; the contract names the thing itself."""
_LINES = frozenset((NDJSON, SSE))
_NEEDED_HEADERS: Mapping[str, str] = {"precondition_required": "If-Match"}
"""Headers of requests without which there is this refusal."""
_UNROUTED: tuple[Code, ...] = ("method_not_allowed",)
"""Codes that belong to no operation."""


def describe(routes: Iterable[Route]) -> dict[str, Any]:
    """The whole document."""
    return _Document(tuple(routes)).whole()


class _Document:
    """The document while it is made; shared parts gather in `components`."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._routes = routes
        self._schemas: dict[str, Any] = {}
        self._replies: dict[str, Any] = {}
        self._shape_of: dict[str, Any] = {}
        self._headers: set[str] = set()
        self._read_types()

    def whole(self) -> dict[str, Any]:
        """See `describe`."""
        paths: dict[str, dict[str, Any]] = {}
        for route in self._routes:
            paths.setdefault(route.path, {})[route.method.lower()] = self._operation(route)
        self._refusal(405, _UNROUTED, ())
        tags = {_tag(route) for route in self._routes}
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "jobsvc",
                "version": running_version(),
                "summary": "Submit jobs over HTTP; poll, wait for or stream their results.",
                "description": prose.GUIDE,
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "servers": [{"url": "/", "description": "The daemon that serves this document."}],
            "tags": [
                {"name": name, "description": text} for name, text in prose.TAGS.items() if name in tags
            ],
            "paths": paths,
            "components": {
                "schemas": dict(sorted(self._schemas.items())),
                "responses": dict(sorted(self._replies.items())),
                "headers": {name: reply_header(name) for name in REPLY if name in self._headers},
                "securitySchemes": {
                    "token": {
                        "type": "http",
                        "scheme": "bearer",
                        "bearerFormat": "jobsvc_<id>.<secret>",
                        "description": "A token. Scopes: "
                        + "; ".join(f"{scope}: {text}" for scope, text in prose.SCOPES.items())
                        + ".",
                    },
                    "ticket": {
                        "type": "apiKey",
                        "in": "query",
                        "name": "ticket",
                        "description": "From POST /v1/jobs/{job_id}/share: follows that job, for a while.",
                    },
                },
            },
        }

    # -- shapes

    def _read_types(self) -> None:
        """Components of all types that routes name, and what is laid over and beside them."""
        types: dict[str, Any] = {repr(kind): kind for kind in (Problem, JobView)}
        for route in self._routes:
            for shape in (route.body, route.line, *(a.shape for a in route.answers.values())):
                if shape is not None and not isinstance(shape, str):
                    types[repr(shape)] = shape
        shapes, found = msgspec.json.schema_components(types.values(), ref_template=_REF)
        schemas = {_named(name): _tidy(schema) for name, schema in found.items()}
        for name, members in refined.MEMBERS.items():
            for member, words in members.items():
                schemas[name]["properties"][member] = {**schemas[name]["properties"][member], **words}
        for name in refined.EXCLUSIVE.keys() & schemas.keys():
            schemas[name]["not"] = {"required": list(refined.EXCLUSIVE[name])}
        schemas["JobRow"] = _row_of(schemas["Job"])
        schemas["JobPage"]["properties"]["jobs"]["items"] = refined.ref("JobRow")
        self._schemas = schemas | {name: dict(schema) for name, schema in refined.COMPONENTS.items()}
        self._shape_of = {kind: _tidy(shape) for kind, shape in zip(types, shapes, strict=True)}

    def _schema(self, shape: Any) -> Any:
        """A type, the name of a component, or None for any JSON."""
        if shape is None:
            return {}
        return refined.ref(shape) if isinstance(shape, str) else self._shape_of[repr(shape)]

    # -- operations

    def _operation(self, route: Route) -> dict[str, Any]:
        answers = {
            str(status): self._answer(route, status, answer) for status, answer in route.answers.items()
        }
        for status, codes in refusals(route).items():
            also = () if status in route.answers else route.refusal_headers.get(status, ())
            if str(status) not in answers:
                answers[str(status)] = self._refusal(status, codes, also)
            else:
                # Both a reply of its own and refusals: health says 503 in words, and so does the whole daemon.
                shared = reply(status, codes, ())
                answers[str(status)]["content"] |= shared["content"]
                answers[str(status)]["description"] += "\n\nOr:\n" + shared["description"]
        operation: dict[str, Any] = {
            "operationId": route.name,
            "tags": [_tag(route)],
            "summary": route.doc,
            "description": "\n\n".join(
                text for text in (prose.DETAILS.get(route.name, ""), _scope_text(route)) if text
            ),
            "parameters": _parameters(route),
            "responses": dict(sorted(answers.items())),
            "security": _security(route),
        }
        if route.takes_body:
            operation["requestBody"] = self._body(route)
        return operation

    def _body(self, route: Route) -> dict[str, Any]:
        example = examples.REQUESTS.get(route.name)
        content: dict[str, Any] = {}
        for media in route.body_media:
            content[media] = (
                _lines(self._schema(route.line)) if media in _LINES else {"schema": self._schema(route.body)}
            )
            if example is not None:
                content[media]["example"] = example
        return {"required": _needs_body(route), "content": content}

    def _answer(self, route: Route, status: int, answer: Answer) -> dict[str, Any]:
        out: dict[str, Any] = {"description": answer.doc}
        known = examples.REPLIES.get((route.name, status), {})
        if answer.media:
            out["content"] = {}
            for media in answer.media:
                if media in _LINES:
                    content = _lines(self._schema(answer.line))
                elif media == "application/json":
                    content = {"schema": self._schema(answer.shape)}
                elif media == "application/octet-stream":
                    content = {}
                else:
                    content = {"schema": {"type": "string"}}
                if media in known:
                    content["example"] = known[media]
                out["content"][media] = content
        names = (*answer.headers, "X-Request-ID", *(("Content-Length",) if answer.media else ()))
        out["headers"] = reply_headers(names)
        self._headers |= set(names)
        return out

    def _refusal(self, status: int, codes: tuple[Code, ...], also: Iterable[str]) -> dict[str, str]:
        headers = (*headers_of(codes), *also)
        name = component_name(status, codes, also)
        names = (*headers, "X-Request-ID", "Content-Length")
        self._replies[name] = reply(status, codes, names)
        self._headers |= set(names)
        return {"$ref": f"#/components/responses/{name}"}


def _parameters(route: Route) -> list[dict[str, Any]]:
    out = [parameter(name, "path", PATH, required=True) for name in _PATH_PART.findall(route.path)]
    out += [_query_parameter(name, known) for name, known in route.query.items()]
    needed = frozenset(_NEEDED_HEADERS.get(code) for code in route.refusals)
    names = dict.fromkeys((*route.headers, "X-Request-ID"))
    return [*out, *(parameter(name, "header", REQUEST, required=name in needed) for name in names)]


def _security(route: Route) -> list[dict[str, list[str]]]:
    """What opens the route; each alone is enough. Roles are the scope that it wants, none where any will do."""
    if route.scope is None:
        return []
    token: dict[str, list[str]] = {"token": [scope for scope in SCOPES if scope == route.scope]}
    return [token, {"ticket": []}] if route.shared else [token]


def _tag(route: Route) -> str:
    group = route.name.partition(".")[0]
    return group if group in prose.TAGS else "daemon"


def _needs_body(route: Route) -> bool:
    """Whether it can do nothing without one."""
    if route.line is not None or not isinstance(route.body, type):
        return False
    return route.method == "PATCH" or any(field.required for field in msgspec.structs.fields(route.body))


def _scope_text(route: Route) -> str:
    if route.scope is None:
        return "Needs no token."
    return f"Scope: `{route.scope}`." if route.scope in SCOPES else "Any good token will do."


def _lines(line: Any) -> dict[str, Any]:
    """A body of lines: a text to OpenAPI 3.1; `x-itemSchema` is what 3.2 calls itemSchema, the shape of each."""
    return {
        "schema": {"type": "string", "description": "Lines; x-itemSchema is the shape of each."},
        "x-itemSchema": line,
    }


def _query_parameter(name: str, known: Any) -> dict[str, Any]:
    out = {"name": name, "in": "query", "description": known.doc, "schema": dict(known.schema)}
    if name.endswith("."):
        # Parameters whose names begin so. An object that is exploded into the query names them exactly.
        out["name"] = name.rstrip(".") + "s"
        out["schema"] = {
            "type": "object",
            "propertyNames": {"pattern": f"^{re.escape(name)}[A-Za-z_][A-Za-z0-9_.-]{{0,62}}$"},
            "additionalProperties": dict(known.schema),
        }
        out |= {"style": "form", "explode": True, "example": {f"{name}customer": "acme"}}
    elif known.schema.get("type") == "array":
        out |= {"style": "form", "explode": False}
    return out


def _named(name: str) -> str:
    return name.removesuffix(_SUFFIX)


def _tidy(schema: Any) -> Any:
    """Components named after the thing; descriptions without the source's line breaks; no titles, which say nothing."""
    if isinstance(schema, list):
        return [_tidy(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref":
            out[key] = _named(value)
        elif key == "description":
            out[key] = re.sub(r"\s+", " ", value).strip()
        elif key == "properties":
            out[key] = {name: _tidy(member) for name, member in value.items()}
        elif key != "title":
            out[key] = _tidy(value)
    return out


def _row_of(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job as a row of a list."""
    return {
        **job,
        "description": "A job as a row of a list: without what is long, unless it was asked for.",
        "required": [name for name in job["required"] if name not in refined.ROW_LEAVES_OUT],
    }


def printed(document: Mapping[str, Any]) -> str:
    """The document as its copy in the repository holds it: sorted, so that changes show as what they are."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
