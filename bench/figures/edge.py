"""What crowds cost: memory of each connection, wake-ups among thousands, and what the others feel meanwhile.

What others feel: single submits on a few connections of their own, before the crowd is there and while it is.
"""

from __future__ import annotations

from threading import Event
from time import monotonic

import msgspec

from bench import bare
from bench.bench import Bench
from bench.crowd import Guest, Plan, crowd
from bench.daemon import Measured, cpu_s, pss_bytes
from bench.load import LoadFailed
from bench.report import Bare, Figure, Goal, Percentiles, percentiles

IDLE = 10_000
WAITERS = 10_000
WAKES = 300
WAKE_EVERY_S = 0.02
READERS = 1_000
TICKS = 20
TICK_EVERY_S = 0.5
LORISES = 500
LORIS_S = 15.0
"""Longer than the deadline of a head."""
POUR_BYTES = 1_000_000_000
POUR_ITEM_BYTES = 64 * 1024
POUR_S = 20.0
FLOOD_BYTES = 1_000_000_000
FLOOD_S = 5.0
FEELERS = 4
FELT = 400
LATER_S = 86_400
WAKE_AIM_S = 0.1
FELT_AIM = 2.0
"""Times the quiet value, p99."""


def idle(bench: Bench) -> Figure:
    guests = bench.some(IDLE)
    with bare.hello() as hello:
        fresh = pss_bytes(hello.pid)
        with crowd(Plan(host="127.0.0.1", port=hello.port, requests=[b""], guests=guests)):
            hello.latency_s(1)
            bare_bytes = (pss_bytes(hello.pid) - fresh) / guests
    with bench.daemon() as daemon:
        quiet = _felt(daemon)
        daemon.settle()
        before = pss_bytes(daemon.process.pid)
        with crowd(_plan(daemon, [b""], guests)):
            busy = _felt(daemon)  # whoever is answered after them finds them all accepted
            each = (pss_bytes(daemon.process.pid) - before) / guests
    return Figure(
        name="edge-idle",
        title=f"memory of one of {guests:,} idle connections",
        unit="B",
        better="less",
        values=[each],
        bare=[Bare("the same at a Klein hello", bare_bytes)],
        notes=[_feeling(quiet, busy)],
    )


def waiters(bench: Bench) -> Figure:
    """From the sending of a cancel to the reply of the one who waits for that job, among thousands who wait."""
    count, wakes = bench.some(WAITERS), bench.some(WAKES)
    with bench.daemon() as daemon, daemon.client() as client:
        ids = client.submit_many({"task": "noop", "delay_s": LATER_S} for _ in range(count))
        quiet = _felt(daemon)
        daemon.settle()
        before = pss_bytes(daemon.process.pid)
        requests = [daemon.request("GET", f"/v1/jobs/{job}?wait=300") for job in ids]
        woken_at: list[float] = []
        with crowd(_plan(daemon, requests, count)) as here:
            busy = _felt(daemon)
            each = (pss_bytes(daemon.process.pid) - before) / count
            for job in ids[:wakes]:
                woken_at.append(monotonic())
                client.cancel(job)
                daemon.pause(WAKE_EVERY_S)
            guests = here.leave().guests
    late_s = [guest.first_at - at for guest, at in zip(guests, woken_at, strict=False)]
    if min(late_s) < 0 or any(guest.first_at for guest in guests[wakes:]):
        raise LoadFailed("one was woken that should have waited, or one was not")
    return Figure(
        name="edge-waiters",
        title=f"cancel → its waiter's reply, {count:,} wait, p99",
        unit="s",
        better="less",
        values=[percentiles(late_s).p99],
        bare=[Bare("p50 of a submit on the quiet daemon", quiet.p50)],
        floor=Goal(WAKE_AIM_S),
        latencies_s=percentiles(late_s),
        notes=[_feeling(quiet, busy), f"{each / 1e3:.3g} kB a waiter"],
    )


def readers(bench: Bench) -> Figure:
    """From the yield in the task to the arrival at each of a thousand readers of the same job."""
    count, ticks = bench.some(READERS), bench.some(TICKS)
    with bare.fan(TICK_EVERY_S) as fan:
        plan = Plan(host="127.0.0.1", port=fan.port, requests=[b"GET\r\n"], guests=count)
        bare_s, bare_cpu_s = _told(plan, fan.pid, ticks)
    with bench.daemon() as daemon, daemon.client() as client:
        quiet = _felt(daemon)
        daemon.settle()
        before = pss_bytes(daemon.process.pid)
        job = client.submit("tick", {"count": 1_000_000, "every_s": TICK_EVERY_S})
        request = daemon.request("GET", f"/v1/jobs/{job.id}/events?from=1", Accept="text/event-stream")
        plan = _plan(daemon, [request], count)
        late_s, spent_s = _told(plan, daemon.process.pid, ticks)
        with crowd(_readers(plan)):
            each = (pss_bytes(daemon.process.pid) - before) / count
            busy = _felt(daemon)
        client.cancel(job, "now")
    return Figure(
        name="edge-readers",
        title=f"yield → each of {count:,} SSE readers, p99",
        unit="s",
        better="less",
        values=[percentiles(late_s).p99],
        bare=[Bare("p99 of a Twisted server that only writes", percentiles(bare_s).p99)],
        floor=Goal(WAKE_AIM_S),
        latencies_s=percentiles(late_s),
        notes=[
            _feeling(quiet, busy),
            f"{each / 1e3:.3g} kB a reader",
            f"{spent_s * 1e6:.3g} µs of CPU a reader and event, bare {bare_cpu_s * 1e6:.3g} µs",
        ],
    )


def _readers(plan: Plan) -> Plan:
    return msgspec.structs.replace(plan, greeted=True, marker='"data":"at ([0-9.]+)')


def _told(plan: Plan, pid: int, ticks: int) -> tuple[list[float], float]:
    """How late so many events came at each of those who read, and the processor time that each of them took."""
    with crowd(_readers(plan)) as here:
        come, before_s = monotonic(), cpu_s(pid)
        Event().wait(TICK_EVERY_S * (ticks + 1))
        lasted_s, spent_s = monotonic() - come, cpu_s(pid) - before_s
        outcome = here.leave()
    # What was said before all were there is read late by those who came later.
    late_s = outcome.late_s[-plan.guests * ticks :]
    if len(late_s) < plan.guests * ticks or any(guest.ended_at for guest in outcome.guests):
        raise LoadFailed(f"{len(late_s)} events reached {plan.guests} readers in {lasted_s:.3g} s")
    return late_s, spent_s / (plan.guests * lasted_s / TICK_EVERY_S)


def lorises(bench: Bench) -> Figure:
    """How long hundreds of connections last that send a byte a second of a head that never ends."""
    with bench.daemon() as daemon:
        quiet = _felt(daemon)
        plan = _plan(daemon, [b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "], LORISES, drip_every_s=1.0)
        with crowd(plan) as here:
            busy = _felt(daemon)
            daemon.pause(LORIS_S)
            guests = here.leave().guests
    lasted_s = [guest.ended_at - guest.began_at for guest in guests]
    if min(lasted_s) <= 0:
        raise LoadFailed(f"some of the slow ones are still there after {LORIS_S:g} s")
    return Figure(
        name="edge-loris",
        title=f"{LORISES} slow heads: until the last is closed",
        unit="s",
        better="less",
        values=[max(lasted_s)],
        floor=Goal(LORIS_S),
        notes=[_feeling(quiet, busy), f"{sum(g.status == 408 for g in guests)} were told 408"],
    )


def slow_reader(bench: Bench) -> Figure:
    """What the daemon grows by while a reader takes one byte a second of a stream of a gigabyte."""
    with bench.daemon() as daemon, daemon.client() as client:
        quiet = _felt(daemon)
        daemon.settle()
        before = pss_bytes(daemon.process.pid)
        args = {"count": POUR_BYTES // POUR_ITEM_BYTES, "size": POUR_ITEM_BYTES}
        job = client.submit("pour", args)
        request = daemon.request("GET", f"/v1/jobs/{job.id}/streams/out", Accept="application/x-ndjson")
        with crowd(_plan(daemon, [request], 1, sip_bytes=1, sip_every_s=1.0)) as here:
            most, busy = _grown(daemon, before, bench.seconds(POUR_S))
            [guest] = here.leave().guests
        if not client.get(job).done:
            client.cancel(job, "now")
    return _growth("edge-slow-reader", "memory, a reader at 1 B/s of a 1 GB stream", most, quiet, busy, guest)


def bodies(bench: Bench) -> Figure:
    """What the daemon grows by while bodies of a gigabyte are sent, one with its length and one in chunks."""
    with bench.daemon() as daemon:
        quiet = _felt(daemon)
        daemon.settle()
        before = pss_bytes(daemon.process.pid)
        told = daemon.request(
            "POST", "/v1/jobs", Content_Type="application/json", Content_Length=str(FLOOD_BYTES)
        )
        told = told.replace(b"Content-Length: 0\r\n", b"")
        chunked = daemon.request(
            "POST", "/v1/jobs", Content_Type="application/json", Transfer_Encoding="chunked"
        )
        chunked = chunked.replace(b"Content-Length: 0\r\n", b"") + b"%x\r\n" % FLOOD_BYTES
        with crowd(_plan(daemon, [told, chunked], 2, flood=True)) as here:
            most, busy = _grown(daemon, before, FLOOD_S)
            guests = here.leave().guests
    if [guest.status for guest in guests] != [413, 413]:
        raise LoadFailed(f"answered with {[guest.status for guest in guests]}, not with 413")
    taken = max(guest.sent for guest in guests)
    figure = _growth("edge-bodies", "memory, two bodies of 1 GB", most, quiet, busy, guests[0])
    figure.notes.append(f"answered 413, at most {taken / 1e6:.3g} MB were taken of one")
    return figure


def _growth(
    name: str, title: str, most: float, quiet: Percentiles, busy: Percentiles, guest: Guest
) -> Figure:
    return Figure(
        name=name,
        title=title,
        unit="B",
        better="less",
        values=[max(0.0, most)],
        notes=[_feeling(quiet, busy), f"it got {guest.received:,} bytes"],
    )


def _grown(daemon: Measured, before: int, seconds: float) -> tuple[float, Percentiles]:
    """The most that the daemon has grown by meanwhile, and what others felt."""
    busy = _felt(daemon)
    most = pss_bytes(daemon.process.pid) - before
    until = monotonic() + seconds
    while monotonic() < until:
        daemon.pause(0.2)
        most = max(most, pss_bytes(daemon.process.pid) - before)
    return most, busy


def _plan(daemon: Measured, requests: list[bytes], guests: int, **more: object) -> Plan:
    where = daemon.plan()
    return Plan(host=where.host, port=where.port, requests=requests, guests=guests, **more)  # type: ignore[arg-type]


def _felt(daemon: Measured) -> Percentiles:
    """Of single submits on connections of their own."""
    plan = daemon.plan(daemon.submit("noop", {}), connections=FEELERS, count=FELT, warm_up=50, status=201)
    return percentiles(daemon.run(plan).latencies_s)


def _feeling(quiet: Percentiles, busy: Percentiles) -> str:
    times = busy.p99 / quiet.p99
    return (
        f"others: p50 {quiet.p50 * 1e3:.3g} → {busy.p50 * 1e3:.3g} ms, p99 {quiet.p99 * 1e3:.3g} → "
        f"{busy.p99 * 1e3:.3g} ms, {times:.2f} times" + ("" if times <= FELT_AIM else f", over {FELT_AIM:g}")
    )
