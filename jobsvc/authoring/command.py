"""F1: `command`: any program as a task. Its placeholders are its arguments; no shell is involved."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from jobsvc.authoring.limits import LimitsArg, checked_limits
from jobsvc.authoring.policy import BackoffArg, Declared, TimeoutArg, checked_name, declare
from jobsvc.model.argv import ArgvError, ArgvValue, placeholders, render_argv
from jobsvc.model.describe import args_schema, describe, schema
from jobsvc.model.task import CommandSpec, OnLost, Port, TaskSpec
from jobsvc.model.types import ArgsReader, signature_node
from jobsvc.model.typetree import FieldNode, to_bytes

EXIT_CODE_MAX = 255
"""What a process can exit with."""


class CommandResult(msgspec.Struct):
    """What a command's job gives."""

    code: int


class Command:
    """A program with its policy. Made by `command`.

    Args:
        name: the task's name, checked.
        command: how it is run, checked.
        declared: the policy arguments, checked.
        module: the module it was written in.
    """

    executor = "command"
    kind = "command"

    def __init__(self, name: str, command: CommandSpec, declared: Declared, module: str) -> None:
        self.name = name
        self.command = command
        self.declared = declared
        self.module = module
        names = placeholders(command.argv)
        self.node = signature_node([FieldNode(each, describe(ArgvValue)) for each in names])
        self._reader = ArgsReader(self.node, [ArgvValue] * len(names), [None] * len(names))

    def __repr__(self) -> str:
        return f"<command {self.name} ({self.module})>"

    def bind(self, args_json: bytes) -> tuple[list[Any], dict[str, Any]]:
        """The values of the placeholders, by name. Raises `ArgsError`."""
        names = [field.name for field in self.node.fields]
        return [], dict(zip(names, self._reader.read(args_json), strict=True))

    def render(self, args: Mapping[str, ArgvValue]) -> list[str]:
        """The command line for these arguments. Raises `ArgvError`."""
        return render_argv(self.command.argv, args)

    def spec(self) -> TaskSpec:
        """Its entry in a manifest."""
        return TaskSpec(
            name=self.name,
            doc=" ".join(self.command.argv),
            module=self.module,
            executor="command",
            queue=self.declared.queue,
            priority=self.declared.priority,
            policy=self.declared.policy,
            concurrency=self.declared.concurrency,
            args_tree=to_bytes(self.node),
            args_schema=msgspec.json.encode(args_schema(self._reader.struct, self.name)),
            result_schema=msgspec.json.encode(schema(CommandResult)),
            ports=(Port("out", "out"),),
            command=self.command,
            limits=self.declared.limits,
        )


def command(
    name: str,
    argv: Sequence[str],
    *,
    ok_codes: Sequence[int] = (0,),
    retry_codes: Sequence[int] | None = None,
    text: bool = True,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    timeout: TimeoutArg = None,
    retries: int = 0,
    backoff: BackoffArg = None,
    queue: str = "default",
    priority: int = 0,
    concurrency: int | None = None,
    on_lost: OnLost = "retry",
    limits: LimitsArg = None,
) -> Command:
    """Make a program a task.

    As in `encode = command("encode", ["ffmpeg", "-i", "{src}", "{dst}"])`: each `{name}` is a required argument, a
    string, a number or a boolean. It fills its element and never makes another one; text may stand around it
    (`"--in={src}"`); `{{` and `}}` are braces. The lines of its standard output are the items of `out`, those of its
    standard error the log; the result is `{"code": 0}`.

    Args:
        ok_codes: exit codes that are no error.
        retry_codes: exit codes worth another try. Default: all that are an error. With one that is not worth it the
            job fails at once, with `error.retryable` false. A program that a signal or a timeout has ended has no
            code: this rule does not touch it.
        text: output lines are text; False: bytes.
        cwd: its working directory; default: where the daemon was started.
        env: added to its environment.
        timeout, retries, backoff, queue, priority, concurrency, on_lost, limits: as for `task`.

    Raises:
        TypeError: an argument of a wrong type.
        ValueError: an argument out of its range, a placeholder that is none.
    """
    checked_name("name", name)
    try:
        spec = CommandSpec(
            argv=_argv(argv),
            ok_codes=_ok_codes(ok_codes),
            retry_codes=None if retry_codes is None else _retry_codes(retry_codes, ok_codes),
            text=_flag("text", text),
            cwd=None if cwd is None else _text("cwd", os.fspath(cwd)),
            env={_variable(key): _text(f"env[{key!r}]", value) for key, value in (env or {}).items()},
        )
        placeholders(spec.argv)
        declared = declare(
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            queue=queue,
            priority=priority,
            concurrency=concurrency,
            on_lost=on_lost,
        )
        declared = msgspec.structs.replace(declared, limits=checked_limits(limits, "command"))
    except (TypeError, ValueError) as error:
        kind = ValueError if isinstance(error, ArgvError) else type(error)
        raise kind(f"command {name!r}: {error}") from None
    module = sys._getframe(1).f_globals.get("__name__", "__main__")  # noqa: SLF001  # an object has no module
    return Command(name, spec, declared, module)


def _argv(argv: Any) -> tuple[str, ...]:
    if isinstance(argv, (str, bytes)) or not isinstance(argv, Sequence):
        raise TypeError(f"argv must be a list of elements, not {argv!r}: no shell splits it")
    return tuple(_text(f"argv[{at}]", element) for at, element in enumerate(argv))


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {value!r}")
    if "\0" in value:
        raise ValueError(f"{what} holds a NUL byte")
    return value


def _variable(name: Any) -> str:
    text = _text("a name in env", name)
    if not text or "=" in text:
        raise ValueError(f"env: {name!r} is no name of a variable")
    return text


def _flag(what: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{what} must be True or False, not {value!r}")
    return value


def _ok_codes(codes: Any) -> tuple[int, ...]:
    checked = _codes("ok_codes", codes)
    if not checked:
        raise ValueError("ok_codes is empty: then no run could succeed")
    return checked


def _retry_codes(codes: Any, ok_codes: Sequence[int]) -> tuple[int, ...]:
    checked = _codes("retry_codes", codes)
    for code in checked:
        if code in ok_codes:
            raise ValueError(f"retry_codes holds {code}, which by ok_codes is no error")
    return checked


def _codes(what: str, codes: Any) -> tuple[int, ...]:
    if isinstance(codes, (str, bytes)) or not isinstance(codes, Sequence):
        raise TypeError(f"{what} must be a sequence of integers, not {codes!r}")
    for code in codes:
        if isinstance(code, bool) or not isinstance(code, int):
            raise TypeError(f"{what} must hold integers, not {code!r}")
        if not 0 <= code <= EXIT_CODE_MAX:
            raise ValueError(f"{what} must be from 0 to {EXIT_CODE_MAX}, not {code}")
    return tuple(codes)
