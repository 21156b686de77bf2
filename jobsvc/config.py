"""F3: what an operator can set: one table of options, each with its environment variable, its default and its reason.

`jobsvc.tap` makes the command line from it; nothing here reads the world but the mapping it is given.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from jobsvc.model.limits import (
    ARGS_CEILING_BYTES,
    ARGS_MAX_BYTES,
    CPU_MOST_S,
    DRAIN_S,
    KEEP_S,
    LOOP_SLOTS,
    OPEN_FILES_LEAST,
    OPEN_FILES_MOST,
    RSS_LEAST_BYTES,
    THREADS,
    USE_MOST_BYTES,
)
from jobsvc.model.places import default_data_dir
from jobsvc.model.sizes import parse_size, size_text
from jobsvc.model.task import Limits
from jobsvc.ports import Durability

LISTEN = "tcp:8787:interface=127.0.0.1"
WORKERS_MAX = 1_024
THREADS_MAX = 4_096
SLOTS_MAX = 1_000_000
DRAIN_MAX_S = 86_400.0
KEEP_MAX_S = 10 * 366 * 86_400.0
RECYCLE_JOBS_MAX = 1_000_000_000
RECYCLE_AGE_MAX_S = 366 * 86_400.0
"""Above what any machine has."""


class ConfigError(ValueError):
    """An option has a value it cannot have; the text is one line that names it."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one daemon."""

    tasks: tuple[str, ...]
    data_dir: Path
    path: tuple[str, ...] = ()
    listen: tuple[str, ...] = (LISTEN,)
    cpu_workers: int
    threads: int = THREADS
    loop_slots: int = LOOP_SLOTS
    durability: Durability = "power"
    args_max: int = ARGS_MAX_BYTES
    drain_s: float = DRAIN_S
    keep_s: float = KEEP_S
    recycle_jobs: int = 0
    recycle_age: float = 0.0
    recycle_rss: int = 0
    reload: bool = False
    max_rss: int | None = None
    max_cpu_s: int | None = None
    max_open_files: int | None = None
    max_file_size: int | None = None
    launcher_prefix: tuple[str, ...] = ()

    @property
    def limits(self) -> Limits:
        """What an attempt in a process of its own may use when its task says nothing."""
        return Limits(self.max_rss, self.max_cpu_s, self.max_open_files, self.max_file_size)


class Option(NamedTuple):
    """One option: its long name, what its help says, how text becomes its value, whether it may be repeated."""

    name: str
    doc: str
    parse: Callable[[str], Any]
    repeat: bool = False
    flag: bool = False

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return "JOBSVC_" + self.name.upper().replace("-", "_")

    @property
    def field(self) -> str:
        """Its name in `Config`."""
        return self.name.replace("-", "_")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ConfigError(f"{text!r} is not a whole number") from None
        if not low <= value <= high:
            raise ConfigError(f"{value} is not between {low} and {high}")
        return value

    return parse


def _seconds(high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ConfigError(f"{text!r} is not a number of seconds") from None
        if not 0 <= value <= high:
            raise ConfigError(f"{text} is not between 0 and {high:g} seconds")
        return value

    return parse


def _bytes(least: int, most: int = USE_MOST_BYTES) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            size = parse_size(text)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if not least <= size <= most:
            raise ConfigError(f"{text} is not between {size_text(least)} and {size_text(most)}")
        return size

    return parse


def _words(text: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise ConfigError(f"{text!r} cannot be split into words as a shell does: {error}") from None
    if not words:
        raise ConfigError("names no program; for example: bwrap --dev-bind / /")
    return words


def _durability(text: str) -> str:
    if text not in ("power", "process", "memory"):
        raise ConfigError(f"{text!r} is none of power, process, memory")
    return text


def _switch(text: str) -> bool:
    if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
        raise ConfigError(f"{text!r} is neither 1 nor 0")
    return text.lower() in ("1", "true", "yes", "on")


OPTIONS: tuple[Option, ...] = (
    Option(
        "tasks", "MODULE with tasks, found from the start folder (repeatable; required)", str, repeat=True
    ),
    Option(
        "path",
        "DIR that goes before the start folder on the workers' import path (repeatable)",
        str,
        repeat=True,
    ),
    Option(
        "listen",
        f"ENDPOINT to listen on, in Twisted's endpoint words (repeatable) [default: {LISTEN}]",
        str,
        repeat=True,
    ),
    Option(
        "data-dir",
        "DIR for the database, the token and endpoint.json [default: the user's state folder]",
        Path,
    ),
    Option("cpu-workers", "processes for executor=process [default: usable CPUs]", _whole(1, WORKERS_MAX)),
    Option("threads", f"threads for executor=thread [default: {THREADS}]", _whole(1, THREADS_MAX)),
    Option(
        "loop-slots", f"coroutines at once for executor=loop [default: {LOOP_SLOTS}]", _whole(1, SLOTS_MAX)
    ),
    Option(
        "durability",
        "what accepted jobs survive. power: a power cut; process: kill -9; memory: nothing [default: power]",
        _durability,
    ),
    Option(
        "args-max",
        f"BYTES of arguments per job, K and M understood [default: {ARGS_MAX_BYTES // 1024}K]",
        _bytes(1, ARGS_CEILING_BYTES),
    ),
    Option("drain-s", f"SECONDS a stop waits for running jobs [default: {DRAIN_S:g}]", _seconds(DRAIN_MAX_S)),
    Option("keep-s", f"SECONDS a finished job is kept [default: {KEEP_S:g}, 7 days]", _seconds(KEEP_MAX_S)),
    Option(
        "max-rss",
        "BYTES of memory (512M, 2G) that a process job may use with all it starts; over it, Python gets a MemoryError, "
        "and what still grows is killed (crashed, with exit.oom). A task's limits={'max_rss': ...} goes before this; "
        "so with the next three",
        _bytes(RSS_LEAST_BYTES),
    ),
    Option(
        "max-cpu-s",
        "SECONDS of processor time that a process job may use with all it starts; over it, it fails as crashed",
        _whole(1, CPU_MOST_S),
    ),
    Option(
        "max-open-files",
        "NUMBER of files and sockets that each process of a job may have open; over it, opening fails in the job",
        _whole(OPEN_FILES_LEAST, OPEN_FILES_MOST),
    ),
    Option(
        "max-file-size",
        "BYTES of the largest file that a process job may write; over it, writing fails in the job",
        _bytes(1),
    ),
    Option(
        "launcher-prefix",
        "COMMAND before every worker and command, split into words as a shell does: a sandbox or a scope, for "
        "example 'bwrap --dev-bind / / --unshare-net'. It must hand descriptors and exit status through",
        _words,
    ),
    Option(
        "recycle-jobs",
        "replace a worker that has run so many JOBS, without a pause: for tasks that leave things behind; 0: never "
        "[default: 0]",
        _whole(0, RECYCLE_JOBS_MAX),
    ),
    Option(
        "recycle-age",
        "replace a worker that has served for SECONDS, a tenth more or less; 0: never [default: 0]",
        _seconds(RECYCLE_AGE_MAX_S),
    ),
    Option(
        "recycle-rss",
        "replace a worker that holds more than BYTES of memory, K, M and G understood, looked at every second: for "
        "tasks that leak, not a hard limit; 0: never [default: 0]",
        _bytes(0),
    ),
    Option("reload", "watch the task modules and reload them when they change", _switch, flag=True),
)


def usable_cpus() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0))


def build(given: Mapping[str, Sequence[str] | str], environ: Mapping[str, str]) -> Config:
    """The settings: what the command line gave, else the environment, else the defaults.

    Args:
        given: option name → text (repeatable ones: list of texts); absent where the command line is silent.
        environ: repeatable options are separated by commas there.

    Raises:
        ConfigError: names the option or the variable, and what it may be.
    """
    values: dict[str, Any] = {}
    for option in OPTIONS:
        source, raw = f"--{option.name}", given.get(option.name)
        if raw is None and option.variable in environ:
            source, text = option.variable, environ[option.variable]
            raw = [part for part in text.split(",") if part] if option.repeat else text
        if raw is None or (option.repeat and not raw):
            continue
        try:
            values[option.field] = tuple(map(option.parse, raw)) if option.repeat else option.parse(str(raw))
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None
    if not values.get("tasks"):
        raise ConfigError(
            "no --tasks: name the module of your tasks, for example --tasks mytasks (JOBSVC_TASKS)"
        )
    for module in values["tasks"]:
        if module.endswith(".py") or not all(part.isidentifier() for part in module.split(".")):
            hint = f"; did you mean {Path(module).stem}?" if module.endswith(".py") else ""
            raise ConfigError(f"--tasks: {module!r} is not a module name{hint}")
    values.setdefault("cpu_workers", usable_cpus())
    values["data_dir"] = values.get("data_dir") or default_data_dir(environ)
    return Config(**values)
