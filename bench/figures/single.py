"""Single durable submits over HTTP at 32 keep-alive connections: answered once stored, and answered with the result."""

from __future__ import annotations

from bench.bench import Bench, costs
from bench.report import Bare, Figure, Goal, percentiles

CONNECTIONS = 32
RUN_S = 3.0
WARM_UP = 200


def submits(bench: Bench) -> Figure:
    return _measured(
        bench, wait=False, name="single", title="single submits, 32 connections", floor=2_000, aim=3_500
    )


def submits_with_wait(bench: Bench) -> Figure:
    return _measured(
        bench,
        wait=True,
        name="single-wait",
        title="single with Prefer: wait, 32 conn.",
        floor=2_000,
        aim=3_000,
    )


def _measured(bench: Bench, *, wait: bool, name: str, title: str, floor: float, aim: float) -> Figure:
    latencies_s: list[float] = []
    notes: list[str] = []
    with bench.daemon() as daemon:
        request = daemon.submit("noop", {}, wait=wait)

        def once() -> float:
            plan = daemon.plan(request, connections=CONNECTIONS, warm_up=WARM_UP, status=201)
            plan.seconds = bench.seconds(RUN_S)
            outcome = daemon.run(plan, succeeded=int(wait))
            daemon.settle()  # the next repetition finds no work left by this one
            latencies_s.extend(outcome.latencies_s)
            notes[:] = costs(outcome, WARM_UP + outcome.replies, "job")
            return outcome.replies / outcome.elapsed_s

        values = bench.repeat(once)
    return Figure(
        name=name,
        title=title,
        unit="/s",
        better="more",
        values=values,
        bare=[
            Bare("Klein hello", bench.hello_per_s()),
            Bare("our schema, one by one", bench.sqlite_single_per_s()),
        ],
        floor=Goal(floor),
        aim=Goal(aim),
        latencies_s=percentiles(latencies_s),
        notes=notes,
    )
