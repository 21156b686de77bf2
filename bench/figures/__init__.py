"""The figures of the table, one function each. `ALL` is the order in which they are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.bench import Bench
from bench.figures import (
    bulk,
    burning,
    durability,
    edge,
    idle,
    latency,
    payload,
    recovery,
    single,
    sleeping,
    streaming,
)
from bench.report import Figure

Measure = Callable[[Bench], Figure]

ALL: Mapping[str, Measure] = {
    "idle-memory": idle.idle_memory,
    "idle-cpu": idle.idle_cpu,
    "memory-after": idle.memory_after,
    "single": single.submits,
    "single-wait": single.submits_with_wait,
    "latency": latency.back_to_back,
    "latency-idle": latency.apart,
    "bulk": bulk.raw,
    "client-map": bulk.client_map,
    "client-submit-many": bulk.client_submit_many,
    "client-executor": bulk.client_executor,
    "cpu": burning.efficiency,
    "sleepers": sleeping.sleepers,
    "echo-bulk": payload.echo_bulk,
    "echo-single": payload.echo_single,
    "stream": streaming.out_stream,
    "worker-killed": recovery.worker_killed,
    "daemon-killed": recovery.daemon_killed,
    "daemon-killed-many": recovery.daemon_killed_many,
    "drain": recovery.drain,
    "single-process": durability.single_process,
    "single-memory": durability.single_memory,
    "bulk-process": durability.bulk_process,
    "bulk-memory": durability.bulk_memory,
}

EDGE: Mapping[str, Measure] = {
    "edge-idle": edge.idle,
    "edge-waiters": edge.waiters,
    "edge-readers": edge.readers,
    "edge-loris": edge.lorises,
    "edge-slow-reader": edge.slow_reader,
    "edge-bodies": edge.bodies,
}
"""Crowds at the door: measured by themselves, as each takes thousands of connections."""
