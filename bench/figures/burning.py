"""CPU jobs on two workers: what share of the computing power of bare loops they get. Those run before and after."""

from __future__ import annotations

from statistics import mean

from bench import bare
from bench.bench import Bench, costs
from bench.burning import rounds_for
from bench.report import Bare, Figure, Goal

JOBS = 1_000
JOB_S = 0.020
WORKERS = 2
BARE_LOOPS = 100
"""For each process: 2 s."""


def efficiency(bench: Bench) -> Figure:
    jobs, loops = bench.some(JOBS), bench.some(BARE_LOOPS)
    rounds = rounds_for(JOB_S)
    notes: list[str] = []
    job_per_s: list[float] = []
    with bench.daemon("--cpu-workers", str(WORKERS)) as daemon:
        body = daemon.bulk("burn", {"loops": rounds}, jobs)
        warm_up = daemon.bulk("burn", {"loops": rounds}, 2 * WORKERS)  # the daemon has never timed the task

        bare_per_s = [bare.burn_per_s(rounds, loops, WORKERS)]

        def once() -> float:
            daemon.run(daemon.plan(warm_up, count=1), succeeded=2 * WORKERS)
            outcome = daemon.run(daemon.plan(body, count=1), succeeded=jobs)
            bare_per_s.append(bare.burn_per_s(rounds, loops, WORKERS))
            job_per_s.append(jobs / outcome.elapsed_s)
            notes[:] = costs(outcome, jobs, "job")
            return 100 * job_per_s[-1] / mean(bare_per_s[-2:])

        values = bench.repeat(once)
    return Figure(
        name="cpu",
        title=f"{jobs:,} CPU jobs of 20 ms on {WORKERS} workers",
        unit="%",
        better="more",
        values=values,
        bare=[Bare("bare loops, side by side", 100)],
        floor=Goal(95),
        aim=Goal(98),
        notes=[f"{mean(job_per_s):.1f} jobs/s, {mean(bare_per_s):.1f} bare loops/s", *notes],
    )
