"""A daemon fuzzed from its own description: schemathesis makes the requests and judges the replies."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from jobsvc.http.route import NDJSON, SSE

NO_TOKEN = "0000000000"
SEED = 20261126
REQUEST_TIMEOUT_S = 20
"""None of these requests waits for anything; on a busy machine they may take a while all the same."""


WAIVED: Mapping[str, str] = {
    r"positive_data_acceptance.*does not go with id": "id excludes other filters, which a schema cannot say",
    r"positive_data_acceptance.*(wait|until) goes with id": "the same",
    r"positive_data_acceptance.*cursor: send back": "cursors are opaque: no schema tells a right one",
    r"positive_data_acceptance.*goes with mode deadline": "grace_s without it would do nothing",
    r"positive_data_acceptance.*/scopes: admin may do everything": "a token of all scopes cannot be narrowed",
    r"positive_data_acceptance.*printable characters": "more characters do not print than a schema can list",
    r"ignored_auth.*rate_limited": "who sends many wrong tokens is held off, and not let in either",
    r"positive_data_acceptance.*key_reused": "the same random key with another body is refused, as described",
    r"positive_data_acceptance.*a time from 1970 to 9999": "date-time knows no bounds",
    r"positive_data_acceptance.*more than a year ahead": "the schema knows no clock",
    r"positive_data_acceptance.*the job could never run": "times of one job must be in order",
    r"positive_data_acceptance.*differs from the Idempotency-Key": "one key, in either place",
    r"positive_data_acceptance.*/expires_at": "a time that has passed; the schema knows no clock",
    r"negative_data_rejection.*in body.* 200 .*problem": "a wrong line of a bulk upload costs itself alone",
    r"negative_data_rejection.*in header - object with unexpected properties": "unknown headers are ignored: HTTP",
    r"positive_data_acceptance.*Expected `int`, got `float`": "4.0 is an integer to JSON Schema; here it is refused",
}
"""Findings that are none: a pattern of check, message and reply, and why."""


class Finding(NamedTuple):
    """What a check has found: the operation, what is wrong, the reply, and a command line that shows it."""

    operation: str
    check: str
    message: str
    reply: str
    curl: str

    @property
    def waived(self) -> bool:
        """Whether it is none."""
        text = f"{self.check} {self.message} {self.reply}"
        return any(re.search(pattern, text, re.DOTALL) for pattern in WAIVED)


@schemathesis.serializer(NDJSON)
def _to_lines(_context: Any, value: Any) -> bytes:
    """A list as lines; what is none (wrong on purpose) as one line."""
    values = value if isinstance(value, list) else [value]
    return b"".join(value if isinstance(value, bytes) else _line(value) for value in values)


def _line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


@schemathesis.deserializer(NDJSON)
def _from_lines(_context: Any, response: Any) -> list[Any]:
    return [json.loads(line) for line in response.content.split(b"\n") if line]


@schemathesis.deserializer(SSE)
def _from_events(_context: Any, response: Any) -> list[Any]:
    """The data of each message."""
    return [json.loads(line[6:]) for line in response.content.split(b"\n") if line.startswith(b"data: ")]


def as_lists(node: Any) -> None:
    """Bodies of lines, which OpenAPI 3.1 cannot express, in schemathesis' words: lists, and of SSE each message."""
    if not isinstance(node, dict):
        return
    for media, content in node.items():
        if isinstance(content, dict) and "x-itemSchema" in content:
            line = content.pop("x-itemSchema")
            content["schema"] = line if media == SSE else {"type": "array", "items": line}
            content.pop("example", None)
        as_lists(content)


def narrowed(document: Mapping[str, Any], tasks: Sequence[str], jobs: Sequence[str]) -> dict[str, Any]:
    """The document with names that are there, so that requests get further than to 404, and without long waits."""
    narrow: dict[str, Any] = copy.deepcopy(dict(document))
    for methods in narrow["paths"].values():
        for operation in methods.values():
            # An unknown preference is no error, and a wait is no test of the contract.
            parameters = [p for p in operation["parameters"] if p["name"] != "Prefer"]
            operation["parameters"] = parameters
            for parameter in parameters:
                place = (parameter["in"], parameter["name"])
                if place == ("path", "job_id"):
                    parameter["schema"] = {"enum": list(jobs)}
                elif place == ("path", "task"):
                    parameter["schema"] = {"enum": list(tasks)}
                elif place == ("path", "token_id"):
                    parameter["schema"] = {"enum": [NO_TOKEN]}  # or the fuzzer revokes its own
                elif place == ("path", "name"):
                    parameter["schema"] = {"enum": ["out"]}
                else:
                    continue
                parameter["example"] = parameter["schema"]["enum"][0]
    as_lists(narrow["paths"])
    del narrow["paths"]["/v1/reload"]  # each one replaces every worker
    schemas = narrow["components"]["schemas"]
    schemas["Submit"]["properties"]["task"] = {"enum": list(tasks)}
    schemas["Args"] = {"type": "object", "properties": {"x": {}}, "additionalProperties": False}
    narrow["paths"]["/v1/tasks/{task}/call"]["post"]["requestBody"]["content"]["application/json"][
        "example"
    ] = {}
    return narrow


def config(token: str, url: str, examples: int) -> SchemathesisConfig:
    """Every check; deterministic; as many random requests to each operation, of right and of wrong data alike."""
    return SchemathesisConfig.from_dict(
        {
            "base-url": url,
            "seed": SEED,
            "headers": {"Authorization": f"Bearer {token}"},
            "request-timeout": REQUEST_TIMEOUT_S,
            "generation": {
                "max-examples": examples,
                "deterministic": True,
                "database": "none",
                "with-security-parameters": False,  # the token is given above; bad ones have a check of their own
            },
            "phases": {
                "stateful": {"enabled": False},
                # Ids that replies have told would lead to the token that all of this is asked with.
                "coverage": {"extra-data-sources": {"responses": False}},
                "fuzzing": {"extra-data-sources": {"responses": False}},
            },
            "checks": {
                # Full or stopping: to be expected of a service, and described.
                "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503", "507"]},
                "missing_required_header": {"expected-statuses": ["400", "401", "428"]},
                "positive_data_acceptance": {
                    "expected-statuses": [
                        "2xx",
                        "3xx",
                        "404",
                        "409",
                        "410",
                        "412",
                        "424",
                        "429",
                        "503",
                        "507",
                    ]
                },
            },
        }
    )


def fuzz(document: Mapping[str, Any], settings: SchemathesisConfig) -> Iterator[events.EngineEvent]:
    """Run it; all that happens."""
    schema = schemathesis.openapi.from_dict(dict(document), config=settings)
    yield from from_schema(schema).execute()


def findings(happened: Iterable[events.EngineEvent]) -> tuple[int, list[Finding]]:
    """How many requests there were, and what the checks found. Raises what broke the run itself."""
    requests = 0
    found: list[Finding] = []
    for event in happened:
        if isinstance(event, events.FatalError):
            raise event.exception
        if isinstance(event, events.NonFatalError):
            raise event.value
        if not isinstance(event, events.ScenarioFinished):
            continue
        requests += len(event.recorder.interactions)
        for case_id, nodes in event.recorder.checks.items():
            interaction = event.recorder.interactions.get(case_id)
            response = None if interaction is None else interaction.response
            for node in nodes:
                if node.failure_info is not None:
                    failure = node.failure_info.failure
                    found.append(
                        Finding(
                            failure.operation or event.recorder.label,
                            node.name,
                            f"{failure.title}: {failure.message}",
                            "" if response is None else f"{response.status_code} {response.content!r}",
                            node.failure_info.code_sample,
                        )
                    )
    return requests, found
