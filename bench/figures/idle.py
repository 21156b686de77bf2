"""What the daemon takes when it has nothing to do: memory with its workers, processor time; and after much work."""

from __future__ import annotations

from bench import bare
from bench.bench import Bench
from bench.daemon import Measured, Usage, pss_bytes
from bench.report import Bare, Figure, Goal

SETTLE_S = 1.0
"""After the start, or after the work: what is still being put away is not idle."""
IDLE_S = 10.0
QUICK_IDLE_S = 5.0
"""Not less: processor time is counted in steps of 10 ms, 0.2 % of this."""
JOBS_BEFORE = 200_000
LINES = 5_000
IN_FLIGHT = 4


def idle_memory(bench: Bench) -> Figure:
    with bench.daemon() as daemon:
        daemon.pause(SETTLE_S)
        usage = daemon.usage()
    return _memory("idle-memory", "memory, fresh", usage, floor=140e6, aim=105e6)


def idle_cpu(bench: Bench) -> Figure:
    with bench.daemon() as daemon:
        daemon.pause(SETTLE_S)
        seconds = QUICK_IDLE_S if bench.quick else IDLE_S
        before = daemon.usage().cpu_s
        daemon.pause(seconds)
        share = 100 * (daemon.usage().cpu_s - before) / seconds
    return Figure(
        name="idle-cpu",
        title=f"CPU over {seconds:g} s idle",
        unit="%",
        better="less",
        values=[share],
        floor=Goal(0.5),
        aim=Goal(0.1),
        notes=["of one CPU, in steps of 10 ms"],
    )


def memory_after(bench: Bench) -> Figure:
    jobs = bench.some(JOBS_BEFORE)
    with bench.daemon() as daemon:
        _work(daemon, jobs)
        daemon.pause(SETTLE_S)
        usage = daemon.usage()
    return _memory("memory-after", f"memory after {jobs:,} jobs", usage, floor=200e6, aim=140e6)


def _work(daemon: Measured, jobs: int) -> None:
    body = daemon.bulk("noop", {}, LINES)
    daemon.run(daemon.plan(body, connections=IN_FLIGHT, count=jobs // LINES), succeeded=LINES)


def _memory(name: str, title: str, usage: Usage, *, floor: float, aim: float) -> Figure:
    with bare.hello() as server:
        hello = pss_bytes(server.pid)
    return Figure(
        name=name,
        title=title,
        unit="B",
        better="less",
        values=[usage.pss_bytes],
        bare=[Bare("one Klein hello process", hello)],
        floor=Goal(floor),
        aim=Goal(aim),
        notes=[f"proportional set size of {usage.processes} processes"],
    )
