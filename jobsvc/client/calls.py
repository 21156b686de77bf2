"""F2: every call of the wire as a `Request` value (design section 8). Builds only; no I/O, no judgement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from math import isfinite
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from jobsvc.client.core import Request
from jobsvc.client.shapes import Args, CancelMode, Changes, Options

JSON = {"Content-Type": "application/json"}
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
RELOAD_S = 60.0
"""New workers import the task modules first, and those may be slow."""

encoder = msgspec.json.Encoder()


def holds_nan(value: object) -> bool:
    """Whether a NaN or an infinity is in there: JSON has neither, and the encoder would write null."""
    if isinstance(value, float):
        return not isfinite(value)
    if isinstance(value, Mapping):
        return any(map(holds_nan, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(holds_nan, value))
    return isinstance(value, msgspec.Struct) and holds_nan(msgspec.structs.astuple(value))


def encode(value: object) -> bytes:
    """JSON of what a user gave. Raises TypeError for what JSON cannot hold, ValueError for NaN and infinities."""
    text = encoder.encode(value)
    if b"null" in text and holds_nan(value):
        raise ValueError("NaN and infinities cannot be sent: JSON has no such numbers")
    return text


def submission(task: str, args: Args, options: Options) -> dict[str, Any]:
    """The body of a submit, as plain values."""
    body: dict[str, Any] = {"task": task}
    if args is not None:
        body["args"] = args
    body.update(options)
    return body


def _query(target: str, parameters: Mapping[str, object]) -> str:
    given = {name: value for name, value in parameters.items() if value not in (None, "")}
    return f"{target}?{urlencode(given)}" if given else target


def _seconds(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _waiting(wait_s: float | None) -> dict[str, object]:
    return {} if wait_s is None else {"wait": _seconds(wait_s)}


def job_path(job_id: str) -> str:
    """The path of one job; an id from elsewhere cannot leave its segment."""
    return f"/v1/jobs/{quote(job_id, safe='')}"


def submit(body: dict[str, Any], wait_s: float | None = None) -> Request:
    """`POST /v1/jobs`; with `wait_s` the reply comes when the job is done or the time is up."""
    return submit_encoded(encode(body), wait_s, repeatable="key" in body)


def submit_encoded(body: bytes, wait_s: float | None = None, *, repeatable: bool) -> Request:
    """The same for a body that is JSON already; `repeatable`: it has a key."""
    headers = JSON if wait_s is None else {**JSON, "Prefer": f"wait={_seconds(wait_s)}"}
    return Request("POST", "/v1/jobs", body, headers, wait_s or 0.0, repeatable=repeatable)


def bulk(body: bytes, *, repeatable: bool, follow: bool = False, full: bool = False) -> Request:
    """`POST /v1/jobs/bulk`; `follow`: the outcomes come in the same reply; `full`: the jobs beside their ids."""
    target = _query("/v1/jobs/bulk", {"follow": "out" if follow else None, "full": 1 if full else None})
    return Request("POST", target, body, {"Content-Type": NDJSON, "Accept": NDJSON}, repeatable=repeatable)


def get(job_id: str, wait_s: float | None = None) -> Request:
    """`GET /v1/jobs/{id}`; with `wait_s` a long poll."""
    target = _query(job_path(job_id), _waiting(wait_s))
    return Request("GET", target, wait_s=wait_s or 0.0, repeatable=True)


def get_many(job_ids: Iterable[str], wait_s: float) -> Request:
    """`GET /v1/jobs?id=…`: full rows, as soon as any of them is done."""
    target = f"/v1/jobs?id={','.join(quote(job_id, safe='') for job_id in job_ids)}&wait={_seconds(wait_s)}&until=any"
    return Request("GET", target, wait_s=wait_s, repeatable=True)


def result(job_id: str, wait_s: float | None = None) -> Request:
    """`GET /v1/jobs/{id}/result`: 200 the bare result, 202 not yet, 424 no result."""
    target = _query(job_path(job_id) + "/result", _waiting(wait_s))
    return Request("GET", target, wait_s=wait_s or 0.0, repeatable=True)


def events(job_id: str, *, from_: int | None, last_id: str | None, kinds: Iterable[str]) -> Request:
    """`GET /v1/jobs/{id}/events` as Server-Sent Events; `last_id` continues after that event."""
    target = _query(
        job_path(job_id) + "/events", {"from": from_ if last_id is None else None, "kinds": ",".join(kinds)}
    )
    headers = {"Accept": SSE} if last_id is None else {"Accept": SSE, "Last-Event-ID": last_id}
    return Request("GET", target, headers=headers, repeatable=True)


def stream(job_id: str, name: str, from_: int) -> Request:
    """`GET /v1/jobs/{id}/streams/{name}` as NDJSON, from item number `from_`."""
    target = _query(
        f"{job_path(job_id)}/streams/{quote(name, safe='')}", {"from": from_ if from_ > 1 else None}
    )
    return Request("GET", target, headers={"Accept": NDJSON}, repeatable=True)


def list_jobs(filters: Mapping[str, Any], cursor: str | None = None) -> Request:
    """`GET /v1/jobs`. `filters`: parameters of the wire; a list is joined by commas, `labels` becomes `label.x`."""
    flat: dict[str, Any] = {}
    for name, value in filters.items():
        if name == "labels":
            flat.update({f"label.{label}": text for label, text in (value or {}).items()})
        elif isinstance(value, list | tuple | set | frozenset):
            flat[name] = ",".join(map(str, value))
        else:
            flat[name] = value.isoformat() if isinstance(value, datetime) else value
    return Request("GET", _query("/v1/jobs", {**flat, "cursor": cursor}), repeatable=True)


def cancel(job_id: str, mode: CancelMode = "polite", grace_s: float | None = None) -> Request:
    """`POST /v1/jobs/{id}/cancel`. Asking twice asks for the same."""
    body: dict[str, Any] = {"mode": mode} if grace_s is None else {"mode": mode, "grace_s": grace_s}
    return Request("POST", job_path(job_id) + "/cancel", encode(body), JSON, repeatable=True)


def update(job_id: str, changes: Changes, revision: int | None = None) -> Request:
    """`PATCH /v1/jobs/{id}`; with `revision` only if the job is still at it.

    Repeatable without `revision` only: what was carried out once would be refused as stale when sent again.
    """
    headers = JSON if revision is None else {**JSON, "If-Match": f'"r{revision}"'}
    return Request("PATCH", job_path(job_id), encode(changes), headers, repeatable=revision is None)


def retry(job_id: str) -> Request:
    """`POST /v1/jobs/{id}/retry`: a new job; asking twice would make two."""
    return Request("POST", job_path(job_id) + "/retry")


def tasks(name: str | None = None) -> Request:
    """`GET /v1/tasks`, or one of them."""
    return Request(
        "GET", "/v1/tasks" if name is None else f"/v1/tasks/{quote(name, safe='')}", repeatable=True
    )


def info() -> Request:
    """`GET /v1/info`."""
    return Request("GET", "/v1/info", repeatable=True)


def reload() -> Request:
    """`POST /v1/reload`: answered when the new code is in force."""
    return Request("POST", "/v1/reload", wait_s=RELOAD_S, repeatable=True)
