"""F3: the settings of one daemon as values, with their defaults; knows nothing of where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from jobsvc.model.limits import (
    ARGS_MAX_BYTES,
    AUDIT_KEEP_DAYS,
    DRAIN_S,
    KEEP_S,
    LOOP_SLOTS,
    QUEUE_MAX,
    THREADS,
)
from jobsvc.model.task import Limits
from jobsvc.ports import Durability

LISTEN: Final = "tcp:8787:interface=127.0.0.1"

LogFormat = Literal["json", "human", "auto"]
LogLevel = Literal["debug", "info", "warn", "error"]


class ConfigError(ValueError):
    """Settings that cannot be used.

    Attributes:
        problems: each one line that names the option, variable or file and key, and says what it may be. The text of
            the error is the first of them.
    """

    def __init__(self, *problems: str) -> None:
        more = len(problems) - 1
        super().__init__(
            problems[0] if not more else f"{problems[0]} (and {more} more: jobsvc config check lists them)"
        )
        self.problems = problems


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one daemon. Sizes in bytes, durations in seconds, unless said otherwise.

    Attributes:
        config: the file that was read; None when there is none.
        worker_env: names and patterns of the variables that workers get; None: all but the daemon's own.
        queue_max: 0: no bound.
        submit_rate: jobs per second; 0: no bound.
        audit_keep: days; 0: no bound.
        secret_key: the file with the keys for secret arguments; None only when nobody has looked for its place.
    """

    tasks: tuple[str, ...]
    data_dir: Path
    config: Path | None = None
    path: tuple[str, ...] = ()
    listen: tuple[str, ...] = (LISTEN,)
    allowed_host: tuple[str, ...] = ()
    behind_proxy: bool = False
    cpu_workers: int
    threads: int = THREADS
    loop_slots: int = LOOP_SLOTS
    durability: Durability = "power"
    args_max: int = ARGS_MAX_BYTES
    queue_max: int = QUEUE_MAX
    submit_rate: float = 0.0
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
    worker_env: tuple[str, ...] | None = None
    audit: bool = True
    audit_keep: int = AUDIT_KEEP_DAYS
    secret_key: Path | None = None
    log_format: LogFormat = "auto"
    log_level: LogLevel = "info"

    @property
    def limits(self) -> Limits:
        """What an attempt in a process of its own may use when its task says nothing."""
        return Limits(self.max_rss, self.max_cpu_s, self.max_open_files, self.max_file_size)
