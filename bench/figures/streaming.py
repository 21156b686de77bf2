"""Small items from a process task to an HTTP reader, live: the task begins when the reader is there."""

from __future__ import annotations

from uuid import uuid4

from bench import bare
from bench.bench import Bench, costs
from bench.report import Bare, Figure, Goal

ITEMS = 300_000


def out_stream(bench: Bench) -> Figure:
    items = bench.some(ITEMS)
    notes: list[str] = []
    with bench.daemon() as daemon, daemon.client() as client:

        def once() -> float:
            gate = daemon.data_dir.parent / f"gate-{uuid4().hex}"
            job = client.submit("count_up", {"upto": items, "gate": str(gate)})
            read = daemon.request("GET", f"/v1/jobs/{job.id}/streams/out", Accept="application/x-ndjson")
            outcome = daemon.run(daemon.plan(read, count=1, marker=b'"data":', marks=items, gate=str(gate)))
            notes[:] = costs(outcome, items, "item")
            return items / outcome.elapsed_s

        values = bench.repeat(once)
    return Figure(
        name="stream",
        title="out stream, process → HTTP reader",
        unit=" items/s",
        better="more",
        values=values,
        bare=[Bare("the same through a pipe", bare.pipe_items_per_s(items))],
        floor=Goal(100_000),
        aim=Goal(300_000),
        notes=notes,
    )
