"""Events and streams: complete, resumable, paced by the reader, with heartbeats, cut where they must not look whole."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from jobsvc.http import limits
from jobsvc.model.limits import HEARTBEAT_S
from tests.http.house import House
from tests.http.wire import Reply, Wire

NDJSON = {"Accept": "application/x-ndjson"}
BYTES = {"Accept": "application/octet-stream"}


def sse(body: bytes) -> list[dict[str, str]]:
    """Events apart; comments left out."""
    blocks = [block for block in body.decode().split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


def open_reply(wire: Wire) -> Reply:
    [reply] = wire.replies()
    assert not reply.whole
    return reply


def test_events_as_sse_from_the_start_to_the_end(house: House) -> None:
    """id, event, data; `end` carries the job and no id."""
    job = house.submit()
    wire = house.start("GET", f"/v1/jobs/{job['id']}/events")
    assert open_reply(wire).headers["content-type"] == "text/event-stream"
    start = house.worker.started[0]
    house.worker.log(start, "hello")
    house.worker.items(start, {"a": 1}, "b")
    assert [event["event"] for event in sse(open_reply(wire).body)] == ["job", "state", "log", "item", "item"]
    house.worker.succeed(start, b"9")
    events = sse(wire.reply().body)
    assert [event.get("id") for event in events] == ["1", "2", "3", "4", "5", "6", None]
    assert events[-1]["event"] == "end"
    assert '"result":9' in events[-1]["data"]
    assert '"stream":"out","n":2' in events[4]["data"]


def test_last_event_id_continues_at_the_next(house: House) -> None:
    """Nothing twice, nothing missing; at the end of a done job 204."""
    job = house.submit()
    start = house.worker.started[0]
    house.worker.items(start, 1, 2, 3)
    target = f"/v1/jobs/{job['id']}/events"
    wire = house.start("GET", target, headers={"Last-Event-ID": "3"})
    house.worker.succeed(start)
    assert [event.get("id") for event in sse(wire.reply().body)] == ["4", "5", "6", None]
    over = house.ask("GET", target, headers={"Last-Event-ID": "6"})
    assert (over.status, over.body) == (204, b"")
    garbage = house.ask("GET", target, headers={"Last-Event-ID": "x1"})
    assert (garbage.status, garbage.json()["code"]) == (400, "bad_query")


def test_a_number_from_the_future_gives_everything(house: House) -> None:
    """Rather twice than not at all."""
    job = house.submit()
    wire = house.start("GET", f"/v1/jobs/{job['id']}/events", headers=NDJSON | {"Last-Event-ID": "999"})
    assert [event["seq"] for event in open_reply(wire).lines()] == [1, 2]


def test_from_kinds_streams_and_follow(house: House) -> None:
    """`from` is inclusive; without follow an unfinished job's stream closes without `end`."""
    job = house.submit()
    start = house.worker.started[0]
    house.worker.items(start, 1, 2)
    house.worker.items(start, "s", stream="side")
    house.worker.log(start, "x")
    target = f"/v1/jobs/{job['id']}/events?follow=0"
    assert [e["seq"] for e in house.ask("GET", target, headers=NDJSON).lines()] == [1, 2, 3, 4, 5, 6]
    assert [e["seq"] for e in house.ask("GET", target + "&from=4", headers=NDJSON).lines()] == [4, 5, 6]
    logs = house.ask("GET", target + "&kinds=log,state", headers=NDJSON).lines()
    assert [e["kind"] for e in logs] == ["state", "log"]
    side = house.ask("GET", target + "&kinds=item&streams=side", headers=NDJSON).lines()
    assert [(e["data"], e["stream"], e["n"]) for e in side] == [("s", "side", 1)]
    house.worker.succeed(start)
    done = house.ask("GET", target + "&from=7", headers=NDJSON).lines()
    assert [e["kind"] for e in done] == ["state", "end"]
    only = house.ask("GET", target + "&kinds=state", headers=NDJSON).lines()
    assert {e["kind"] for e in only} == {"state"}


def test_a_page_without_what_is_wanted_is_not_the_end(house: House) -> None:
    """More output than is read at once lies before the outcome: who asks for states alone, without follow, gets it."""
    job = house.submit()
    start = house.worker.started[0]
    line = "x" * 8_000
    for _ in range(2 * limits.STREAM_READ_BYTES // len(line)):
        house.worker.log(start, line)
    target = f"/v1/jobs/{job['id']}/events?follow=0&kinds="
    running = house.ask("GET", target + "state", headers=NDJSON).lines()
    assert [event["data"]["state"] for event in running] == ["running"]
    house.worker.succeed(start)
    done = house.ask("GET", target + "state", headers=NDJSON).lines()
    assert [event["data"]["state"] for event in done] == ["running", "succeeded"]
    assert [e["kind"] for e in house.ask("GET", target + "end", headers=NDJSON).lines()] == ["end"]


@pytest.mark.parametrize(("headers", "beat"), [({}, b":\n\n"), (NDJSON, b"\n")])
def test_silence_is_filled_with_heartbeats(house: House, headers: dict[str, str], beat: bytes) -> None:
    """Every 15 s of silence, and only then."""
    job = house.submit()
    wire = house.start("GET", f"/v1/jobs/{job['id']}/events", headers=headers)
    before = open_reply(wire).body
    house.after(HEARTBEAT_S - 1)
    house.worker.items(house.worker.started[0], 1)
    spoken = open_reply(wire).body
    house.after(HEARTBEAT_S - 1)
    assert open_reply(wire).body == spoken != before
    house.after(2)
    assert open_reply(wire).body == spoken + beat
    house.after(HEARTBEAT_S)
    assert open_reply(wire).body == spoken + beat + beat


def test_a_slow_reader_holds_one_piece_and_nothing_more(house: House) -> None:
    """Paused, nothing is read for it and no heartbeat is piled up; resumed, it gets all."""
    job = house.submit()
    wire = house.start("GET", f"/v1/jobs/{job['id']}/events?kinds=item", headers=NDJSON)
    start = house.worker.started[0]
    house.worker.items(start, 1)
    wire.channel.pauseProducing()
    for n in range(2, 50):
        house.worker.items(start, n)
    house.after(HEARTBEAT_S + 1)
    assert len(open_reply(wire).lines()) <= 2
    wire.channel.resumeProducing()
    assert [event["data"] for event in open_reply(wire).lines()] == list(range(1, 50))
    house.worker.succeed(start)
    assert wire.reply().whole


def test_a_reader_that_takes_nothing_is_cut_off(house: House) -> None:
    """After the stall limit the connection is aborted; the job goes on."""
    job = house.submit()
    wire = house.start("GET", f"/v1/jobs/{job['id']}/events", headers=NDJSON)
    wire.channel.pauseProducing()
    house.after(limits.WRITE_STALL_S - limits.SWEEP_ALL_S)
    assert not wire.transport.aborted
    house.after(limits.SWEEP_ALL_S)
    wire.drop()
    house.worker.succeed(house.worker.started[0])
    assert house.ask("GET", f"/v1/jobs/{job['id']}").json()["done"] is True


def test_a_reader_that_leaves_leaves_nothing_behind(house: House) -> None:
    """No timer, no waiter."""
    job = house.submit()
    wire = house.start("GET", f"/v1/jobs/{job['id']}/events")
    wire.leave()
    assert [call for call in house.clock.getDelayedCalls() if "_beat" in repr(call)] == []
    assert house.api.edge.outlets == {}


def test_a_stop_ends_streams_with_reconnect_and_not_cleanly(house: House) -> None:
    """An SSE client comes back; nobody takes half a stream for a whole one."""
    job = house.submit()
    events = house.start("GET", f"/v1/jobs/{job['id']}/events")
    items = house.start("GET", f"/v1/jobs/{job['id']}/streams/out")
    house.api.edge.say_farewell()
    assert sse(open_reply(events).body)[-1]["event"] == "reconnect"
    assert open_reply(items).body == b""
    for wire in (events, items):
        assert wire.transport.disconnecting
        wire.leave()


def test_items_of_one_stream(house: House) -> None:
    """NDJSON by default, with numbers and epoch; SSE and bare on request."""
    job = house.submit()
    start = house.worker.started[0]
    target = f"/v1/jobs/{job['id']}/streams/out"
    live = house.start("GET", target)
    house.worker.items(start, {"a": 1}, "b")
    house.worker.items(start, 3)
    expected: list[dict[str, Any]] = [
        {"seq": 1, "epoch": 1, "data": {"a": 1}},
        {"seq": 2, "epoch": 1, "data": "b"},
        {"seq": 3, "epoch": 1, "data": 3},
    ]
    assert open_reply(live).lines() == expected
    house.worker.succeed(start)
    assert live.reply().lines() == expected
    assert house.ask("GET", target + "?from=2").lines() == expected[1:]
    assert house.ask("GET", target + "?bare=1").body == b'{"a":1}\n"b"\n3\n'
    assert house.ask("GET", target + "?bare=1&from=2").body == b'"b"\n3\n'
    events = sse(house.ask("GET", target, headers={"Accept": "text/event-stream"}).body)
    assert [(event["id"], event["event"]) for event in events] == [
        ("1", "item"),
        ("2", "item"),
        ("3", "item"),
    ]
    resumed = house.ask("GET", target, headers={"Accept": "text/event-stream", "Last-Event-ID": "2"})
    assert [event["id"] for event in sse(resumed.body)] == ["3"]


def restarted(house: House) -> tuple[str, Any]:
    """A job whose first attempt gave two items and failed, and whose second is running."""
    job = house.submit("retried", backoff={"base_s": 1})
    first = house.worker.started.pop()
    house.worker.items(first, "a", "b")
    house.worker.fail(first)
    house.after(1.5)
    return f"/v1/jobs/{job['id']}/streams/out", house.worker.started.pop()


def test_a_further_attempt_is_marked_and_bare_readers_are_cut(house: House) -> None:
    """Numbers go on; the mark says that what came before is void; bare cannot say it, so it ends uncleanly."""
    target, second = restarted(house)
    live, bare = house.start("GET", target), house.start("GET", target + "?bare=1")
    right_there = house.start("GET", target + "?from=3")
    house.worker.items(second, "c")
    mark = {"seq": 3, "epoch": 2, "restart": True}
    third = {"seq": 3, "epoch": 2, "data": "c"}
    assert open_reply(live).lines()[2:] == [mark, third]
    assert open_reply(right_there).lines() == [mark, third]
    assert open_reply(bare).body == b'"a"\n"b"\n'
    assert bare.transport.disconnecting
    bare.leave()
    house.worker.succeed(second)
    assert live.reply().whole
    assert [line["data"] for line in house.ask("GET", target).lines()] == ["c"]
    assert house.ask("GET", target + "?bare=1").body == b'"c"\n'
    everything = house.ask("GET", target + "?epoch=all").lines()
    assert [line.get("data", "restart") for line in everything] == ["a", "b", "restart", "c"]
    late = house.start("GET", target + "?bare=1&epoch=all")
    assert open_reply(late).body == b'"a"\n"b"\n'
    assert late.transport.disconnecting
    late.leave()


def test_raw_bytes(house: House) -> None:
    """Base64 items as bytes, lines of a command as text; other JSON is refused before anything is sent."""
    job = house.submit()
    start = house.worker.started.pop()
    house.worker.items(start, b64encode(b"\x00\xff").decode(), b64encode(b"end").decode())
    house.worker.succeed(start)
    assert house.ask("GET", f"/v1/jobs/{job['id']}/streams/out", headers=BYTES).body == b"\x00\xffend"
    text = house.submit("lines")
    start = house.worker.started.pop()
    house.worker.items(start, "one", "två")
    house.worker.succeed(start)
    assert house.ask("GET", f"/v1/jobs/{text['id']}/streams/out", headers=BYTES).body == "one\ntvå\n".encode()
    other = house.submit()
    house.worker.items(house.worker.started[0], {"no": "bytes"})
    reply = house.ask("GET", f"/v1/jobs/{other['id']}/streams/out", headers=BYTES)
    assert (reply.status, reply.json()["code"]) == (415, "media_type")


def test_an_error_in_the_middle_of_a_stream_cuts_it(house: House, flush_failures: Any) -> None:
    """Logged with its traceback; the client sees no clean end."""
    job = house.submit()
    wire = house.start("GET", f"/v1/jobs/{job['id']}/events", headers=NDJSON)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the disk is gone")

    house.store.chunks = broken
    house.worker.items(house.worker.started[0], 1)
    assert not open_reply(wire).whole
    assert wire.transport.disconnecting
    wire.leave()
    assert len(flush_failures(RuntimeError)) == 1


def test_a_stream_the_job_never_had_is_not_found(house: House) -> None:
    """Of a done job; `out` may be empty. Logs are events."""
    job = house.done()
    path = f"/v1/jobs/{job['id']}/streams"
    assert house.ask("GET", f"{path}/out").status == 200
    assert house.ask("GET", f"{path}/outt").status == 404
    assert "kinds=log" in house.ask("GET", f"{path}/log").json()["detail"]
