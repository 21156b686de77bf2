"""F3: the one table of routes: Klein's rules, the check of queries, 404 and 405, and OpenAPI are all made from it."""

from __future__ import annotations

from collections.abc import Mapping

from jobsvc.http import api_jobs, api_lists, api_tasks, bulk_reply, query, streams
from jobsvc.http.contract import shapes
from jobsvc.http.daemon_routes import DAEMON_ROUTES
from jobsvc.http.route import JSON, NDJSON, READING, SSE, Answer, Handler, Route, look
from jobsvc.http.token_routes import TOKEN_ROUTES
from jobsvc.model.errors import Code
from jobsvc.model.events import EVENT_KINDS
from jobsvc.model.job import JobView, Patch, Submit
from jobsvc.model.limits import LIST_LIMIT, MIB, PAGE_BYTES
from jobsvc.model.states import STATES

_CREATED = ("Location", "ETag", "Preference-Applied", "Idempotency-Key-Expires")
_CALLED = ("Location", "Preference-Applied", "Idempotency-Replayed", "Idempotency-Key-Expires")
_JOB = Answer("The job.", JobView, headers=("ETag",))
_WAIT = {"wait": query.seconds("Answer when the job is done, or after so many seconds (up to 300).")}
_FROM = query.number("First number to give; 1 = from the start. Last-Event-ID wins over it.", 1)
_FOLLOW = query.flag("0 = stop at what there is now.")
_STREAMED = (SSE, NDJSON)
_LIMITED = ("RateLimit", "RateLimit-Policy")
_STORING: tuple[Code, ...] = ("draining", "disk_full", "overloaded")
_ADMITTING: tuple[Code, ...] = ("queue_full", "rate_limited")
_FINDING: tuple[Code, ...] = ("not_found", "purged")
_MATCHING: tuple[Code, ...] = ("stale", "bad_query")


def _verb(verb: str, handler: Handler, doc: str, answers: Mapping[int, Answer], *refusals: Code) -> Route:
    """A change of one job by POST without a body."""
    return Route(
        method="POST",
        path=f"/v1/jobs/{{job_id}}/{verb}",
        name=f"jobs.{verb}",
        scope="operate",
        handler=handler,
        doc=doc,
        answers=answers,
        takes_body=True,
        body=api_jobs.Nothing,
        headers=("If-Match",),
        refusals=(*_FINDING, *READING, *_STORING, *_MATCHING, "conflict", *refusals),
    )


_JOBS = (
    Route(
        method="POST",
        path="/v1/jobs",
        name="jobs.submit",
        scope="submit",
        handler=api_jobs.submit,
        doc="Submit a job; Prefer: wait=N answers when it is done, Accept: text/event-stream streams its events.",
        answers={
            201: Answer(
                "Accepted and kept.",
                JobView,
                (JSON, *_STREAMED),
                (*_CREATED, *_LIMITED),
                line="Event",
            ),
            200: Answer(
                "The same key and body before: the same job.",
                JobView,
                (JSON, *_STREAMED),
                (*_CREATED, "Idempotency-Replayed", *_LIMITED),
                line="Event",
            ),
        },
        takes_body=True,
        body=Submit,
        headers=("Idempotency-Key", "Prefer", "X-Request-ID", "traceparent"),
        refusals=(
            *READING,
            *_STORING,
            *_ADMITTING,
            "bad_query",
            "no_such_task",
            "invalid_args",
            "key_reused",
            *_FINDING,
        ),
    ),
    Route(
        method="GET",
        path="/v1/jobs",
        name="jobs.list",
        handler=api_lists.look,
        doc="A page of jobs by filter, newest first; or, with id, these jobs as whole rows.",
        answers={200: Answer("The jobs.", shapes.JobPage)},
        query={
            "id": query.ids("Ids joined by commas."),
            "wait": query.seconds(
                "With id: answer when any or all of them are done, or after so many seconds."
            ),
            "until": query.one_of("With id and wait.", "any", "all"),
            "state": query.some_of("States joined by commas.", *STATES),
            "task": query.name("Name of a task."),
            "queue": query.name("Name of a queue."),
            "label.": query.label("label.x=y: jobs whose label x is y."),
            "since": query.time("Submitted at or after this time."),
            "cursor": query.text("`next` of the page before."),
            "limit": query.limit(
                f"Rows of a page; {LIST_LIMIT} when left out. A page ends before that when more arguments and results "
                f"are included than {PAGE_BYTES // MIB} MiB: go by `next`."
            ),
            "order": query.one_of("By submission; newest first when left out.", "desc", "asc"),
            "include": query.some_of("Long members, left out otherwise.", "args", "result"),
        },
    ),
    Route(
        method="POST",
        path="/v1/jobs/bulk",
        name="jobs.bulk",
        scope="submit",
        handler=bulk_reply.bulk,
        doc="Submit many: a body of the submit route on every line; answered line by line, in order.",
        answers={
            200: Answer(
                "{line, id} (with full=1 {line, id, job}) or {line, problem}; "
                "then, with follow=out, {line, id, state, result, error}.",
                line="BulkAnswer",
                media=(NDJSON,),
                headers=_LIMITED,
            )
        },
        query={
            "atomic": query.flag("1 = all or nothing."),
            "follow": query.one_of("out = afterwards one line per job as it ends.", "out"),
            "full": query.flag(
                "1 = the job beside its id, as the submit route shows it; null if it is gone."
            ),
            "live": query.flag("1 = the reply starts at once, not after the upload."),
        },
        takes_body=True,
        body=Submit,
        body_media=(NDJSON,),
        line=Submit,
        streams=True,
        headers=("X-Request-ID", "traceparent"),
        refusals=(*READING, *_STORING, *_ADMITTING, "no_such_task", "invalid_args", "key_reused"),
    ),
    Route(
        method="GET",
        path="/v1/jobs/{job_id}",
        name="jobs.get",
        handler=api_jobs.get,
        doc="A job. With wait and If-None-Match: answered at the next revision.",
        answers={
            200: _JOB,
            304: Answer("Not changed since the revision of If-None-Match.", media=(), headers=("ETag",)),
        },
        query=_WAIT,
        shared=True,
        headers=("If-None-Match",),
        refusals=_FINDING,
    ),
    Route(
        method="DELETE",
        path="/v1/jobs/{job_id}",
        name="jobs.delete",
        scope="operate",
        handler=api_jobs.delete,
        doc="Remove a final job and all that belongs to it.",
        answers={204: Answer("Gone.", media=())},
        headers=("If-Match",),
        refusals=(*_FINDING, *_MATCHING, "conflict", "disk_full"),
    ),
    Route(
        method="PATCH",
        path="/v1/jobs/{job_id}",
        name="jobs.change",
        scope="operate",
        handler=api_jobs.change,
        doc="Change a waiting job: priority, run_at, timeouts, labels. If-Match is required.",
        answers={200: _JOB},
        takes_body=True,
        body=Patch,
        body_media=(JSON, "application/merge-patch+json"),
        headers=("If-Match",),
        refusals=(*_FINDING, *READING, *_MATCHING, "precondition_required", "conflict", "disk_full"),
    ),
    Route(
        method="GET",
        path="/v1/jobs/{job_id}/result",
        name="jobs.result",
        handler=api_jobs.result,
        doc="The bare result.",
        answers={
            200: Answer("The result."),
            202: Answer("Not yet.", JobView, headers=("Retry-After", "ETag")),
        },
        query=_WAIT,
        shared=True,
        refusals=(*_FINDING, "job_failed"),
    ),
    Route(
        method="GET",
        path="/v1/jobs/{job_id}/events",
        name="jobs.events",
        handler=streams.events,
        doc="The events of a job from the start or from a number, live to its end.",
        answers={
            200: Answer("Events.", line="Event", media=_STREAMED),
            204: Answer("Nothing more will come.", media=()),
        },
        query={
            "from": _FROM,
            "kinds": query.some_of("Only these kinds.", *EVENT_KINDS),
            "streams": query.names("Items of these streams only."),
            "follow": _FOLLOW,
        },
        shared=True,
        headers=("Last-Event-ID",),
        refusals=_FINDING,
    ),
    Route(
        method="GET",
        path="/v1/jobs/{job_id}/streams/{name}",
        name="jobs.stream",
        handler=streams.stream,
        doc="The items of one stream, live to the end.",
        answers={
            200: Answer("Items.", line="Item", media=(NDJSON, SSE, "application/octet-stream")),
        },
        query={
            "from": _FROM,
            "epoch": query.one_of(
                "all = also the items of attempts before the one that made the outcome.", "all"
            ),
            "bare": query.flag("1 = only the data, one JSON value a line."),
            "follow": _FOLLOW,
        },
        shared=True,
        headers=("Last-Event-ID",),
        refusals=(*_FINDING, "media_type"),
    ),
    Route(
        method="POST",
        path="/v1/jobs/{job_id}/cancel",
        name="jobs.cancel",
        scope="operate",
        handler=api_jobs.cancel,
        doc="Cancel: polite asks, deadline asks and kills after grace_s, now kills at once.",
        answers={200: _JOB, 202: Answer("Stopping.", JobView, headers=("ETag",))},
        takes_body=True,
        body=api_jobs.Cancel,
        headers=("If-Match",),
        refusals=(*_FINDING, *READING, *_MATCHING, "conflict", "cannot_kill", "disk_full"),
    ),
    _verb(
        "retry",
        api_jobs.retry,
        "A new job like this final one.",
        {201: Answer("The new job.", JobView, headers=("Location", "ETag"))},
        "no_such_task",
        "invalid_args",
    ),
    _verb("run", api_jobs.run_now, "Queue a scheduled or retrying job now.", {200: _JOB}),
    Route(
        method="GET",
        path="/v1/jobs/{job_id}/attempts",
        name="jobs.attempts",
        handler=api_jobs.attempts,
        doc="All attempts at a job, in order.",
        answers={200: Answer("The attempts.", shapes.Attempts)},
        refusals=_FINDING,
    ),
)

_TASKS = (
    look(
        "/v1/tasks",
        "tasks.list",
        api_tasks.tasks,
        "What can be submitted.",
        shapes.Tasks,
    ),
    Route(
        method="GET",
        path="/v1/tasks/{task}",
        name="tasks.get",
        handler=api_tasks.task,
        doc="One task.",
        answers={200: Answer("The task.", api_tasks.TaskView)},
        refusals=("no_such_task",),
    ),
    Route(
        method="POST",
        path="/v1/tasks/{task}/call",
        name="tasks.call",
        scope="submit",
        handler=api_tasks.call,
        doc="Submit with the body as arguments and wait for the bare result (60 s, or Prefer: wait=N).",
        answers={200: Answer("The result.", headers=(*_CALLED, *_LIMITED))},
        takes_body=True,
        body="Args",
        headers=("Idempotency-Key", "Prefer", "X-Request-ID", "traceparent"),
        refusals=(
            *READING,
            *_STORING,
            *_ADMITTING,
            "bad_query",
            "no_such_task",
            "invalid_args",
            "key_reused",
            "job_failed",
            "wait_over",
            *_FINDING,
        ),
        refusal_headers={424: ("Location", "Preference-Applied"), 504: ("Location", "Preference-Applied")},
    ),
)

ROUTES: tuple[Route, ...] = (*_JOBS, *_TASKS, *DAEMON_ROUTES, *TOKEN_ROUTES)
"""All but those that serve the description made from them (`contract.served`)."""
