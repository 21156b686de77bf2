"""F5: `jobsvc token create|list|show|rotate|revoke`: who may ask the daemon, and for what."""

from __future__ import annotations

from typing import Any

import click

from jobsvc.cli import exits
from jobsvc.cli.arguments import duration_s
from jobsvc.cli.shell import Shell, json_option, pass_shell
from jobsvc.model.access import SCOPES


@click.group("token")
def token_command() -> None:
    """Make tokens and take them back. The daemon knows at once.

    A token is told once, when it is made; the daemon keeps only its hash.
    """


@token_command.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(SCOPES),
    help="read: look. submit: add jobs. operate: change jobs. admin: everything, tokens too. Repeatable.",
)
@click.option("--tenant", help="Whose jobs it sees and makes; yours when left out.")
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="Only for this task; repeatable.")
@click.option("--queue", "queues", multiple=True, metavar="QUEUE", help="Only for this queue; repeatable.")
@click.option("--expires", metavar="TIME", help="When it ends: 30d, 12h, 90m, or 2027-01-31T00:00:00Z.")
@click.option("--bare", is_flag=True, help="Print the token alone, for scripts.")
@json_option
@pass_shell
def create_command(
    shell: Shell,
    /,
    *,
    name: str,
    scopes: tuple[str, ...],
    tenant: str | None,
    tasks: tuple[str, ...],
    queues: tuple[str, ...],
    expires: str | None,
    bare: bool,
) -> int:
    """Make a token and print it, this once.

    \b
    Example:
      jobsvc token create ci --scope submit --task build --expires 30d
    """  # noqa: D301 - click's own mark
    from jobsvc.client import calls

    body: dict[str, Any] = {"name": name, "scopes": scopes, "tasks": tasks, "queues": queues}
    if tenant is not None:
        body["tenant"] = tenant
    if expires is not None:
        # A time has a T between its date and its clock; a length of time never has.
        body |= {"expires_at": expires} if "T" in expires else {"ttl_s": duration_s(expires, "--expires")}
    return _told(shell, shell.client.request(calls.create_token(body)), bare=bare)


@token_command.command("list")
@click.option("--all", "everything", is_flag=True, help="Those that have expired or were revoked, too.")
@json_option
@pass_shell
def list_command(shell: Shell, /, *, everything: bool) -> int:
    """List tokens, without their secrets."""
    from jobsvc.client import calls
    from jobsvc.client.replies import value_of

    tokens = [
        token
        for token in value_of(shell.client.request(calls.tokens()))["tokens"]
        if everything or token["state"] == "active"
    ]
    if not shell.drawing:
        for token in tokens:
            shell.value(token)
        return exits.OK
    shell.table(("ID", "STATE", "TENANT", "SCOPES", "EXPIRES", "LAST USED", "NAME"), map(_cells, tokens))
    return exits.OK


@token_command.command("show")
@json_option
@pass_shell
def show_command(shell: Shell, /) -> int:
    """Show the token that this command uses: its tenant, scopes, expiry."""
    from jobsvc.client import calls
    from jobsvc.client.replies import value_of

    reply = shell.client.request(calls.token_self())
    if not shell.drawing:
        shell.line(reply.body)
        return exits.OK
    shown = ((name, value) for name, value in value_of(reply).items() if value not in (None, []))
    shell.table(
        ("FIELD", "VALUE"),
        ((name, ", ".join(value) if isinstance(value, list) else value) for name, value in shown),
    )
    return exits.OK


@token_command.command("rotate")
@click.argument("token_id", metavar="ID")
@click.option(
    "--grace", metavar="TIME", help="How long the old one is good beside it: 10m, 12h. None: not at all."
)
@click.option("--bare", is_flag=True, help="Print the token alone, for scripts.")
@json_option
@pass_shell
def rotate_command(shell: Shell, /, *, token_id: str, grace: str | None, bare: bool) -> int:
    """Put a new token in the place of one, with the same name and rights, and print it, this once.

    For the token of the data directory (`first` in the list) its file is written anew.
    """
    from jobsvc.client import calls

    grace_s = 0.0 if grace is None else duration_s(grace, "--grace")
    return _told(shell, shell.client.request(calls.rotate_token(token_id, grace_s)), bare=bare)


@token_command.command("revoke")
@click.argument("token_ids", metavar="ID...", nargs=-1, required=True)
@pass_shell
def revoke_command(shell: Shell, /, *, token_ids: tuple[str, ...]) -> int:
    """Refuse tokens from now on; what streams with them is cut off."""
    from jobsvc.client import calls
    from jobsvc.client.errors import Refused

    code = exits.OK
    for token_id in token_ids:
        try:
            shell.client.request(calls.revoke_token(token_id))
        except Refused as refused:
            shell.note(f"jobsvc: {token_id}: {refused}")
            code = code or exits.code_of(refused)
        else:
            shell.note(f"{token_id} is revoked")
    return code


def _told(shell: Shell, reply: Any, *, bare: bool) -> int:
    """The new token, which nobody can ask for again."""
    from jobsvc.client.replies import value_of

    token = value_of(reply)
    if bare or shell.drawing:
        click.echo(token["token"])
    else:
        shell.line(reply.body)
    if shell.drawing:
        shell.note(f"This is token {token['id']}; it will not be shown again.")
    return exits.OK


def _cells(token: dict[str, Any]) -> tuple[str, ...]:
    narrowed = [f"tasks: {', '.join(token['tasks'])}"] if token["tasks"] else []
    narrowed += [f"queues: {', '.join(token['queues'])}"] if token["queues"] else []
    return (
        token["id"],
        token["state"],
        token["tenant"],
        ",".join(token["scopes"]),
        _moment(token["expires_at"]) or "never",
        _moment(token["used_at"]) or "never",
        f"{token['name']} ({'; '.join(narrowed)})" if narrowed else token["name"],
    )


def _moment(text: str | None) -> str:
    """A time for a glance: to the second."""
    return "" if text is None else text.partition(".")[0].replace("T", " ") + "Z"
