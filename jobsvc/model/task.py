"""F0: what the daemon knows of a task: its entry in a worker's manifest. The callable stays in the worker."""

from __future__ import annotations

from typing import Literal

import msgspec

from jobsvc.model.limits import BACKOFF_BASE_S, BACKOFF_MAX_S

ExecutorName = Literal["loop", "thread", "process", "command"]
EXECUTORS: tuple[ExecutorName, ...] = ("loop", "thread", "process", "command")
CANNOT_KILL: frozenset[ExecutorName] = frozenset(("thread",))
"""Executors whose running code nothing but itself can end (design section 9)."""
OnLost = Literal["retry", "fail"]


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds, null = none. `run`: one attempt, from its begin; `idle`: no output, progress or heartbeat;
    `total`: from submission to outcome.
    """  # fmt: skip

    run: float | None = None
    idle: float | None = None
    total: float | None = None


class Backoff(msgspec.Struct, frozen=True):
    """Delay before try n+1 = uniform(0, min(max_s, base_s * 2**(n-1))) seconds."""

    base_s: float = BACKOFF_BASE_S
    max_s: float = BACKOFF_MAX_S


class Policy(msgspec.Struct, frozen=True):
    """What a job may try and for how long; resolved at submit from the task's policy and the envelope.

    Stored as one JSON column: SQL never looks inside, and most jobs of a task share the very same text.
    """

    max_attempts: int = 1
    backoff: Backoff = Backoff()
    on_lost: OnLost = "retry"
    timeouts: Timeouts = Timeouts()


class Limits(msgspec.Struct, frozen=True):
    """What an attempt in a process of its own may use; null = no limit. Of a task, never of a job.

    `max_rss`: resident bytes of the attempt with all it has started; `cpu_s`: seconds of processor time, likewise;
    `open_files`: descriptors it may open, in each of its processes; `file_bytes`: size of any file it writes.
    """

    max_rss: int | None = None
    cpu_s: int | None = None
    open_files: int | None = None
    file_bytes: int | None = None

    def over(self, defaults: Limits) -> Limits:
        """These, and where they say nothing the defaults."""
        own = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(defaults, **own)


NO_LIMITS = Limits()


class Port(msgspec.Struct, frozen=True):
    """One named stream of a task: `out` of a generator or command."""

    name: str
    direction: Literal["in", "out"]


class CommandSpec(msgspec.Struct, frozen=True):
    """What `executor="command"` runs: argv with `{name}` placeholders; no shell, no splitting.

    `retry_codes`: exit codes worth another try; None = all that are not in `ok_codes`.
    """

    argv: tuple[str, ...]
    ok_codes: tuple[int, ...] = (0,)
    retry_codes: tuple[int, ...] | None = None
    text: bool = True
    cwd: str | None = None
    env: dict[str, str] = msgspec.field(default_factory=dict)


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One task as its worker declares it.

    `args_tree` is the type tree of the arguments (msgpack of `jobsvc.model.types.TypeNode`), from which the daemon
    rebuilds a checker; `args_schema` and `result_schema` are JSON Schema texts for people and clients.
    """

    name: str
    doc: str = ""
    module: str
    executor: ExecutorName
    queue: str = "default"
    priority: int = 0
    policy: Policy = Policy()
    concurrency: int | None = None
    args_tree: bytes
    args_schema: bytes
    result_schema: bytes
    ports: tuple[Port, ...] = ()
    uses: tuple[str, ...] = ()
    command: CommandSpec | None = None
    limits: Limits = NO_LIMITS
