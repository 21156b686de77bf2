"""F5: `jobsvc get`, `jobsvc result`, `jobsvc list`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from jobsvc.cli import exits
from jobsvc.cli.arguments import pairs
from jobsvc.cli.shell import Shell, json_option, pass_shell

if TYPE_CHECKING:
    from jobsvc.client.shapes import Job

_NOT_YET = 202


@click.command("get")
@click.argument("job_id", metavar="ID")
@json_option
@pass_shell
def get_command(shell: Shell, /, *, job_id: str) -> int:
    """Show one job."""
    from jobsvc.client import calls
    from jobsvc.client.replies import value_of

    reply = shell.client.request(calls.get(job_id))
    if shell.drawing:
        import msgspec

        job: dict[str, Any] = value_of(reply)
        shown = {
            name: value for name, value in job.items() if value not in (None, {}, []) and name != "links"
        }
        shell.table(
            ("FIELD", "VALUE"),
            (
                (name, value if isinstance(value, str) else msgspec.json.encode(value).decode())
                for name, value in shown.items()
            ),
        )
    else:
        shell.line(reply.body)
    return exits.OK


@click.command("result")
@click.argument("job_id", metavar="ID")
@click.option("--wait", is_flag=True, help="Stay until it is done; logs and progress go to standard error.")
@click.option(
    "--wait-s", type=click.FloatRange(0), metavar="SECONDS", help="The same, but no longer than this."
)
@pass_shell
def result_command(shell: Shell, /, *, job_id: str, wait: bool, wait_s: float | None) -> int:
    """Print the result of a job, as JSON.

    Without --wait, a job that is not done yet gives exit code 124.
    """
    from jobsvc.client import calls
    from jobsvc.client.errors import Refused, WaitTimeout
    from jobsvc.client.replies import job_of, result_of

    if wait or wait_s is not None:
        from jobsvc.cli.watching import watch

        return watch(shell, shell.client.get(job_id), wait_s)
    try:
        reply = shell.client.request(calls.result(job_id))
    except Refused as refused:
        if refused.code != "job_failed":
            raise
        # The job itself tells more than the refusal: its traceback, its state.
        shell.value(result_of(shell.client.get(job_id)))
        return exits.OK
    if reply.status == _NOT_YET:
        raise WaitTimeout(job_of(reply), 0.0)
    shell.line(reply.body)
    return exits.OK


@click.command("list")
@click.option("--state", "states", multiple=True, help="Only jobs in this state; repeatable.")
@click.option("--task", help="Only jobs of this task.")
@click.option("--queue", help="Only jobs of this queue.")
@click.option(
    "--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only jobs with this label; repeatable."
)
@click.option("--since", metavar="TIME", help="Only jobs created from this moment on.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
@click.option("--oldest-first", is_flag=True, help="Oldest first instead of newest.")
@json_option
@pass_shell
def list_command(
    shell: Shell,
    /,
    *,
    states: tuple[str, ...],
    task: str | None,
    queue: str | None,
    labels: tuple[str, ...],
    since: str | None,
    limit: int,
    oldest_first: bool,
) -> int:
    """List jobs, newest first."""
    given = {
        "state": list(states),
        "task": task,
        "queue": queue,
        "labels": pairs(labels, "--label"),
        "since": since,
        "order": "asc" if oldest_first else None,
    }
    filters: Any = {name: value for name, value in given.items() if value}
    if not shell.drawing:
        for row in _rows(shell, filters, limit):
            shell.value(row)
        return exits.OK
    now = datetime.now(UTC)
    shell.table(
        ("ID", "TASK", "STATE", "AGE", "TOOK", "NOTE"),
        (_cells(job, now) for job in shell.client.list(limit=limit, **filters)),
    )
    return exits.OK


def _rows(shell: Shell, filters: Any, limit: int) -> Any:
    """The rows as the daemon gave them, every field included."""
    from jobsvc.client import calls
    from jobsvc.client.flows import PAGE_JOBS
    from jobsvc.client.replies import value_of

    cursor: str | None = None
    while limit > 0:
        page = value_of(
            shell.client.request(calls.list_jobs({**filters, "limit": min(limit, PAGE_JOBS)}, cursor))
        )
        yield from page["jobs"]
        limit -= len(page["jobs"])
        cursor = page["next"]
        if cursor is None:
            return


def _cells(job: Job, now: datetime) -> tuple[str, ...]:
    age = "" if job.created_at is None else span(now - job.created_at)
    took = ""
    if job.started_at is not None:
        took = span((job.finished_at or now) - job.started_at)
    note = job.reason or ""
    if job.error is not None:
        note = job.error.kind if job.error.type is None else f"{job.error.kind}: {job.error.type}"
    elif job.progress is not None and not job.done:
        from jobsvc.cli.watching import progress_text

        note = progress_text(job.progress.n, job.progress.of, job.progress.note)
    return job.id, job.task, job.state, age, took, note


_UNITS = (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0))
_FINE_S = 10.0
"""Below this, tenths of a second matter."""


def span(length: timedelta) -> str:
    """A length of time for a glance: 12 ms, 3.4 s, 5 min, 2 h, 3 d."""
    seconds = max(0.0, length.total_seconds())
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    if seconds >= 1:
        return f"{seconds:.1f} s" if seconds < _FINE_S else f"{seconds:.0f} s"
    return f"{seconds * 1000:.0f} ms"
