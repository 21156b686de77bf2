"""What each level of durability costs: single and bulk submits with `process` and `memory`, beside the default `power`.

The bare limit is the same figure with `power`, measured just before: the ratio says how many times faster it goes
without the flush of every commit (`process`), or without any file (`memory`).
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from bench.bench import Bench
from bench.daemon import Measured
from bench.figures.bulk import IN_FLIGHT, LINES
from bench.figures.single import CONNECTIONS, WARM_UP
from bench.report import Bare, Figure

RUN_S = 3.0
REQUESTS = 8

Measure = Callable[[Bench, Measured], float]


def single_process(bench: Bench) -> Figure:
    return _beside_power(bench, "single", "process", "/s", _single)


def single_memory(bench: Bench) -> Figure:
    return _beside_power(bench, "single", "memory", "/s", _single)


def bulk_process(bench: Bench) -> Figure:
    return _beside_power(bench, "bulk", "process", " jobs/s", _bulk)


def bulk_memory(bench: Bench) -> Figure:
    return _beside_power(bench, "bulk", "memory", " jobs/s", _bulk)


def _single(bench: Bench, daemon: Measured) -> float:
    plan = daemon.plan(daemon.submit("noop", {}), connections=CONNECTIONS, warm_up=WARM_UP, status=201)
    plan.seconds = bench.seconds(RUN_S)
    outcome = daemon.run(plan)
    daemon.settle()
    return outcome.replies / outcome.elapsed_s


def _bulk(bench: Bench, daemon: Measured) -> float:
    requests = bench.some(REQUESTS)
    body = daemon.bulk("noop", {}, LINES)
    outcome = daemon.run(daemon.plan(body, connections=IN_FLIGHT, count=requests), succeeded=LINES)
    return LINES * requests / outcome.elapsed_s


def _beside_power(bench: Bench, what: str, level: str, unit: str, measure: Measure) -> Figure:
    def values(durability: str) -> list[float]:
        with bench.daemon("--durability", durability) as daemon:
            measure(bench, daemon)  # the first run finds empty caches and new files
            return bench.repeat(lambda: measure(bench, daemon))

    power = values("power")
    return Figure(
        name=f"{what}-{level}",
        title=f"{what} submits, durability {level}",
        unit=unit,
        better="more",
        values=values(level),
        bare=[Bare("the same with durability power", median(power))],
    )
