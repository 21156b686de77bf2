"""F3: the truth table of executors (design section 9): what each can and cannot do, served and documented as it is."""

from __future__ import annotations

from typing import Any

import msgspec

from jobsvc.model.task import CANNOT_KILL, ExecutorName


class ExecutorView(msgspec.Struct, frozen=True):
    """One row. `kill` says what happens to code that does not stop when asked."""

    executor: str
    may_block: bool
    parallel_cpu: bool
    cancel_takes_effect: str
    kill: str
    use_for: str
    can_kill: bool


def _row(executor: ExecutorName, **row: Any) -> ExecutorView:
    return ExecutorView(executor=executor, can_kill=executor not in CANNOT_KILL, **row)


EXECUTOR_VIEWS = (
    _row(
        "loop",
        may_block=False,
        parallel_cpu=False,
        cancel_takes_effect="at the next await",
        kill="only with its worker",
        use_for="network I/O, orchestration",
    ),
    _row(
        "thread",
        may_block=True,
        parallel_cpu=False,
        cancel_takes_effect="when the task asks its context",
        kill="no: the thread is orphaned and its worker replaced",
        use_for="blocking libraries, files, databases",
    ),
    _row(
        "process",
        may_block=True,
        parallel_cpu=True,
        cancel_takes_effect="when the task asks its context; else by a kill",
        kill="yes",
        use_for="computation, unsafe C code",
    ),
    _row(
        "command",
        may_block=True,
        parallel_cpu=True,
        cancel_takes_effect="SIGTERM to its process group",
        kill="yes",
        use_for="any program",
    ),
)
