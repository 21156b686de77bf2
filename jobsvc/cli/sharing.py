"""F5: `jobsvc share`: let somebody without a token follow one job for a while."""

from __future__ import annotations

import click

from jobsvc.cli import exits
from jobsvc.cli.arguments import duration_s
from jobsvc.cli.shell import Shell, json_option, pass_shell


@click.command("share")
@click.argument("job_id", metavar="ID")
@click.option(
    "--expires", default="10m", show_default=True, metavar="TIME", help="For how long; an hour at most."
)
@json_option
@pass_shell
def share_command(shell: Shell, /, *, job_id: str, expires: str) -> int:
    """Make a ticket by which a browser can follow a job, and do nothing else.

    Prints the path of the job's events with the ticket; the same ?ticket=… opens the job, its result, its streams.
    It ends with its time, with the token that made it, and with the daemon.
    """
    from jobsvc.client import calls
    from jobsvc.client.replies import value_of

    reply = shell.client.request(calls.share(job_id, duration_s(expires, "--expires")))
    if shell.drawing:
        ticket = value_of(reply)
        click.echo(ticket["url"])
        shell.note(f"until {ticket['expires_at']}")
    else:
        shell.line(reply.body)
    return exits.OK
