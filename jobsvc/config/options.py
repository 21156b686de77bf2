"""F3: what an operator can set: one table of options, from which command line, environment, file and help are made.

Each has its reason in its text. Nothing here reads the world.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from jobsvc.config.kinds import (
    HOST,
    MODULE,
    PLACE,
    SWITCH,
    TEXT,
    VARIABLE,
    WORDS,
    Kind,
    choice,
    number,
    size,
    whole,
)
from jobsvc.config.settings import LISTEN
from jobsvc.model.limits import (
    ARGS_CEILING_BYTES,
    ARGS_MAX_BYTES,
    AUDIT_KEEP_DAYS,
    CPU_MOST_S,
    DRAIN_S,
    KEEP_S,
    LOOP_SLOTS,
    OPEN_FILES_LEAST,
    OPEN_FILES_MOST,
    QUEUE_MAX,
    RSS_LEAST_BYTES,
    THREADS,
)

WORKERS_MAX: Final = 1_024
THREADS_MAX: Final = 4_096
SLOTS_MAX: Final = 1_000_000
DRAIN_MAX_S: Final = 86_400.0
KEEP_MAX_S: Final = 10 * 366 * 86_400.0
AUDIT_KEEP_MOST_DAYS: Final = 10 * 366
RECYCLE_JOBS_MAX: Final = 1_000_000_000
RECYCLE_AGE_MAX_S: Final = 366 * 86_400.0
QUEUE_MOST: Final = 1_000_000_000
SUBMIT_RATE_MOST: Final = 1_000_000.0
"""Above what any machine has."""


class Option(NamedTuple):
    """One option: its long name, what its help says, the kind of its value, whether it may be repeated.

    Attributes:
        empty: of a repeatable one, whether `[]` in a file says something; otherwise it is refused or nothing.
    """

    name: str
    doc: str
    kind: Kind
    repeat: bool = False
    flag: bool = False
    empty: bool = True

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return "JOBSVC_" + self.field.upper()

    @property
    def field(self) -> str:
        """Its name in `Config`, and its key in a file."""
        return self.name.replace("-", "_")


CONFIG: Final = Option(
    "config",
    "FILE with options, in TOML: keys are the names here, with _ for -; the command line and the environment go before "
    "it [default: jobsvc.toml of the credentials that systemd gives, in the user's folder for configuration, or in "
    "/etc/jobsvc, whichever is there first]",
    PLACE,
)
"""The one that is no key of a file."""

OPTIONS: Final[tuple[Option, ...]] = (
    CONFIG,
    Option(
        "tasks",
        "MODULE with tasks, found from the start folder (repeatable; required)",
        MODULE,
        repeat=True,
        empty=False,
    ),
    Option(
        "path",
        "DIR that goes before the start folder on the workers' import path (repeatable)",
        TEXT,
        repeat=True,
    ),
    Option(
        "listen",
        f"ENDPOINT to listen on, in Twisted's endpoint words (repeatable) [default: {LISTEN}]",
        TEXT,
        repeat=True,
        empty=False,
    ),
    Option(
        "allowed-host",
        "NAME that this server answers to, beside loopback and the address a request came in on; others are refused, "
        "or a web page could reach it under a name of its own (repeatable)",
        HOST,
        repeat=True,
    ),
    Option(
        "behind-proxy",
        "a proxy that ends TLS stands before this server, on a network that you trust: what it says of the client "
        "(X-Forwarded-For) is believed, and listening without TLS beyond this machine is allowed",
        SWITCH,
        flag=True,
    ),
    Option(
        "data-dir",
        "DIR for the database, the token and endpoint.json [default: the user's state folder]",
        PLACE,
    ),
    Option("cpu-workers", "processes for executor=process [default: usable CPUs]", whole(1, WORKERS_MAX)),
    Option("threads", f"threads for executor=thread [default: {THREADS}]", whole(1, THREADS_MAX)),
    Option(
        "loop-slots", f"coroutines at once for executor=loop [default: {LOOP_SLOTS}]", whole(1, SLOTS_MAX)
    ),
    Option(
        "durability",
        "what accepted jobs survive. power: a power cut; process: kill -9; memory: nothing [default: power]",
        choice("power", "process", "memory"),
    ),
    Option(
        "args-max",
        f"BYTES of arguments per job, K and M understood [default: {ARGS_MAX_BYTES // 1024}K]",
        size(1, ARGS_CEILING_BYTES),
    ),
    Option(
        "queue-max",
        "JOBS of one tenant that may wait; more are refused with queue_full (429) until some have been run; 0: no "
        f"bound [default: {QUEUE_MAX}]",
        whole(0, QUEUE_MOST),
    ),
    Option(
        "submit-rate",
        "JOBS per second that one tenant may submit; more are refused with rate_limited (429); 0: no bound "
        "[default: 0]",
        number(SUBMIT_RATE_MOST, "jobs per second"),
    ),
    Option(
        "drain-s",
        f"SECONDS a stop waits for running jobs [default: {DRAIN_S:g}]",
        number(DRAIN_MAX_S, "seconds"),
    ),
    Option(
        "keep-s",
        f"SECONDS a finished job is kept [default: {KEEP_S:g}, 7 days]",
        number(KEEP_MAX_S, "seconds"),
    ),
    Option(
        "max-rss",
        "BYTES of memory (512M, 2G) that a process job may use with all it starts; over it, Python gets a MemoryError, "
        "and what still grows is killed (crashed, with exit.oom). A task's limits={'max_rss': ...} goes before this; "
        "so with the next three",
        size(RSS_LEAST_BYTES),
    ),
    Option(
        "max-cpu-s",
        "SECONDS of processor time that a process job may use with all it starts; over it, it fails as crashed",
        whole(1, CPU_MOST_S),
    ),
    Option(
        "max-open-files",
        "NUMBER of files and sockets that each process of a job may have open; over it, opening fails in the job",
        whole(OPEN_FILES_LEAST, OPEN_FILES_MOST),
    ),
    Option(
        "max-file-size",
        "BYTES of the largest file that a process job may write; over it, writing fails in the job",
        size(1),
    ),
    Option(
        "launcher-prefix",
        "COMMAND before every worker and command, split into words as a shell does: a sandbox or a scope, for "
        "example 'bwrap --dev-bind / / --unshare-net'. It must hand descriptors and exit status through",
        WORDS,
    ),
    Option(
        "recycle-jobs",
        "replace a worker that has run so many JOBS, without a pause: for tasks that leave things behind; 0: never "
        "[default: 0]",
        whole(0, RECYCLE_JOBS_MAX),
    ),
    Option(
        "recycle-age",
        "replace a worker that has served for SECONDS, a tenth more or less; 0: never [default: 0]",
        number(RECYCLE_AGE_MAX_S, "seconds"),
    ),
    Option(
        "recycle-rss",
        "replace a worker that holds more than BYTES of memory, K, M and G understood, looked at every second: for "
        "tasks that leak, not a hard limit; 0: never [default: 0]",
        size(0),
    ),
    Option("reload", "watch the task modules and reload them when they change", SWITCH, flag=True),
    Option(
        "worker-env",
        "NAME of an environment variable that workers and commands get, patterns such as LC_* understood (repeatable). "
        "Given, it is the whole list, beside PATH, HOME, LANG and what else a program needs to start; not given, they "
        "get all but the daemon's own secrets",
        VARIABLE,
        repeat=True,
    ),
    Option("audit", "on or off: keep the audit log of changes and refusals [default: on]", SWITCH),
    Option(
        "audit-keep",
        "DAYS that the audit log is kept: whenever its file is full (16 MiB), those with none but older records go. "
        "No more than 17 files are kept, however young; 0: no bound but that "
        f"[default: {AUDIT_KEEP_DAYS}]",
        whole(0, AUDIT_KEEP_MOST_DAYS),
    ),
    Option(
        "secret-key",
        "FILE with the keys for secret arguments of jobs [default: the credential jobsvc-secret-keys that systemd "
        "gives, or else secret-keys in the data directory]",
        PLACE,
    ),
    Option(
        "log-format",
        "json: one object a line; human: for reading; auto: human on a terminal, otherwise json [default: auto]",
        choice("json", "human", "auto"),
    ),
    Option(
        "log-level",
        "least level that is logged: debug, info, warn, error [default: info]",
        choice("debug", "info", "warn", "error"),
    ),
)

SETTINGS: Final = tuple(option for option in OPTIONS if option is not CONFIG)
"""Those that may stand in a file."""
