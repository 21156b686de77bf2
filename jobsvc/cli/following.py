"""F5: `jobsvc follow`: the events of a job, or the items of one of its streams, as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from jobsvc.cli import exits
from jobsvc.cli.shell import Shell, json_option, pass_shell

if TYPE_CHECKING:
    from jobsvc.client.shapes import Event


@click.command("follow")
@click.argument("job_id", metavar="ID")
@click.option("--from", "from_", type=click.IntRange(1), help="Begin with this number instead of the first.")
@click.option("--kind", "kinds", multiple=True, help="Only events of this kind; repeatable.")
@click.option("--stream", help="The values of this stream instead of events, one JSON value a line.")
@json_option
@pass_shell
def follow_command(
    shell: Shell, /, *, job_id: str, from_: int | None, kinds: tuple[str, ...], stream: str | None
) -> int:
    """Show the events of a job until it is done.

    Broken connections are made again, and nothing is lost. The exit code says how the job ended.

    \b
    Examples:
      jobsvc follow 01938f00-0000-7000-8000-000000000000
      jobsvc follow 01938f00-0000-7000-8000-000000000000 --stream out
    """  # noqa: D301 - click's own mark
    from jobsvc.client.replies import result_of

    if stream is not None:
        if kinds:
            raise click.UsageError("--kind and --stream exclude each other: a stream has items only")
        for value in shell.client.stream(job_id, stream, from_=from_ or 1):
            shell.value(value)
        return exits.OK
    for event in shell.client.events(job_id, from_=from_, kinds=kinds):
        if shell.drawing:
            click.echo(_text(event))
        else:
            shell.value(_plain(event))
    result_of(shell.client.get(job_id))
    return exits.OK


def _plain(event: Event) -> dict[str, Any]:
    plain = {"seq": event.seq, "at": event.at, "kind": event.kind, "data": event.data}
    if event.stream is not None:
        plain |= {"stream": event.stream, "n": event.n}
    return plain


def _text(event: Event) -> str:
    """One event as a line for a person."""
    import msgspec

    from jobsvc.cli.watching import log_text, progress_text

    clock = "" if event.at is None else event.at.astimezone().strftime("%H:%M:%S.%f")[:-3]
    data = event.data
    if event.kind == "log":
        said = log_text(data)
    elif event.kind == "progress":
        said = progress_text(data.get("n"), data.get("of"), data.get("note"))
    elif event.kind == "state":
        said = " ".join(part for part in (data.get("state"), data.get("reason")) if part)
    elif event.kind in ("job", "end"):
        said = f"{data.get('task')} {data.get('state')}"
    else:
        said = msgspec.json.encode(data).decode()
    kind = event.kind if event.stream is None else f"{event.kind} {event.stream}[{event.n}]"
    return f"{clock}  {kind:<10}  {said}"
