"""100 KB in, 100 KB out, on processes: in bulk, and one by one over 8 connections. Counted one way."""

from __future__ import annotations

from collections.abc import Callable

from bench import bare
from bench.bench import Bench, costs
from bench.daemon import Measured
from bench.load import Outcome
from bench.report import Bare, Figure, Goal

ECHO_BYTES = 100_000
JOBS = 400
LINES = 20
IN_FLIGHT = 4
CONNECTIONS = 8


def echo_bulk(bench: Bench) -> Figure:
    requests = bench.some(JOBS) // LINES

    def run(daemon: Measured, args: object) -> Outcome:
        body = daemon.bulk("echo", args, LINES)
        return daemon.run(daemon.plan(body, connections=IN_FLIGHT, count=requests), succeeded=LINES)

    return _measured(
        bench, run, jobs=requests * LINES, name="echo-bulk", title="100 KB echo, in bulk", floor=100e6
    )


def echo_single(bench: Bench) -> Figure:
    jobs = bench.some(JOBS)

    def run(daemon: Measured, args: object) -> Outcome:
        body = daemon.submit("echo", args, wait=True)
        return daemon.run(daemon.plan(body, connections=CONNECTIONS, count=jobs, status=201), succeeded=1)

    title = f"100 KB echo, {CONNECTIONS} connections"
    return _measured(bench, run, jobs=jobs, name="echo-single", title=title, floor=70e6)


def _measured(
    bench: Bench,
    run: Callable[[Measured, object], Outcome],
    *,
    jobs: int,
    name: str,
    title: str,
    floor: float,
) -> Figure:
    notes: list[str] = []
    with bench.daemon() as daemon:
        args = {"text": "x" * ECHO_BYTES}

        def once() -> float:
            outcome = run(daemon, args)
            if outcome.body_bytes < jobs * ECHO_BYTES:
                raise AssertionError(f"{outcome.body_bytes} bytes came back of {jobs} echoes")
            notes[:] = costs(outcome, jobs, "job")
            return jobs * ECHO_BYTES / outcome.elapsed_s

        once()
        values = bench.repeat(once)
    with bare.hello() as server:
        hello = server.echo_bytes_per_s(ECHO_BYTES, jobs, CONNECTIONS)
    return Figure(
        name=name,
        title=title,
        unit="B/s",
        better="more",
        values=values,
        bare=[Bare("Klein, posted and given back", hello)],
        floor=Goal(floor),
        aim=Goal(120e6),
        notes=notes,
    )
