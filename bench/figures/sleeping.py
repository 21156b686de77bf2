"""Two thousand coroutine jobs that each sleep 100 ms, in one bulk request, to the last result."""

from __future__ import annotations

from bench import bare
from bench.bench import Bench
from bench.report import Bare, Figure, Goal

JOBS = 2_000
SLEEP_S = 0.1


def sleepers(bench: Bench) -> Figure:
    with bench.daemon() as daemon:
        body = daemon.bulk("nap", {"seconds": SLEEP_S}, JOBS)

        def once() -> float:
            return daemon.run(daemon.plan(body, count=1), succeeded=JOBS).elapsed_s

        once()
        values = bench.repeat(once)
    return Figure(
        name="sleepers",
        title=f"{JOBS:,} coroutine jobs that sleep 100 ms",
        unit="s",
        better="less",
        values=values,
        bare=[Bare("the same in a bare loop", bare.sleepers_s(JOBS, SLEEP_S))],
        floor=Goal(0.6),
        aim=Goal(0.3),
    )
