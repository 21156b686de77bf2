"""F3: handlers of the daemon itself: health, metrics, info, workers, executors, reload."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import msgspec

from jobsvc.http.edge import Edge, json_reply
from jobsvc.http.executors import EXECUTOR_VIEWS
from jobsvc.http.metrics import CONTENT_TYPE
from jobsvc.http.query import Query
from jobsvc.http.request import Request
from jobsvc.model import limits
from jobsvc.model.clock import time_text
from jobsvc.model.task import Limits, Policy

TEXT = b"text/plain; charset=utf-8"


def running_version() -> str:
    """The installed version; a bare checkout has none."""
    try:
        return version("jobsvc")
    except PackageNotFoundError:
        return "0"


async def livez(_edge: Edge, request: Request, _query: Query) -> bytes:
    """`GET /livez`: it answers, so it lives; nothing else is checked."""
    return request.reply(200, b"ok\n", TEXT)


async def readyz(edge: Edge, request: Request, query: Query) -> bytes:
    """`GET /readyz`: whether jobs can be taken and run. A broken module is told, and does not stop the others."""
    checks = [
        *edge.daemon.ready(),
        ("accepting", not edge.engine.draining, "draining" if edge.engine.draining else "yes"),
    ]
    well = all(ok for _, ok, _ in checks)
    status = 200 if well else 503
    if query.get("verbose", False):
        told = [*checks, *edge.daemon.remarks()]
        listed = [{"check": name, "ok": ok, "detail": detail} for name, ok, detail in told]
        return json_reply(request, status, {"ready": well, "checks": listed})
    return request.reply(status, b"ok\n" if well else b"not ready\n", TEXT)


async def metrics(edge: Edge, request: Request, _query: Query) -> bytes:
    """`GET /metrics`."""
    edge.metrics.gauges = {
        **await edge.engine.gauges(),
        **edge.daemon.gauges(),
        ("http_streams",): len(edge.outlets),
        ("ready",): int(all(ok for _, ok, _ in edge.daemon.ready()) and not edge.engine.draining),
    }
    text = await edge.in_thread(edge.metrics.exposition)
    return request.reply(200, text, CONTENT_TYPE)


class LimitsView(msgspec.Struct):
    """The published limits (design section 8), bytes unless the name says otherwise. `queue_max`: jobs of a tenant that
    may wait; `submit_rate`: jobs a second that it may submit; 0 = no limit.
    """  # fmt: skip

    json_body_max_bytes: int
    args_max_bytes: int
    result_max_bytes: int = limits.RESULT_MAX_BYTES
    item_max_bytes: int = limits.ITEM_MAX_BYTES
    stream_quota_bytes: int = limits.STREAM_QUOTA_BYTES
    headers_max_bytes: int = limits.HEADERS_MAX_BYTES
    bulk_lines_max: int = limits.BULK_LINES_MAX
    bulk_atomic_max: int = limits.BULK_ATOMIC_MAX
    labels_max: int = limits.LABELS_MAX
    list_limit_max: int = limits.LIST_LIMIT_MAX
    many_max: int = limits.MANY_MAX
    wait_max_s: float = limits.WAIT_MAX_S
    queue_max: int = 0
    submit_rate: float = 0.0


KEY_LIFETIME = "as long as its job is kept: keep_s after the job's end, or until it is deleted"
"""When an idempotency key may be used anew."""


class DefaultsView(msgspec.Struct):
    """What a job gets when neither the submit nor its task says otherwise. Durations in seconds."""

    keep_s: float
    process_limits: Limits
    key_lifetime: str = KEY_LIFETIME
    policy: Policy = Policy()
    call_wait_s: float = limits.CALL_WAIT_S
    list_limit: int = limits.LIST_LIMIT
    grace_s: float = limits.GRACE_S


class InfoView(msgspec.Struct):
    """The daemon as it is served."""

    version: str
    boot: str
    started_at: str
    durability: str
    limits: LimitsView
    defaults: DefaultsView
    tasks: int
    draining: bool


async def info(edge: Edge, request: Request, _query: Query) -> bytes:
    """`GET /v1/info`."""
    engine, daemon = edge.engine, edge.daemon
    return json_reply(
        request,
        200,
        InfoView(
            version=running_version(),
            boot=daemon.boot,
            started_at=time_text(daemon.started_at),
            durability=engine.durability,
            limits=LimitsView(
                json_body_max_bytes=edge.body_max_bytes,
                args_max_bytes=engine.config.args_max_bytes,
                queue_max=engine.config.queue_max,
                submit_rate=engine.config.submit_rate,
            ),
            defaults=DefaultsView(keep_s=engine.config.keep_s, process_limits=engine.config.limits),
            tasks=len(engine.tasks),
            draining=engine.draining,
        ),
    )


class WorkerView(msgspec.Struct):
    """A worker as it is served: the fields that the daemon around the engine fills in."""

    id: str
    kind: str
    pid: int | None
    state: str
    slots: dict[str, int]
    running: int
    started_at: str | None
    rss: int | None
    restarts: int


async def workers(edge: Edge, request: Request, _query: Query) -> bytes:
    """`GET /v1/workers`."""
    return json_reply(request, 200, {"workers": list(edge.daemon.workers())})


async def executors(_edge: Edge, request: Request, _query: Query) -> bytes:
    """`GET /v1/executors`."""
    return json_reply(request, 200, {"executors": EXECUTOR_VIEWS})


class ReloadView(msgspec.Struct):
    """What a reload brought: the tasks in force, by name."""

    tasks: list[str]


async def reload(edge: Edge, request: Request, _query: Query) -> bytes:
    """`POST /v1/reload`: answered when the new code is in force."""
    await edge.background.detached(edge.daemon.reload)
    return json_reply(request, 200, ReloadView(sorted(edge.engine.tasks)))
