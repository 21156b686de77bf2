"""The OpenAPI document: valid, whole, true to its own examples, and the same as its copy in the repository."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from jobsvc.http.contract import prose
from jobsvc.http.contract.document import printed
from jobsvc.http.contract.headers import PATH, REPLY, REQUEST
from jobsvc.http.contract.served import contract
from jobsvc.http.problems import PROBLEM_TYPES
from jobsvc.http.route import NDJSON, SSE
from jobsvc.model.access import SCOPES
from jobsvc.model.errors import CODES, KINDS
from jobsvc.model.states import REASONS, STATES
from tests.http.house import House

COPY = Path(__file__).parents[2] / "docs" / "openapi.json"
DOCUMENT: dict[str, Any] = json.loads(json.dumps(contract().document()))
URI = "urn:jobsvc:contract"
REGISTRY: Registry[Any] = Registry().with_resource(URI, DRAFT202012.create_resource(DOCUMENT))


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path, operation) of all."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference stands for."""
    while "$ref" in node:
        target: Any = DOCUMENT
        for step in node["$ref"].removeprefix("#/").split("/"):
            target = target[step.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


def flaws(value: Any, schema: Mapping[str, Any]) -> list[str]:
    """What is wrong with `value`."""
    rooted = json.loads(json.dumps(schema).replace('"#/', f'"{URI}#/'))
    checker = Draft202012Validator(rooted, registry=REGISTRY, format_checker=FormatChecker())
    return [f"{error.json_path}: {error.message}" for error in checker.iter_errors(value)]


def lines_of(media: str, text: str) -> list[Any]:
    """The values of a body of lines, or of the data of SSE messages."""
    if media == NDJSON:
        return [json.loads(line) for line in text.splitlines() if line]
    return [json.loads(data) for data in re.findall(r"^data: (.*)$", text, re.MULTILINE)]


def bodies() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(where, media type, content) of every body that is described."""
    for _, _, operation in operations():
        name = operation["operationId"]
        for media, content in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{name} body", media, content
        for status, answer in operation["responses"].items():
            for media, content in resolved(answer).get("content", {}).items():
                yield f"{name} {status}", media, content


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object in the document."""
    if isinstance(node, dict):
        yield node
        for inner in node.values():
            yield from nodes(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from nodes(inner)


def test_the_document_is_valid() -> None:
    """OpenAPI 3.1 by its own validator, and nothing refers to what is not there."""
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    references = [node for node in nodes(DOCUMENT) if isinstance(node.get("$ref"), str)]
    assert len(references) > 100
    for node in references:
        assert resolved(node)


def test_the_copy_in_the_repository_is_the_document() -> None:
    """A change of the contract is seen in review."""
    assert COPY.read_text() == printed(DOCUMENT), "the contract has changed; if it was meant to: make openapi"


def test_the_daemon_serves_this_document(house: House) -> None:
    """With an ETag, which gives 304 when it comes back, and only to who has a token."""
    reply = house.ask("GET", "/openapi.json")
    assert (reply.status, reply.json()) == (200, DOCUMENT)
    known = {"If-None-Match": reply.headers["etag"]}
    assert house.ask("GET", "/openapi.json", headers=known).status == 304
    wire = house.wire()
    wire.request("GET", "/openapi.json", token=None)
    assert wire.reply().status == 401
    described = {(method.upper(), path) for method, path, _ in operations()}
    assert described == {(route.method, route.path) for route in house.api.routes}


def test_every_example_fits_its_schema() -> None:
    """In requests and replies, each line of streams, parameters and headers."""
    for where, media, content in bodies():
        if "example" not in content:
            continue
        if media in (NDJSON, SSE):
            values = lines_of(media, content["example"])
            assert values, where
            found = [flaw for value in values for flaw in flaws(value, content["x-itemSchema"])]
        else:
            found = flaws(content["example"], content["schema"])
        assert not found, (where, media, found)
    for name, known in [*PATH.items(), *REPLY.items(), *REQUEST.items()]:
        assert not flaws(known.example, known.schema), name


def test_every_body_has_an_example() -> None:
    """All that is sent or got as JSON, lines or text; a schema for all but raw bytes."""
    unlike = ("application/octet-stream", "text/html")
    lacking = {
        (where, media)
        for where, media, content in bodies()
        if media not in unlike and "example" not in content
    }
    # The limits and defaults of a daemon, and the document itself, would be copies of what stands elsewhere.
    assert lacking == {("info 200", "application/json"), ("openapi 200", "application/json")}
    assert all("schema" in content for _, media, content in bodies() if media != "application/octet-stream")


def test_every_operation_says_all() -> None:
    """Summary, description, tag, scope, parameters, replies, and the refusals that any of them may give."""
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for _, path, operation in operations():
        name = operation["operationId"]
        assert operation["summary"].endswith("."), name
        assert operation["description"], name
        assert set(operation["tags"]) <= tags, name
        assert all(parameter["description"] for parameter in operation["parameters"]), name
        assert {"400", "401", "403", "413", "421", "500"} <= set(operation["responses"]), name
        for requirement in operation["security"]:
            assert {role for roles in requirement.values() for role in roles} <= set(SCOPES), name
        in_path = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", path)), name
        for status, answer in operation["responses"].items():
            assert resolved(answer)["description"], (name, status)
            assert "X-Request-ID" in resolved(answer)["headers"], (name, status)


def test_every_refusal_lists_its_codes() -> None:
    """The problem document's shape with the codes of this status; each has that status in the table of codes."""
    seen = set()
    for name, answer in DOCUMENT["components"]["responses"].items():
        status = int(name.partition(".")[0])
        base, narrowed = answer["content"]["application/problem+json"]["schema"]["allOf"]
        assert base == {"$ref": "#/components/schemas/Problem"}
        codes = narrowed["properties"]["code"]["enum"]
        seen |= set(codes)
        for code in codes:
            assert PROBLEM_TYPES[code].status == status or (code, status) == ("no_such_task", 404)
        assert narrowed["properties"]["status"] == {"const": status}
        if status in (429, 503, 507):
            assert "Retry-After" in answer["headers"], name
        if status == 401:
            assert "WWW-Authenticate" in answer["headers"]
    used = {node["$ref"] for node in nodes(DOCUMENT["paths"]) if "/responses/" in node.get("$ref", "")}
    unused = set(DOCUMENT["components"]["responses"]) - {ref.rpartition("/")[2] for ref in used}
    assert unused == {"405.method_not_allowed"}  # it belongs to no operation
    assert seen <= set(CODES)


def test_the_guide_explains_every_word() -> None:
    """All states, reasons, kinds of errors, scopes and codes."""
    assert set(prose.STATES) == set(STATES)
    assert set(prose.REASONS) == set(REASONS)
    assert set(prose.KINDS) == set(KINDS)
    assert set(prose.SCOPES) == set(SCOPES)
    for word in (*STATES, *REASONS, *KINDS, *SCOPES, *CODES):
        assert f"`{word}`" in prose.GUIDE, word


def test_labels_of_a_list_are_described_as_they_are_sent() -> None:
    """An exploded object whose members are the whole names."""
    parameters = {p["name"]: p for p in DOCUMENT["paths"]["/v1/jobs"]["get"]["parameters"]}
    labels = parameters["labels"]
    assert (labels["style"], labels["explode"]) == ("form", True)
    assert not flaws(labels["example"], labels["schema"])
    assert flaws({"customer": "acme"}, labels["schema"])
    assert parameters["state"]["explode"] is False


@pytest.mark.parametrize(
    ("method", "target", "value"),
    [
        ("POST", "/v1/jobs", {"task": "echo", "args": {"x": 1}, "labels": {"a": "b"}, "delay_s": 5}),
        ("GET", "/v1/jobs/{id}", None),
        ("GET", "/v1/jobs", None),
        ("GET", "/v1/jobs?include=args,result", None),
        ("GET", "/v1/jobs?id={id},nope", None),
        ("GET", "/v1/jobs/{id}/result", None),
        ("GET", "/v1/jobs/{failed}/result", None),
        ("GET", "/v1/jobs/{failed}", None),
        ("GET", "/v1/jobs/{failed}/attempts", None),
        ("POST", "/v1/jobs/{failed}/retry", None),
        ("GET", "/v1/tasks", None),
        ("GET", "/v1/tasks/echo", None),
        ("GET", "/v1/executors", None),
        ("GET", "/v1/info", None),
        ("GET", "/readyz?verbose", None),
        ("POST", "/v1/reload", None),
        ("POST", "/v1/jobs", {"task": "echo", "colour": "red"}),
        ("POST", "/v1/jobs", {"task": "nope"}),
        ("DELETE", "/v1/jobs/{queued}", None),
    ],
)
def test_replies_fit_what_is_described(house: House, method: str, target: str, value: Any) -> None:
    """Real replies against the schemas of their status."""
    done = house.done()["id"]
    failed = house.submit("retried", retries=0)["id"]
    house.worker.fail(house.worker.started.pop())
    queued = house.submit("idle")["id"]
    names = {"id": done, "failed": failed, "queued": queued}
    reply = house.ask(method, target.format(**names), value)
    path = re.sub(r"\{(id|failed|queued)\}", "{job_id}", target.partition("?")[0]).replace("/echo", "/{task}")
    answer = resolved(DOCUMENT["paths"][path][method.lower()]["responses"][str(reply.status)])
    content = answer["content"][reply.headers["content-type"]]
    assert not flaws(reply.json(), content["schema"])
    described = {name.lower() for name in answer["headers"]}
    for name in ("retry-after", "etag", "location", "www-authenticate", "idempotency-replayed"):
        assert name not in reply.headers or name in described, name


@pytest.mark.parametrize("media", [NDJSON, SSE])
def test_lines_fit_what_is_described(house: House, media: str) -> None:
    """Events, items of two attempts, and the answers of a bulk upload."""
    job = house.submit("retried", retries=1, backoff={"base_s": 0})
    first = house.worker.started.pop()
    house.worker.begin(first)
    house.worker.log(first, "hello")
    house.worker.items(first, 1, "two", None)
    house.worker.fail(first)
    house.after(1)
    second = house.worker.started.pop()
    house.worker.items(second, {"three": 3})
    house.worker.succeed(second)
    cases: list[tuple[str, str, str, bytes | None]] = [
        ("GET", f"/v1/jobs/{job['id']}/events", "/v1/jobs/{job_id}/events", None),
        ("GET", f"/v1/jobs/{job['id']}/streams/out?epoch=all", "/v1/jobs/{job_id}/streams/{name}", None),
    ]
    if media == NDJSON:
        lines = b'{"task":"echo"}\n{"task":"nope"}\n'
        cases += [("POST", f"/v1/jobs/bulk{query}", "/v1/jobs/bulk", lines) for query in ("", "?full=1")]
    for method, target, path, raw in cases:
        headers = {"Accept": media, **({"Content-Type": NDJSON} if raw else {})}
        reply = house.ask(method, target, headers=headers, raw=raw)
        schema = DOCUMENT["paths"][path][method.lower()]["responses"]["200"]["content"][media]["x-itemSchema"]
        values = lines_of(media, reply.body.decode())
        assert len(values) > 1, target
        assert not [flaw for value in values for flaw in flaws(value, schema)], target


def test_the_kinds_of_events_are_all_described() -> None:
    """One shape each."""
    from jobsvc.model.events import EventKind

    shapes = DOCUMENT["components"]["schemas"]["Event"]["oneOf"]
    assert {shape["properties"]["kind"]["const"] for shape in shapes} == set(get_args(EventKind))
