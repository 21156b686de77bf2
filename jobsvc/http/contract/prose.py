"""F3: the contract in words: what a client must know beside the shapes. Simple Markdown: headings, lists, `code`.

A client in any language must be writable from this and the shapes alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobsvc.http.limits import IDLE_S, WRITE_STALL_S
from jobsvc.http.problems import PROBLEM_TYPES
from jobsvc.model import limits
from jobsvc.model.access import Scope
from jobsvc.model.errors import Kind
from jobsvc.model.limits import KIB, MIB
from jobsvc.model.states import Reason, State

STATES: Mapping[State, str] = {
    "scheduled": "waits for run_at",
    "blocked": "waits for something else to be granted",
    "held": "an operator holds it back",
    "queued": "waits for a free worker",
    "retrying": "has failed and waits for its next try",
    "running": "its code runs",
    "stopping": "was asked to stop; its code may still run",
    "succeeded": "final: it has a result",
    "failed": "final: it has an error",
    "cancelled": "final: it was cancelled, and its code was seen to stop",
    "expired": "final: expires_at passed before it began",
}
REASONS: Mapping[Reason, str] = {
    "cancel_asked": "a client asked for its cancel",
    "deadline": "a deadline passed",
    "drained": "the daemon stopped and had it stop; it runs again and the try does not count",
    "lost": "its worker was lost with it; it runs again and the try does not count",
    "module_broken": "the module of its task does not load now",
    "no_such_task": "its task is not there now; it waits until it is",
    "operator": "an operator changed it",
    "orphan_running": "its last attempt, a thread that was given up, must return first",
    "recalled": "it was handed to a worker, had not begun, and was taken back",
    "reload": "its worker was replaced",
    "retry": "it failed and has tries left",
    "run_at": "its time has not come",
    "snoozed": "its own code put it off",
    "timeout": "a timeout passed",
}
KINDS: Mapping[Kind, str] = {
    "task_error": "the task raised an exception; type, message and traceback are its",
    "timeout": "timeouts.run, idle or total passed",
    "cancelled": "it was cancelled",
    "crashed": "its process died; see exit",
    "rejected": "its arguments no longer fit the task",
    "unavailable": "something that it needs could not be had",
    "conflict": "it met a change made meanwhile",
    "not_serialisable": "its result has no JSON form",
    "too_large": "its result or an item is over a limit",
    "would_deadlock": "it would have waited for itself",
    "lost": "its worker was lost with it, and it may not run again",
    "stalled": "it kept its worker from answering",
    "expired": "expires_at passed before it began",
}
SCOPES: Mapping[Scope, str] = {
    "read": "look at jobs, tasks and the daemon",
    "submit": "add jobs and get what they give",
    "operate": "change jobs and the daemon",
    "admin": "all of these, and give out tokens",
}


def _list(words: Mapping[Any, str]) -> str:
    return "\n".join(f"- `{word}`: {text}" for word, text in words.items())


_CODES = "\n".join(
    f"- `{code}` ({kind.status}{', retry_safe' if kind.retry_safe else ''}): {kind.title}"
    for code, kind in PROBLEM_TYPES.items()
)

GUIDE = f"""\
jobsvc runs tasks, which are functions and programs that its operator has installed. A client submits a job,
which names a task and its arguments, and polls, waits for or streams what becomes of it. A job that was
accepted is kept: a 2xx to a submit is sent only after it is stored.

## Getting in

Every request carries `Authorization: Bearer` and the token, but for the health checks without a query and the
page of this description. On the daemon's own machine the file `endpoint.json` in its data directory has a
member `url`, and the file `token` beside it holds the token. Paths in this document, in `links` and in Location
begin at that URL's root. Each operation needs one scope of the token:
{_list(SCOPES)}

The name in Host must be one that the daemon serves (421 `bad_host`), and a browser's page of another origin is
refused (403 `cross_site`). There is no CORS. HTTP/1.1, bodies in JSON with `Content-Type: application/json`,
UTF-8, never compressed. Members that you do not know in replies are to be ignored; unknown members in requests
are refused (422), and so are unknown or repeated query parameters (400). Every GET answers HEAD too.

## Submitting

`POST /v1/jobs` answers 201 with the job and its path in Location. Send an `Idempotency-Key` (any unique text)
with it: if the reply is lost, send the very same request again, and you get the same job, as 200 with
`Idempotency-Replayed: true`, never a second one. The same key with another body is refused (422 `key_reused`).
A key lives as long as its job's row; member order and white space do not matter for the comparison. Without a
key a submit must not be sent twice.

Duplicate keys in a JSON object are refused in the submit's envelope, and in args up to 64 KiB on routes that
take one job; in bulk lines and larger args the last one wins. Numbers that no double holds, NaN, lone
surrogates, and nesting over 64 are refused (400).

## States

{_list(STATES)}

`done` is true in the four final states, and such a job never changes again: a retry makes a new job. `reason`
says more:
{_list(REASONS)}

A job may run more than once: when its worker or the daemon dies it is run again (`on_lost: retry`, the
default), unless it was submitted with `on_lost: fail`. `epoch` counts runs, `attempt` those that count against
`max_attempts`.

## Waiting

Three ways, all of them for at most {limits.WAIT_MAX_S:g} s at a time (more is cut): `Prefer: wait=N` with a
submit, `?wait=N` on a job, its result or a list of ids, and `/call`. When the time is up, the reply shows the
job as it then is, and `done` tells; ask again. To wait for the next change of any kind, send the ETag you have
as If-None-Match with `?wait=N`: 304 says that nothing has changed. Set your client's own timeout some seconds
above N.

## Results and errors

`GET …/result` gives the bare result with 200, and 200 never means failure: 202 is "not yet" (Retry-After), 424
`job_failed` is any other end, with the job's error as the member `error`. `error.kind` is one of:
{_list(KINDS)}

A result is any JSON; NaN and infinities in it have become null, bytes are base64, times are RFC 3339 texts.

## Streams

Events of a job are numbered from 1 on without holes and are read as Server-Sent Events
(`Accept: text/event-stream`) or as lines of JSON (`Accept: application/x-ndjson`); each line is an Event. Into
silence of {limits.HEARTBEAT_S:g} s comes a heartbeat: an SSE comment, or an empty line, which is to be skipped.
`end`, whose data is the final job, is the last event; a stream that closes without it was interrupted, and the
client comes back: SSE with `Last-Event-ID: N`, which goes on at N+1, either form with `?from=N`, which begins
at N. Before a planned stop of the daemon SSE clients get the event `reconnect`, whose data says nothing. A
reconnect behind the end of a done job is answered with 204: stop. `gap` says that old items are no longer kept.
What a task yields are items of its stream `out`; `/streams/out` gives these alone, numbered by themselves, and
its last line is followed by the clean end of the reply. A submit with one of the two Accept headers answers
with the events of its job at once: the event `job` first, whose data holds its id.

A reply that ends without its last chunk (a reset, or a close in the middle) is not complete, whatever came.

## Cancelling

`POST …/cancel` answers 200 when the job was still waiting, and is cancelled; 202 when it is running, and is
asked to stop (state stopping): wait for `done`, it may still succeed; 409 `conflict` when it is done. Mode
polite (the default) only asks; deadline asks, and kills after `grace_s`; now kills at once. What the executor
cannot kill is refused: 409 `cannot_kill`.

## Many at once

`POST /v1/jobs/bulk` takes one submit body a line and answers one line each, in order; a wrong line costs itself
alone, and the status is 200. With `?atomic=1` one wrong line refuses them all by a problem document. With
`?full=1` the answers hold the jobs themselves. With `?follow=out` the outcomes follow in the same reply. Give
each line a `key`, and the whole upload may be sent again.

## Refusals

Every refusal is a problem document (RFC 9457, `application/problem+json`). Each status of each operation lists
its codes. Try again by yourself only what has `retry_safe: true`, after Retry-After seconds (or with growing
pauses), and what has a key. All codes:
{_CODES}

A request may also be refused before its path is looked at: whatever the operation, when its head, its length or
its framing is wrong or over a limit. Such a reply closes the connection. A path that is not here is 404
`not_found`, a method that is not here 405 `method_not_allowed` with the right ones in Allow.

## Limits

`GET /v1/info` publishes those in force: by default a JSON body or a bulk line
{limits.JSON_BODY_MAX_BYTES // MIB} MiB, args {limits.ARGS_MAX_BYTES // KIB} KiB, a result
{limits.RESULT_MAX_BYTES // MIB} MiB, an item {limits.ITEM_MAX_BYTES // MIB} MiB, {limits.BULK_LINES_MAX:,}
lines of a bulk upload ({limits.BULK_ATOMIC_MAX:,} with atomic), {limits.LIST_LIMIT_MAX:,} rows of a page,
{limits.MANY_MAX} ids at once, all headers {limits.HEADERS_MAX_BYTES // KIB} KiB. More is 413. A request that
trickles in is cut off; a connection is closed after {IDLE_S:g} s without use, and one that takes nothing of a
reply after {WRITE_STALL_S:g} s: a stream that you stop reading has to be taken up again.
"""

TAGS: Mapping[str, str] = {
    "jobs": "Submit, look, wait, follow, change.",
    "tokens": "Who may do what.",
    "tasks": "What can be submitted, and the call that waits for the bare result.",
    "daemon": "Health, figures, workers, and this description.",
}

DETAILS: Mapping[str, str] = {
    "jobs.submit": (
        "Answers once the job is stored. With `Prefer: wait=N` the reply comes when the job is done or "
        "after N seconds, and `done` in it tells which. With `Accept: text/event-stream` or "
        "`application/x-ndjson` the reply is the stream of its events, to its end."
    ),
    "jobs.list": (
        "Rows have no args, result or traceback unless `include` asks for them. Pages are stable while "
        "jobs are added: send `next` back as `cursor`, with the same filter and order, until it is null. "
        "Labels are filtered by parameters named `label.` and the label's key: "
        "`?label.customer=acme&label.run=7`. With `id` the reply holds these jobs as whole rows, and "
        "`missing`; only `wait` and `until` go with it."
    ),
    "jobs.bulk": (
        "One Submit a line, each read as strictly as alone but for duplicate keys (the last wins). Lines "
        "are numbered from 1, blank ones counted and skipped. The reply starts when the upload has ended, "
        "or at once with `live=1` for clients that read while they send. Lines are stored as they arrive, "
        "so a connection that breaks leaves a beginning of them stored: keys make it safe to send all of "
        "it again. With `follow=out` the reply stays open until all jobs are done; if it breaks, ask for "
        "the ids."
    ),
    "jobs.get": (
        "Without `wait` at once. With `wait` when the job is done, or when the time is up. With "
        "If-None-Match: 304 while the revision is that one; together with `wait` the reply comes at the "
        "next revision."
    ),
    "jobs.change": (
        "A JSON merge patch: members that are left out stay, null takes one away. If-Match says which "
        "revision of the job you know: 412 `stale` when it has changed since, and then the job is to be "
        "read again."
    ),
    "jobs.share": (
        "For a browser, which cannot send a token: hand out the `url`. It opens this one job's events, "
        "items, result and nothing else."
    ),
    "tokens.create": "Keep `token` from the reply: it is never shown again. Only a hash of it is stored.",
    "tokens.rotate": "Both are good for `grace_s` seconds, so that clients can change over without a gap.",
    "jobs.delete": "Only a final job; its key may be used anew.",
    "jobs.result": "202 shows the job as it is; ask again, best with `wait`.",
    "jobs.events": (
        "Follows to the end of the job, which the event `end` tells; with `follow=0` it stops at what "
        "there is now, and an unfinished job's stream then has no `end`. A Last-Event-ID above the job's "
        "last number begins at the start."
    ),
    "jobs.stream": (
        "Items as SSE, as lines of JSON, with `bare=1` as bare JSON values one a line, or as raw bytes "
        "(Accept: application/octet-stream, for streams of bytes and of a command's output). Of a done "
        "job only the attempt that made the outcome, unless `epoch=all`. Bare and raw readers cannot be "
        "told that a further attempt begins anew or that items are gone: they are cut off without a clean "
        "end."
    ),
    "jobs.cancel": "An empty body is mode polite. Cancelling what is being cancelled is no error.",
    "jobs.retry": (
        "The same task, arguments and policy; `rerun_of` names the old job, which stays as it is."
    ),
    "jobs.run": "What waits for run_at, or for its next try, is queued at once.",
    "tasks.call": (
        "One request for those who want no job: the body is args, the reply the result. If the wait ends "
        "first (504 `wait_over`) the job goes on, and Location says where. 424 when the job failed."
    ),
    "reload": "Answers when the new code is in force. If it does not load (409) the old goes on.",
    "readyz": (
        "Without a query it needs no token and says one word; with `verbose` it needs one, and lists the "
        "checks."
    ),
    "openapi": "The same for every daemon of this version.",
    "docs": (
        "For people with a browser; needs no token. It is made from this document and tells nothing of "
        "this daemon."
    ),
}
"""More on operations, by their name."""
