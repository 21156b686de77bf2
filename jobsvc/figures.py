"""F3: figures from all rooms of a daemon, put together for the metrics and for a dump. No room knows another."""

from __future__ import annotations

from collections import Counter
from typing import Any

from jobsvc.dump import timers
from jobsvc.engine.engine import Engine
from jobsvc.http.metrics import Metrics
from jobsvc.logs.takeover import Log
from jobsvc.pool.supervision import Pool
from jobsvc.runtime.watchdog import Turns
from jobsvc.store.face import StoreFace
from jobsvc.store.figures import StoreFigures


def add_metrics(metrics: Metrics, store: StoreFigures, turns: Turns, log: Log | None) -> None:
    """Hand the edge what is read when the text is made; runs once, at the start."""
    metrics.add_histogram("reactor_turn_seconds", "Time between two polls of the reactor.", turns.lengths)
    metrics.add_total("reactor_stalls", "Turns of the reactor over 50 ms.", (), lambda: {(): turns.stalls})
    metrics.add_histogram(
        "store_commit_seconds", "From taking a group of calls to its commit.", store.commit_s
    )
    metrics.add_histogram("store_group_calls", "Calls that shared one commit.", store.group_calls)
    if log is not None:
        metrics.add_total(
            "log_lines",
            "Lines of the log.",
            ("level",),
            lambda: {(level,): n for level, n in log.counts.items()},
        )
        metrics.add_total(
            "log_dropped_lines",
            "Lines that nobody took, or that were held back in a flood.",
            (),
            lambda: {(): log.dropped},
        )


def gauges(pool: Pool, store: StoreFace) -> dict[tuple[str, ...], float]:
    """(name, label…) → figure, as they stand. Runs on: the reactor."""
    states = Counter(pool.states())
    return {
        **{("module_broken", module.name): int(module.broken is not None) for module in pool.modules()},
        **{("workers", *key): count for key, count in states.items()},
        ("store_waiting_calls",): store.waiting_calls,
        ("store_reads",): store.reads,
        ("store_last_commit_seconds",): store.figures.last_commit_s,
    }


def picture(engine: Engine, pool: Pool, store: StoreFace, reactor: Any) -> dict[str, Any]:
    """How things stand, by room, for a dump. Runs on: the reactor."""
    board = engine.board
    return {
        "jobs": {"active": len(board.active), "waiters": engine.bus.waiters, **board.running},
        "seats": {
            name: f"{seat.used} handed over {len(seat.outstanding)} orphans {len(seat.orphans)}"
            for name, seat in board.seats.items()
        },
        "workers": pool.workers(),
        "store": {
            "calls waiting": store.waiting_calls,
            "reads": store.reads,
            "last commit took": f"{store.figures.last_commit_s:.6f} s",
        },
        "timers": timers(reactor.getDelayedCalls()),
        "counters": {" ".join(name): count for name, count in engine.counters.items()},
    }
