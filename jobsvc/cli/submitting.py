"""F5: `jobsvc submit` and `jobsvc call`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from jobsvc.cli import exits
from jobsvc.cli.arguments import pairs, task_arguments
from jobsvc.cli.shell import Shell, json_option, pass_shell

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--key", help="Idempotency key: the same key and arguments give the same job."),
    click.option("--queue", help="The queue to wait in."),
    click.option("--priority", type=click.IntRange(-100, 100), help="Larger goes first (default 0)."),
    click.option(
        "--delay", "delay_s", type=float, metavar="SECONDS", help="Not before so many seconds from now."
    ),
    click.option("--run-at", metavar="TIME", help="Not before this moment: 2030-01-31T08:00:00Z."),
    click.option("--expires-at", metavar="TIME", help="Not after this moment."),
    click.option("--timeout", "run_s", type=float, metavar="SECONDS", help="Longest run of one attempt."),
    click.option("--retries", type=click.IntRange(0), help="Further attempts after a failure."),
    click.option("--on-lost", type=click.Choice(["retry", "fail"]), help="When its worker vanishes."),
    click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label; repeatable."),
)


def submit_options(command: F) -> F:
    """Adds what a submit may say beside task and arguments."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def wire_options(given: dict[str, Any]) -> Any:
    """Those of the options that were given, in the words of the wire."""
    options = {
        name: value for name, value in given.items() if value is not None and name not in ("labels", "run_s")
    }
    if given["run_s"] is not None:
        options["timeouts"] = {"run": given["run_s"]}
    if labels := pairs(given["labels"], "--label"):
        options["labels"] = labels
    return options


_argument_option = click.option(
    "-a",
    "words",
    multiple=True,
    metavar="NAME=VALUE",
    help="One argument, JSON if it parses, otherwise text; repeatable.",
)


@click.command("submit")
@click.argument("task")
@click.argument("json_text", metavar="[JSON]", required=False)
@_argument_option
@submit_options
@click.option("--wait", is_flag=True, help="Stay until it is done, and end as it does.")
@click.option(
    "--wait-s", type=click.FloatRange(0), metavar="SECONDS", help="The same, but no longer than this."
)
@json_option
@pass_shell
def submit_command(
    shell: Shell,
    /,
    *,
    task: str,
    json_text: str | None,
    words: tuple[str, ...],
    wait: bool,
    wait_s: float | None,
    **given: Any,
) -> int:
    """Submit a job.

    JSON is an object (arguments by name), an array (by position), or - to read it from standard input.

    With --wait the result goes to standard output, logs and progress to standard error, and the exit code says how
    the job ended.

    \b
    Examples:
      jobsvc submit add '{"a": 1, "b": 2}'
      jobsvc submit thumbnail -a path=a.png -a width=200 --wait
      jobsvc submit report - --key report-2030-01 < arguments.json
    """  # noqa: D301 - click's own mark
    from jobsvc.client import calls

    arguments, options = task_arguments(json_text, words), wire_options(given)
    if wait or wait_s is not None:
        from jobsvc.cli.watching import watch

        return watch(shell, shell.client.submit(task, arguments, **options), wait_s)
    options.setdefault("key", _new_key())
    reply = shell.client.request(calls.submit(calls.submission(task, arguments, options)))
    if shell.drawing:
        from jobsvc.client.replies import job_of

        job = job_of(reply)
        click.echo(f"{job.id}  {job.state}")
    else:
        shell.line(reply.body)
    return exits.OK


def _new_key() -> str:
    from jobsvc.client.core import Session

    return Session().new_key()


@click.command("call")
@click.argument("task")
@click.argument("json_text", metavar="[JSON]", required=False)
@_argument_option
@submit_options
@click.option("--wait-s", type=click.FloatRange(0), metavar="SECONDS", help="Wait no longer than this.")
@pass_shell
def call_command(
    shell: Shell,
    /,
    *,
    task: str,
    json_text: str | None,
    words: tuple[str, ...],
    wait_s: float | None,
    **given: Any,
) -> int:
    """Run a task and print its result, nothing else.

    Arguments are given as for submit; to see logs and progress as well, use submit --wait.

    \b
    Example:
      jobsvc call add '[1, 2]'
    """  # noqa: D301 - click's own mark
    shell.value(
        shell.client.call(task, task_arguments(json_text, words), timeout=wait_s, **wire_options(given))
    )
    return exits.OK
