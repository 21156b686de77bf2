"""From submit to result on one keep-alive connection: back to back, and 50 ms apart, when the machine was asleep."""

from __future__ import annotations

from bench import bare
from bench.bench import Bench
from bench.report import Bare, Figure, Goal, percentiles

BACK_TO_BACK = 1_000
APART = 60
PAUSE_S = 0.05
WARM_UP = 100


def back_to_back(bench: Bench) -> Figure:
    return _measured(
        bench,
        count=bench.some(BACK_TO_BACK),
        pause_s=0,
        name="latency",
        title="submit → result, back to back, p50",
        floor=Goal(0.003, p99=0.010),
        aim=Goal(0.0012),
    )


def apart(bench: Bench) -> Figure:
    return _measured(
        bench,
        count=bench.some(APART),
        pause_s=PAUSE_S,
        name="latency-idle",
        title="the same, 50 ms apart, p50",
        floor=Goal(0.005),
        aim=Goal(0.003),
    )


def _measured(
    bench: Bench, *, count: int, pause_s: float, name: str, title: str, floor: Goal, aim: Goal
) -> Figure:
    with bare.hello() as server:
        hello_s = server.latency_s(count, pause_s)
    latencies_s: list[float] = []
    with bench.daemon() as daemon:
        request = daemon.submit("noop", {}, wait=True)

        def once() -> float:
            plan = daemon.plan(request, count=count, warm_up=WARM_UP, pause_s=pause_s, status=201)
            outcome = daemon.run(plan, succeeded=1)
            latencies_s.extend(outcome.latencies_s)
            return percentiles(outcome.latencies_s).p50

        values = bench.repeat(once)
    return Figure(
        name=name,
        title=title,
        unit="s",
        better="less",
        values=values,
        bare=[Bare("Klein hello", hello_s), Bare("a byte through pipes and back", bare.pipe_trip_s())],
        floor=floor,
        aim=aim,
        latencies_s=percentiles(latencies_s),
    )
