"""What a person sees while a run goes on: an estimate at its start, then a line now and then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Final, TextIO

from tests.torture.plan import Plan

EVERY_S: Final = 30.0
"""Between two lines: a night gives about a thousand."""
OPERATIONS_PER_S: Final = 150
"""Of all clients together, about; an operation is two lines of history."""
LINE_BYTES: Final = 200
OPERATION_BYTES: Final = 650
"""Of memory, while the checks look at it."""
LINES_OF_A_JOB: Final = 14
"""What a job says of itself, in the mean of all kinds."""
DATA_BYTES: Final = 4_000
"""Of a job in the database, with its events."""
READ_S: Final = 0.01
"""Per job, at the end: the listing twice, its attempts, its events."""


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def estimate(plan: Plan) -> str:
    """About how long this plan takes and how much it writes, in one line."""
    seconds = plan.load_s + READ_S * len(plan.jobs)
    operations = OPERATIONS_PER_S * plan.load_s
    lines = 2 * operations + LINES_OF_A_JOB * len(plan.jobs)
    memory_mib = operations * OPERATION_BYTES / (1 << 20)
    mib = (lines * LINE_BYTES + DATA_BYTES * len(plan.jobs)) / (1 << 20)
    return (
        f"seed {plan.seed}: {len(plan.jobs)} jobs, {len(plan.deeds)} deeds, {plan.planned_kills} of them kills;"
        f" about {clock(seconds)}, {mib:.0f} MiB of disk and {memory_mib:.0f} MiB of memory."
        " Ctrl-C ends it early, with a report of what was"
    )


class Progress:
    """Says every so often, on a thread of its own, what `words` then gives."""

    def __init__(self, words: Callable[[], str], out: TextIO, every_s: float = EVERY_S) -> None:
        self._words = words
        self._out = out
        self._every_s = every_s
        self._over = threading.Event()
        self._began = monotonic()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self.say(self._words())

    def say(self, words: str) -> None:
        """One line, with the time that has passed."""
        self._out.write(f"{clock(monotonic() - self._began)} {words}\n")
        self._out.flush()
