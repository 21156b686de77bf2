"""F3: the truth table of executors (design section 9): what each can and cannot do, served and documented as it is."""

from __future__ import annotations

import msgspec


class ExecutorView(msgspec.Struct, frozen=True):
    """One row. `kill` says what happens to code that does not stop when asked."""

    executor: str
    may_block: bool
    parallel_cpu: bool
    cancel_takes_effect: str
    kill: str
    can_kill: bool
    use_for: str


EXECUTOR_VIEWS = (
    ExecutorView(
        executor="loop",
        may_block=False,
        parallel_cpu=False,
        cancel_takes_effect="at the next await",
        kill="only with its worker",
        can_kill=True,
        use_for="network I/O, orchestration",
    ),
    ExecutorView(
        executor="thread",
        may_block=True,
        parallel_cpu=False,
        cancel_takes_effect="when the task asks its context",
        kill="no: the thread is orphaned and its worker replaced",
        can_kill=False,
        use_for="blocking libraries, files, databases",
    ),
    ExecutorView(
        executor="process",
        may_block=True,
        parallel_cpu=True,
        cancel_takes_effect="when the task asks its context; else by a kill",
        kill="yes",
        can_kill=True,
        use_for="computation, unsafe C code",
    ),
    ExecutorView(
        executor="command",
        may_block=True,
        parallel_cpu=True,
        cancel_takes_effect="SIGTERM to its process group",
        kill="yes",
        can_kill=True,
        use_for="any program",
    ),
)
