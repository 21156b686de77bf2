"""F5: `jobsvc cancel` and `jobsvc retry`: the same for one job or many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from jobsvc.cli import exits
from jobsvc.cli.shell import Shell, json_option, pass_shell

if TYPE_CHECKING:
    from jobsvc.client.core import Request


@click.command("cancel")
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--mode",
    type=click.Choice(["polite", "deadline", "now"]),
    default="polite",
    show_default=True,
    help="polite: ask. deadline: ask, kill after the grace. now: kill at once.",
)
@click.option("--grace-s", type=click.FloatRange(0), metavar="SECONDS", help="For --mode deadline.")
@json_option
@pass_shell
def cancel_command(shell: Shell, /, *, job_ids: tuple[str, ...], mode: str, grace_s: float | None) -> int:
    """Cancel jobs.

    A running job is `stopping` until its code has been seen to stop. An executor that cannot kill says so.
    """
    from jobsvc.client import calls

    return _each(shell, job_ids, lambda job_id: calls.cancel(job_id, mode, grace_s))  # type: ignore[arg-type]


@click.command("retry")
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@json_option
@pass_shell
def retry_command(shell: Shell, /, *, job_ids: tuple[str, ...]) -> int:
    """Submit jobs that are done once more, as new jobs."""
    from jobsvc.client import calls

    return _each(shell, job_ids, calls.retry)


def _each(shell: Shell, job_ids: Iterable[str], ask: Callable[[str], Request]) -> int:
    """One request for each job; a refusal does not keep the others from theirs. Answers the first bad code."""
    from jobsvc.client.errors import Refused
    from jobsvc.client.replies import job_of

    code = exits.OK
    for job_id in job_ids:
        try:
            reply = shell.client.request(ask(job_id))
        except Refused as refused:
            shell.note(f"jobsvc: {job_id}: {refused}")
            code = code or exits.code_of(refused)
            continue
        if shell.drawing:
            job = job_of(reply)
            click.echo(f"{job.id}  {job.state}")
        else:
            shell.line(reply.body)
    return code
