"""schemathesis against a real daemon: it sends what the document allows and what it forbids, and judges every reply.

Statuses, content types, schemas, headers, refused methods and their Allow, tokens that are missing or wrong. The
requests are the same in every run.
"""

from __future__ import annotations

from typing import Any

from tests.integration.daemon import Daemon
from tests.openapi.fuzzing import Finding, config, findings, fuzz, narrowed

EXAMPLES = 2
"""Random requests of each kind to each operation, beside the several hundred that the schema's own edges give."""


def told(found: list[Finding]) -> str:
    """Findings for people; only the first few."""
    return "\n\n".join(
        f"{finding.operation} {finding.check}: {finding.message}\n{finding.curl}\n{finding.reply[:1000]}"
        for finding in found[:5]
    )


def test_the_daemon_keeps_what_the_document_says(daemon: Daemon) -> None:
    """Nothing it answers contradicts its own description, and no request makes it fail."""
    jobs = [daemon.submit(task, "a b")["id"] for task in ("echo", "words", "fail")]
    for job in jobs:
        daemon.done(job)
    document = narrowed(daemon.get("/openapi.json").json(), ["echo", "words"], jobs)
    requests, found = findings(fuzz(document, config(daemon.token, daemon.url, EXAMPLES)))
    left = [finding for finding in found if not finding.waived]
    assert not left, told(left)
    assert requests > 10 * len(document["paths"])
    assert daemon.is_ready()
    assert "Traceback" not in daemon.log


def test_a_document_that_lies_is_found_out(daemon: Daemon) -> None:
    """The judge is awake: a status, a type and a header that are not described are findings."""
    document: dict[str, Any] = daemon.get("/openapi.json").json()
    path = document["paths"]["/v1/info"]
    document["paths"] = {"/v1/info": path, "/livez": document["paths"]["/livez"]}
    document["components"]["schemas"]["Info"]["properties"]["version"] = {"type": "integer"}
    answers = document["paths"]["/livez"]["get"]["responses"]
    answers["204"] = answers.pop("200")
    _, found = findings(fuzz(document, config(daemon.token, daemon.url, 1)))
    checks = {(finding.operation, finding.check) for finding in found if not finding.waived}
    assert ("GET /v1/info", "response_schema_conformance") in checks
    assert ("GET /livez", "status_code_conformance") in checks
