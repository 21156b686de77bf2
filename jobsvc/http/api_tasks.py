"""F3: handlers of tasks: what there is, and the call that waits for the bare result."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw

from jobsvc.http.api_jobs import accept, accepted, bare_result, tell_expiry, told
from jobsvc.http.bodies import check_raw, decode, json_body, suspicious
from jobsvc.http.edge import Edge, json_reply
from jobsvc.http.negotiate import applied_wait, preferred_wait_s
from jobsvc.http.query import Query
from jobsvc.http.request import Request
from jobsvc.model.errors import JobsvcError
from jobsvc.model.ids import id_text
from jobsvc.model.job import Submit
from jobsvc.model.limits import CALL_WAIT_S
from jobsvc.model.task import Port, TaskSpec, Timeouts

_raw_decoder = msgspec.json.Decoder(Raw)


class TaskView(msgspec.Struct):
    """A task as it is served."""

    name: str
    doc: str
    executor: str
    args_schema: Raw
    result_schema: Raw
    ports: tuple[Port, ...]
    queue: str
    retries: int
    timeouts: Timeouts
    concurrency: int | None
    uses: tuple[str, ...]
    module: str


def task_view(spec: TaskSpec) -> TaskView:
    """The shape of `spec` for the wire."""
    return TaskView(
        name=spec.name,
        doc=spec.doc,
        executor=spec.executor,
        args_schema=Raw(spec.args_schema or b"true"),
        result_schema=Raw(spec.result_schema or b"true"),
        ports=spec.ports,
        queue=spec.queue,
        retries=spec.policy.max_attempts - 1,
        timeouts=spec.policy.timeouts,
        concurrency=spec.concurrency,
        uses=spec.uses,
        module=spec.module,
    )


def known_task(edge: Edge, name: str) -> TaskSpec:
    """The task of a path. Raises no_such_task, here as 404: the path names nothing."""
    spec = edge.engine.task(name)
    if spec is None:
        raise JobsvcError(
            "no_such_task", f"There is no task {name[:128]!r}; GET /v1/tasks lists them.", status=404
        )
    return spec


async def tasks(edge: Edge, request: Request, _query: Query) -> bytes:
    """`GET /v1/tasks`."""
    specs = sorted(edge.engine.tasks.values(), key=lambda spec: spec.name)
    return json_reply(request, 200, {"tasks": [task_view(spec) for spec in specs]})


async def task(edge: Edge, request: Request, _query: Query, task: str) -> bytes:
    """`GET /v1/tasks/{task}`."""
    return json_reply(request, 200, task_view(known_task(edge, task)))


async def call(edge: Edge, request: Request, _query: Query, task: str) -> bytes:
    """`POST /v1/tasks/{task}/call`."""
    known_task(edge, task)
    done = await accept(edge, request, Submit(task=task, args=_args(json_body(request))))
    job = accepted(done)
    told(edge, request, done, job)
    preferred_s = preferred_wait_s(request)
    if preferred_s is not None:
        applied_wait(request, preferred_s)
    wait_s = CALL_WAIT_S if preferred_s is None else preferred_s
    job = await edge.engine.wait(job.id, request.tenant, wait_s, fresh=None if done.replayed else job)
    if not job.done:
        raise JobsvcError(
            "wait_over",
            f"The job is still {job.state} after {wait_s:g} s; it goes on, Location says where.",
            job=id_text(job.id),
        )
    tell_expiry(edge, request, job)
    return bare_result(request, job)


def _args(body: bytes) -> Any:
    """The whole body as arguments; none for an empty one."""
    if not body:
        return UNSET
    raw = decode(_raw_decoder, body)
    if suspicious(body):
        check_raw(raw)
    return raw
