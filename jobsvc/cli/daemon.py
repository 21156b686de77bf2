"""F5: `jobsvc tasks`, `jobsvc info`, `jobsvc reload`: the daemon itself."""

from __future__ import annotations

from typing import Any

import click

from jobsvc.cli import exits
from jobsvc.cli.shell import Shell, json_option, pass_shell


@click.command("tasks")
@click.argument("name", required=False)
@json_option
@pass_shell
def tasks_command(shell: Shell, /, *, name: str | None) -> int:
    """List the tasks the daemon can run, or show one of them."""
    from jobsvc.client import calls
    from jobsvc.client.replies import value_of

    reply = shell.client.request(calls.tasks(name))
    if name is not None:
        _fields(shell, reply.body)
        return exits.OK
    tasks: list[dict[str, Any]] = value_of(reply)["tasks"]
    if shell.drawing:
        shell.table(
            ("TASK", "EXECUTOR", "ARGUMENTS", "WHAT IT DOES"),
            (
                (
                    task["name"],
                    task["executor"],
                    _parameters(task.get("args_schema")),
                    (task.get("doc") or "").split("\n")[0],
                )
                for task in tasks
            ),
        )
    else:
        for task in tasks:
            shell.value(task)
    return exits.OK


def _parameters(schema: Any) -> str:
    """Names of the arguments; those in brackets may be left out."""
    if not isinstance(schema, dict):
        return ""
    if reference := schema.get("$ref"):
        schema = schema.get("$defs", {}).get(str(reference).rsplit("/", 1)[-1], {})
    required = set(schema.get("required", ()))
    return " ".join(name if name in required else f"[{name}]" for name in schema.get("properties", {}))


@click.command("info")
@json_option
@pass_shell
def info_command(shell: Shell, /) -> int:
    """Show the daemon's version, limits and defaults."""
    from jobsvc.client import calls

    _fields(shell, shell.client.request(calls.info()).body)
    return exits.OK


@click.command("reload")
@json_option
@pass_shell
def reload_command(shell: Shell, /) -> int:
    """Load the task modules anew, without losing a job.

    New workers take the work, the old ones finish theirs.
    """
    from jobsvc.client import calls

    body = shell.client.request(calls.reload()).body
    if body.strip():
        _fields(shell, body)
    elif shell.drawing:
        click.echo("reloading")
    return exits.OK


def _fields(shell: Shell, body: bytes) -> None:
    """A JSON object: as it came for programs, its fields in a table for people."""
    if not shell.drawing:
        shell.line(body)
        return
    import msgspec

    shell.table(
        ("FIELD", "VALUE"),
        (
            (name, value if isinstance(value, str) else msgspec.json.encode(value).decode())
            for name, value in msgspec.json.decode(body).items()
        ),
    )
