"""F3: one example of each request and reply. Jobs in them are made by the code that serves jobs, so they look true."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

import msgspec

from jobsvc.http.contract.headers import JOB_ID
from jobsvc.http.executors import EXECUTOR_VIEWS
from jobsvc.model.clock import time_text
from jobsvc.model.errors import JobError, Where
from jobsvc.model.job import Job, view
from jobsvc.model.task import Timeouts

_JSON = "application/json"
_NDJSON = "application/x-ndjson"
_SSE = "text/event-stream"
_PLAIN = "text/plain"
_OTHER_ID = JOB_ID[:-1] + "2"
_AT = 1_795_000_000_000_000


def _job(**changes: Any) -> Any:
    """A job as it is served."""
    row = Job(
        id=UUID(JOB_ID).bytes,
        task="slow_square",
        executor="process",
        created_at=_AT,
        args=b'{"n":12}',
        labels=b'{"customer":"acme"}',
    )
    return msgspec.to_builtins(
        msgspec.json.decode(msgspec.json.encode(view(msgspec.structs.replace(row, **changes), "power")))
    )


_QUEUED = _job()
_BEGAN: Mapping[str, Any] = {
    "epoch": 1,
    "attempt": 1,
    "started_at": _AT + 2_000,
    "progress": b'{"n":1,"of":4,"note":null}',
}
_RUNNING = _job(state="running", revision=3, **_BEGAN)
_STOPPING = _job(state="stopping", reason="cancel_asked", revision=4, **_BEGAN)
_DONE = _job(state="succeeded", revision=4, finished_at=_AT + 950_000, result=b"144", **_BEGAN)
_RETRY = _job(rerun_of=UUID(_OTHER_ID).bytes)
_ERROR = JobError("task_error", "ValueError", "no such file", where=Where("process", "cpu-1", 1, 1))


def _lines(*values: Any) -> str:
    return "".join(json.dumps(value, separators=(",", ":")) + "\n" for value in values)


def _sse(events: Iterable[Mapping[str, Any]]) -> str:
    out = []
    for event in events:
        number = "" if event["kind"] in ("gap", "end") else f"id: {event['seq']}\n"
        out.append(f"{number}event: {event['kind']}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n")
    return "".join(out)


def _event(seq: int, kind: str, data: Any, **more: Any) -> dict[str, Any]:
    return {"seq": seq, "at": time_text(_AT + seq * 1_000), "kind": kind, "data": data, **more}


_EVENTS = (
    _event(1, "job", _QUEUED),
    _event(2, "state", {"state": "running", "reason": None, "attempt": 1, "epoch": 1, "revision": 2}),
    _event(3, "log", {"level": "info", "message": "reading", "fields": {}, "source": "stdout"}),
    _event(4, "item", 1, stream="out", n=1),
    _event(5, "progress", {"n": 1, "of": 4, "note": None}),
    _event(6, "state", {"state": "succeeded", "reason": None, "attempt": 1, "epoch": 1, "revision": 4}),
    _event(6, "end", _DONE),
)
_ITEMS = (
    {"seq": 1, "epoch": 1, "data": "two"},
    {"seq": 2, "epoch": 2, "restart": True},
    {"seq": 2, "epoch": 2, "data": "words"},
)
_STREAMED = {_NDJSON: _lines(*_EVENTS), _SSE: _sse(_EVENTS)}
_SUBMIT = {"task": "slow_square", "args": {"n": 12}, "labels": {"customer": "acme"}}
_TASK = {
    "name": "slow_square",
    "doc": "The square of n, slowly.",
    "executor": "process",
    "args_schema": {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    },
    "result_schema": {"type": "integer"},
    "ports": [],
    "queue": "default",
    "retries": 0,
    "timeouts": msgspec.to_builtins(Timeouts(run=60.0)),
    "concurrency": None,
    "uses": [],
    "module": "tasks",
}
_TOKEN = {
    "id": "k3v9x2",
    "name": "the web shop",
    "tenant": "default",
    "scopes": ["read", "submit"],
    "tasks": ["slow_square"],
    "queues": [],
    "state": "active",
    "created_at": time_text(_AT),
    "expires_at": None,
    "revoked_at": None,
    "used_at": None,
}
_NEW_TOKEN = {**_TOKEN, "token": "jobsvc_k3v9x2.the-secret-which-is-shown-once"}
_CHECKS = {"ready": True, "checks": [{"check": "workers", "ok": True, "detail": "3 of 3 ready"}]}

REQUESTS: Mapping[str, Any] = {
    "jobs.submit": _SUBMIT,
    "jobs.bulk": _lines(_SUBMIT | {"key": "order-4711"}, {"task": "slow_square", "args": [7]}),
    "jobs.change": {"priority": 10, "labels": {"customer": None, "urgent": "yes"}},
    "jobs.share": {"ttl_s": 600},
    "jobs.cancel": {"mode": "deadline", "grace_s": 10},
    "jobs.retry": {},
    "jobs.run": {},
    "tasks.call": {"n": 12},
    "tokens.create": {"name": "the web shop", "scopes": ["read", "submit"], "tasks": ["slow_square"]},
    "tokens.rotate": {"grace_s": 3600},
}
"""Bodies, by the name of the route."""

REPLIES: Mapping[tuple[str, int], Mapping[str, Any]] = {
    ("jobs.submit", 201): {_JSON: _QUEUED, **_STREAMED},
    ("jobs.submit", 200): {_JSON: _DONE, **_STREAMED},
    ("jobs.list", 200): {_JSON: {"jobs": [_DONE], "next": "MTpkZXNjOjQy"}},
    ("jobs.bulk", 200): {
        _NDJSON: _lines(
            {"line": 1, "id": JOB_ID},
            {"line": 2, "id": _OTHER_ID},
            {
                "line": 2,
                "id": _OTHER_ID,
                "state": "failed",
                "result": None,
                "error": msgspec.to_builtins(_ERROR),
            },
            {"line": 1, "id": JOB_ID, "state": "succeeded", "result": 144, "error": None},
        )
    },
    ("jobs.get", 200): {_JSON: _RUNNING},
    ("jobs.result", 200): {_JSON: 144},
    ("jobs.result", 202): {_JSON: _RUNNING},
    ("jobs.events", 200): _STREAMED,
    ("jobs.stream", 200): {
        _NDJSON: _lines(*_ITEMS),
        _SSE: (
            'id: 1\nevent: item\ndata: {"seq":1,"epoch":1,"data":"two"}\n\n'
            'event: restart\ndata: {"seq":2,"epoch":2,"restart":true}\n\n'
        ),
    },
    ("jobs.change", 200): {_JSON: _job(priority=10, labels=b'{"urgent":"yes"}', revision=2)},
    ("jobs.cancel", 200): {_JSON: _job(state="cancelled", reason="cancel_asked", finished_at=_AT + 9_000)},
    ("jobs.cancel", 202): {_JSON: _STOPPING},
    ("jobs.retry", 201): {_JSON: _RETRY},
    ("jobs.run", 200): {_JSON: _QUEUED},
    ("jobs.attempts", 200): {
        _JSON: {
            "attempts": [
                {
                    "epoch": 1,
                    "attempt": 1,
                    "state": "failed",
                    "began_at": time_text(_AT + 2_000),
                    "finished_at": time_text(_AT + 950_000),
                    "worker": "cpu-1",
                    "error": msgspec.to_builtins(_ERROR),
                }
            ]
        }
    },
    ("tasks.list", 200): {_JSON: {"tasks": [_TASK]}},
    ("tasks.get", 200): {_JSON: _TASK},
    ("tasks.call", 200): {_JSON: 144},
    ("tokens.list", 200): {_JSON: {"tokens": [_TOKEN]}},
    ("tokens.create", 201): {_JSON: _NEW_TOKEN},
    ("tokens.self", 200): {_JSON: _TOKEN},
    ("tokens.get", 200): {_JSON: _TOKEN},
    ("tokens.rotate", 201): {_JSON: _NEW_TOKEN},
    ("jobs.share", 201): {
        _JSON: {
            "ticket": "t1.0190",
            "url": f"/v1/jobs/{JOB_ID}/events?ticket=t1.0190",
            "expires_at": time_text(_AT + 600_000_000),
        }
    },
    ("workers", 200): {
        _JSON: {
            "workers": [
                {
                    "id": "cpu-1",
                    "kind": "cpu",
                    "pid": 4711,
                    "state": "ready",
                    "slots": {"process": 1},
                    "running": 0,
                    "started_at": time_text(_AT),
                    "rss": 14_680_064,
                    "restarts": 0,
                }
            ]
        }
    },
    ("executors", 200): {_JSON: {"executors": msgspec.to_builtins(EXECUTOR_VIEWS[:1])}},
    ("reload", 200): {_JSON: {"tasks": ["slow_square"]}},
    ("livez", 200): {_PLAIN: "ok\n"},
    ("healthz", 200): {_PLAIN: "ok\n"},
    ("readyz", 200): {_PLAIN: "ok\n", _JSON: _CHECKS},
    ("readyz", 503): {
        _PLAIN: "not ready\n",
        _JSON: {
            "ready": False,
            "checks": [{"check": "ready", "ok": False, "detail": "starting or stopping"}],
        },
    },
    ("metrics", 200): {_PLAIN: "# TYPE jobsvc_jobs gauge\njobsvc_jobs 0.0\n"},
}
"""Replies by the name of the route and the status; each media type has its own."""
