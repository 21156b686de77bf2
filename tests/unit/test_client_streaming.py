"""Streams over broken connections: nothing lost, nothing twice, and an end only when there is one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jobsvc.client import streaming
from jobsvc.client.core import Broken
from jobsvc.client.errors import ClientError, JobFailed, Refused, StreamBroken, Unreachable
from tests.client.scripted import CUT, JOB_ID, REFUSED, Body, job, ndjson, problem, reply, session

EVENTS = f"/v1/jobs/{JOB_ID}/events"
OUT = f"/v1/jobs/{JOB_ID}/streams/out"


def sse(*events: tuple[int | None, str, Any], tail: str = "", broken: Broken | None = None) -> Body:
    """A body of events; those numbered None carry no id."""
    text = ""
    for seq, kind, data in events:
        line = msgspec.json.encode(
            {"seq": seq or 0, "kind": kind, "data": data, "at": "2026-11-23T12:00:00.000001Z"}
        )
        text += ("" if seq is None else f"id: {seq}\n") + f"event: {kind}\ndata: {line.decode()}\n\n"
    pieces: list[bytes | Broken] = [(text + tail).encode()]
    return Body(200, {}, pieces if broken is None else [*pieces, broken])


END = (None, "end", job("succeeded", result=3))


def test_events_end_with_end() -> None:
    """One connection, all events, then it is over and the body is given back."""
    talk, player = session()
    player.play(
        streaming.events(talk, JOB_ID, kinds=("log", "end")), sse((1, "job", {}), (2, "log", {}), END)
    )
    assert [event.kind for event in player.emitted] == ["job", "log", "end"]
    assert player.emitted[-1].data["result"] == 3
    assert player.asked[0].target == EVENTS + "?kinds=log%2Cend"
    assert player.bodies[0].closed


def test_events_go_on_after_the_last_whole_one() -> None:
    """A connection broken in the middle of event 3 is opened again after event 2; `from` is asked only at first."""
    talk, player = session()
    player.play(
        streaming.events(talk, JOB_ID, from_=2),
        sse((2, "log", {"n": 2}), tail="id: 3\nevent: log\n", broken=CUT),
        REFUSED,
        sse((3, "log", {"n": 3}), END),
    )
    assert [event.seq for event in player.emitted] == [2, 3, 0]
    assert player.asked[0].target == EVENTS + "?from=2"
    assert [request.headers.get("Last-Event-ID") for request in player.asked] == [None, "2", "2"]
    assert player.asked[2].target == EVENTS


def test_a_stopping_daemon_sends_its_readers_back() -> None:
    """`reconnect`, then a clean close: the job is not done, so the stream goes on with the next daemon."""
    talk, player = session()
    player.play(
        streaming.events(talk, JOB_ID),
        sse((1, "job", {}), tail="retry: 1500\n\nevent: reconnect\ndata: {}\n\n"),
        CUT,
        reply(job("running")),
        sse(END),
    )
    assert [event.kind for event in player.emitted] == ["job", "end"]
    assert player.pauses == [0.1, 1.5]


def test_a_filter_without_end_still_ends() -> None:
    """When `end` is filtered away, the stream is over once a connection opened after the job's end has nothing more."""
    talk, player = session()
    player.play(
        streaming.events(talk, JOB_ID, kinds=["log"]),
        sse((2, "log", {})),
        reply(job("succeeded")),
        Body(204, {}, []),
    )
    assert [event.seq for event in player.emitted] == [2]
    assert player.asked[-1].headers["Last-Event-ID"] == "2"


def test_an_unknown_job_is_refused_at_once() -> None:
    """404 is no broken connection."""
    talk, player = session()
    with pytest.raises(Refused, match="not_found"):
        player.play(streaming.events(talk, JOB_ID), problem(404, "not_found"))
    assert player.pauses == []


def test_a_stream_that_never_opened_is_given_up_soon_one_that_broke_late() -> None:
    """Four tries for a daemon nobody has seen; about a minute for one that was there."""
    talk, player = session()
    with pytest.raises(Unreachable):
        player.play(streaming.events(talk, JOB_ID), *[REFUSED] * 4)
    with pytest.raises(Unreachable):
        player.play(streaming.events(talk, JOB_ID), sse((1, "job", {}), broken=CUT), *[REFUSED] * 29)


def test_what_is_no_event_is_an_error() -> None:
    """Data that is not our JSON is never passed over."""
    talk, player = session()
    with pytest.raises(ClientError, match="not the events"):
        player.play(streaming.events(talk, JOB_ID), Body(200, {}, [b"data: hello\n\n"]))


def item(seq: int, data: Any = None, epoch: int = 1, **fields: Any) -> dict[str, Any]:
    return {"seq": seq, "epoch": epoch, "data": data, **fields}


DONE = reply(job("succeeded"))


def test_values_of_a_stream_over_two_connections() -> None:
    """The second connection asks from the next number on; the end is certain only after a look at the job."""
    talk, player = session()
    player.play(
        streaming.values(talk, JOB_ID, "out", 1),
        ndjson(item(1, "a"), item(2, "b"), broken=CUT),
        ndjson(item(3, "c")),
        DONE,
        ndjson(),
        DONE,
    )
    assert player.emitted == ["a", "b", "c"]
    assert [request.target for request in player.asked if "/streams/" in request.target] == [
        OUT,
        OUT + "?from=3",
        OUT + "?from=4",
    ]


def test_values_end_as_the_job_does() -> None:
    """All values, then the failure: a reader cannot take half a stream for a whole one."""
    talk, player = session()
    failed = reply(job("failed", error={"kind": "task_error", "message": "boom"}))
    with pytest.raises(JobFailed, match="boom"):
        player.play(streaming.values(talk, JOB_ID, "out", 1), ndjson(item(1, "a")), failed, ndjson(), failed)
    assert player.emitted == ["a"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"seq": 2, "epoch": 2, "restart": True}, "restart"),
        ({"seq": 4, "kind": "gap", "data": {"from": 2, "to": 4}}, "gap"),
    ],
)
def test_values_that_do_not_follow_on_are_an_error(line: dict[str, Any], why: str) -> None:
    """What came before is handed out, then the reader is told."""
    talk, player = session()
    with pytest.raises(StreamBroken) as caught:
        player.play(streaming.values(talk, JOB_ID, "out", 1), ndjson(item(1, "a"), line, item(5, "z", 2)))
    assert player.emitted == ["a"]
    assert (caught.value.why, caught.value.seq) == (why, line["seq"])


def test_a_restart_before_the_first_value_hurts_nobody() -> None:
    """Nothing was read yet: the values of the new attempt are whole."""
    talk, player = session()
    restart = {"seq": 3, "epoch": 2, "restart": True}
    player.play(
        streaming.values(talk, JOB_ID, "out", 1), ndjson(restart, item(3, "x", 2)), DONE, ndjson(), DONE
    )
    assert player.emitted == ["x"]


def test_a_restart_while_the_connection_was_down_is_noticed() -> None:
    """The next item is of another attempt although no mark was seen: the mark is put in its place."""
    talk, player = session()
    player.play(
        streaming.items(talk, JOB_ID, "out", 1),
        ndjson(item(1, "a"), broken=CUT),
        ndjson(item(2, "b", epoch=2)),
        DONE,
        ndjson(),
        DONE,
    )
    assert [(found.seq, found.epoch, found.restart) for found in player.emitted] == [
        (1, 1, False),
        (2, 2, True),
        (2, 2, False),
    ]
