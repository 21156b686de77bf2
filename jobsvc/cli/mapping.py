"""F5: `jobsvc map`: lines in, results out."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import IO, TYPE_CHECKING, Any

import click

from jobsvc.cli import exits
from jobsvc.cli.shell import Shell, pass_shell
from jobsvc.cli.submitting import submit_options, wire_options

if TYPE_CHECKING:
    from jobsvc.client.errors import ClientError


@click.command("map")
@click.argument("task")
@submit_options
@click.option("--full", is_flag=True, help="Write {line, result} or {line, error} instead of bare results.")
@click.option("--stop", is_flag=True, help="Stop at the first failure.")
@pass_shell
def map_command(shell: Shell, /, *, task: str, full: bool, stop: bool, **given: Any) -> int:
    """Run a task once for each line of input.

    Each line of standard input is the arguments of one job as JSON: an object (by name) or an array (by position).
    The results are written in the same order, one a line. A job that failed gives null; standard error then says
    why, and the exit code is 1. With --key NAME, job n has the key NAME:n, so that the same command again takes up
    what is there.

    \b
    Examples:
      printf '[1, 2]\\n[3, 4]\\n' | jobsvc map add
      jobsvc map count_words --full < files.ndjson > counts.ndjson
    """  # noqa: D301 - click's own mark
    from jobsvc.client.errors import ClientError

    numbers: deque[int] = deque()
    inputs = _inputs(sys.stdin.buffer, numbers)
    failed = 0
    with _counter(task) as count:
        for value in shell.client.map(task, inputs, return_errors=True, **wire_options(given)):
            line = numbers.popleft()
            if isinstance(value, ClientError):
                failed += 1
                shell.note(f"line {line}: {_reason(value)}")
            shell.value(_record(line, value) if full else None if isinstance(value, ClientError) else value)
            count()
            if failed and stop:
                break
    return exits.FAILED if failed else exits.OK


def _inputs(source: IO[bytes], numbers: deque[int]) -> Iterator[Any]:
    """Arguments line by line; the number of each line is added to `numbers`. Raises `click.BadParameter`."""
    import msgspec
    from msgspec import Raw

    for number, line in enumerate(source, 1):
        text = line.strip()
        if not text:
            continue
        try:
            value = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise click.BadParameter(
                f"line {number} is no JSON: {error}", param_hint="standard input"
            ) from None
        if not isinstance(value, dict | list):
            raise click.BadParameter(
                f"line {number} must be an object (by name) or an array (by position)",
                param_hint="standard input",
            )
        numbers.append(number)
        yield Raw(text)


def _record(line: int, value: Any) -> dict[str, Any]:
    from jobsvc.client.errors import JobFailed, Refused

    if isinstance(value, JobFailed):
        return {"line": line, "id": value.job_id, "state": value.state, "error": value.error}
    if isinstance(value, Refused):
        return {"line": line, "problem": value.problem}
    return {"line": line, "result": value}


def _reason(error: ClientError) -> str:
    """What to say of a failure; a refusal names its own line, counted without the empty ones: that is left out."""
    from jobsvc.client.errors import Refused

    return f"{error.code} ({error.status}): {error.detail}" if isinstance(error, Refused) else str(error)


def _counter(title: str) -> AbstractContextManager[Callable[[], None]]:
    """Counts on a terminal, while the results go elsewhere."""
    if sys.stdout.isatty() or not sys.stderr.isatty():
        return nullcontext(lambda: None)
    from jobsvc.cli.drawing import counter

    return counter(title)
