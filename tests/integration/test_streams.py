"""Events and items as streams: complete, in order, resumable, in both forms, whatever the reader does."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.integration.daemon import Daemon, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.daemon import WheelEnv

TASKS = """
import os, time
from collections.abc import Iterator
from pathlib import Path
from jobsvc import Context, command, task

def wait_for(gate):
    while not Path(gate).exists():
        time.sleep(0.005)

@task(executor="process")
def talk(ctx: Context, gate: str) -> Iterator[str]:
    ctx.log("begins")
    yield "a"
    ctx.emit(1, stream="side")
    yield "b"
    ctx.progress(1, 2)
    yield "c"
    wait_for(gate)
    print("goes on")
    yield "d"
    ctx.emit(2, stream="side")
    return "end"

@task(executor="process")
def numbers(upto: int) -> Iterator[int]:
    yield from range(upto)

@task
def numbers_thread(upto: int) -> Iterator[int]:
    yield from range(upto)

@task(executor="process")
def wide(items: int, width: int) -> Iterator[str]:
    for n in range(items):
        yield str(n) + "x" * width
    Path("wide-done").touch()

@task(executor="process", retries=1, backoff={"base_s": 0})
def twice(ctx: Context) -> Iterator[str]:
    yield f"{ctx.attempt}-first"
    yield f"{ctx.attempt}-second"
    if ctx.attempt == 1:
        raise ValueError("once more")

raw = command("raw", ["sh", "-c", "printf 'one\\\\ntwo\\\\n'"])
binary = command("binary", ["sh", "-c", "head -c 300000 /dev/zero"], text=False)
"""
ITEMS = 100_000
WIDE_ITEMS = 400
WIDE_BYTES = 50_000


@pytest.fixture(scope="module")
def daemon(wheel_env: WheelEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all."""
    with running(
        Daemon(wheel_env, tmp_path_factory.mktemp("streams"), ("--cpu-workers", "2")), TASKS
    ) as started:
        yield started


def sse(reply: httpx2.Response) -> Iterator[dict[str, Any]]:
    """The events of a stream as a browser reads them: id, event, data as JSON; comments are left out."""
    fields: dict[str, Any] = {}
    for line in reply.iter_lines():
        if not line:
            if fields:
                yield fields
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = json.loads(value) if name == "data" else value


def read_sse(
    daemon: Daemon, path: str, last: str | None = None, stop_at: str | None = None
) -> list[dict[str, Any]]:
    """All events of a stream; those up to the id `stop_at` when the reader leaves there."""
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
    found = []
    with daemon.http.stream("GET", path, headers=headers) as reply:
        assert reply.status_code == 200
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        for event in sse(reply):
            found.append(event)
            if stop_at is not None and event.get("id") == stop_at:
                break
    return found


def test_events_in_both_forms_are_the_same(daemon: Daemon) -> None:
    """SSE data is the NDJSON line; the id is its number; gap and end have none."""
    daemon.open_gate("both")
    job = daemon.submit("talk", "both")["id"]
    daemon.succeeded(job)
    lines = daemon.events(job)
    events = read_sse(daemon, f"/v1/jobs/{job}/events")
    assert [event["data"] for event in events] == lines
    assert [event["event"] for event in events] == [line["kind"] for line in lines]
    assert [event.get("id") for event in events] == [str(line["seq"]) for line in lines[:-1]] + [None]
    assert [line["seq"] for line in lines[:-1]] == list(range(1, len(lines)))
    assert lines[-1]["kind"] == "end"
    assert lines[-1]["data"] == daemon.job(job)
    assert lines[-1]["data"]["result"] == "end"


def test_reader_that_comes_back_gets_exactly_what_it_missed(daemon: Daemon) -> None:
    """It leaves in the middle of a running job, comes back with Last-Event-ID, and has each event once."""
    job = daemon.submit("talk", "back")["id"]
    path = f"/v1/jobs/{job}/events"
    before = read_sse(daemon, path, stop_at="5")
    daemon.open_gate("back")
    after = read_sse(daemon, path, last="5")
    daemon.succeeded(job)
    assert [event["data"] for event in before + after] == daemon.events(job)
    last = max(int(event["id"]) for event in after if "id" in event)
    gone = daemon.get(path, headers={"Accept": "text/event-stream", "Last-Event-ID": str(last)})
    assert (gone.status_code, gone.content) == (204, b"")


def test_reader_of_items_comes_back(daemon: Daemon) -> None:
    """The same for one stream, in both forms."""
    job = daemon.submit("talk", "items-back")["id"]
    path = f"/v1/jobs/{job}/streams/out"
    with closing(daemon.lines(path)) as items:
        first = [next(items), next(items)]
    before = read_sse(daemon, path, stop_at="2")
    daemon.open_gate("items-back")
    rest = list(daemon.lines(path, params={"from": 3}))
    assert [item["data"] for item in first + rest] == ["a", "b", "c", "d"]
    assert [item["seq"] for item in first + rest] == [1, 2, 3, 4]
    after = read_sse(daemon, path, last="2")
    assert [event["data"] for event in before + after] == first + rest


def test_choice_of_events(daemon: Daemon) -> None:
    """from, kinds, streams and follow=0."""
    job = daemon.submit("talk", "choice")["id"]
    daemon.first_item(job)
    unfinished = [line["kind"] for line in daemon.lines(f"/v1/jobs/{job}/events", params={"follow": 0})]
    assert unfinished[:2] == ["job", "state"]
    assert "end" not in unfinished
    daemon.open_gate("choice")
    everything = daemon.events(job) if daemon.succeeded(job) else []
    assert daemon.events(job, **{"from": 4}) == everything[3:]
    states = daemon.events(job, kinds="state,end")
    assert states == [event for event in everything if event["kind"] in {"state", "end"}]
    side = daemon.events(job, streams="side", kinds="item")
    assert [(event["n"], event["data"]) for event in side] == [(1, 1), (2, 2)]
    assert [item["data"] for item in daemon.lines(f"/v1/jobs/{job}/streams/side")] == [1, 2]
    assert daemon.get(f"/v1/jobs/{job}/streams/nothing").status_code == 404


def test_bare_items(daemon: Daemon) -> None:
    """bare=1: the values alone; a command's lines as text or bytes by Accept."""
    job = daemon.submit("numbers", 5)["id"]
    assert daemon.get(f"/v1/jobs/{job}/streams/out?bare=1").text == "0\n1\n2\n3\n4\n"
    assert daemon.get(f"/v1/jobs/{job}/streams/out?bare=1&from=4").text == "3\n4\n"
    bytes_ = {"Accept": "application/octet-stream"}
    lines = daemon.submit("raw")["id"]
    assert daemon.get(f"/v1/jobs/{lines}/streams/out", headers=bytes_).content == b"one\ntwo\n"
    assert daemon.get(f"/v1/jobs/{lines}/streams/out?bare=1").text == '"one"\n"two"\n'
    zeros = daemon.submit("binary")["id"]
    assert daemon.get(f"/v1/jobs/{zeros}/streams/out", headers=bytes_).content == bytes(300_000)


@pytest.mark.parametrize("task", ["numbers", "numbers_thread"])
def test_a_hundred_thousand_items(daemon: Daemon, task: str) -> None:
    """All arrive, in order, once, live and again afterwards."""
    job = daemon.submit(task, ITEMS)["id"]
    path = f"/v1/jobs/{job}/streams/out"
    with daemon.http.stream("GET", path, params={"bare": 1}) as live:
        assert [int(line) for line in live.iter_lines() if line] == list(range(ITEMS))
    daemon.succeeded(job)
    numbered = list(daemon.lines(path))
    assert [item["seq"] for item in numbered] == list(range(1, ITEMS + 1))
    assert [item["data"] for item in numbered] == list(range(ITEMS))
    assert [event["n"] for event in daemon.events(job, kinds="item")] == list(range(1, ITEMS + 1))


def test_slow_reader_does_not_stop_a_kept_stream(daemon: Daemon) -> None:
    """One reads the head and nothing more; 20 MB are produced all the same, and are all there when it goes on."""
    job = daemon.submit("wide", WIDE_ITEMS, WIDE_BYTES)["id"]
    with closing(daemon.lines(f"/v1/jobs/{job}/streams/out")) as items:
        first = next(items)
        daemon.succeeded(job)
        assert (daemon.folder / "wide-done").exists()
        rest = list(items)
    assert [item["seq"] for item in [first, *rest]] == list(range(1, WIDE_ITEMS + 1))
    assert rest[-1]["data"].startswith(f"{WIDE_ITEMS - 1}x")


def test_two_attempts(daemon: Daemon) -> None:
    """A finished job shows the items of the attempt that made the outcome; epoch=all shows both and the seam."""
    job = daemon.submit("twice")["id"]
    daemon.succeeded(job)
    path = f"/v1/jobs/{job}/streams/out"
    assert list(daemon.lines(path)) == [
        {"seq": 3, "epoch": 2, "data": "2-first"}, {"seq": 4, "epoch": 2, "data": "2-second"},
    ]  # fmt: skip
    assert list(daemon.lines(path, params={"epoch": "all"})) == [
        {"seq": 1, "epoch": 1, "data": "1-first"}, {"seq": 2, "epoch": 1, "data": "1-second"},
        {"seq": 3, "epoch": 2, "restart": True},
        {"seq": 3, "epoch": 2, "data": "2-first"}, {"seq": 4, "epoch": 2, "data": "2-second"},
    ]  # fmt: skip
    assert daemon.get(path, params={"bare": 1}).text == '"2-first"\n"2-second"\n'
    with pytest.raises(httpx2.TransportError):
        daemon.get(path, params={"bare": 1, "epoch": "all"})


def test_reader_with_a_choice_misses_nothing_of_a_job_that_is_just_ending(daemon: Daemon) -> None:
    """The job ends while the reader looks at a page of which it wants nothing: what follows still comes."""
    daemon.open_gate("ending")
    for _ in range(100):
        job = daemon.submit("talk", "ending")["id"]
        logs = [
            event["data"]["message"]
            for event in daemon.events(job, kinds="log,end")
            if event["kind"] == "log"
        ]
        assert logs == ["begins", "goes on"]
        job = daemon.submit("numbers_thread", 3)["id"]
        assert [item["data"] for item in daemon.lines(f"/v1/jobs/{job}/streams/out")] == [0, 1, 2]


def test_submit_and_stream_in_one_request(daemon: Daemon) -> None:
    """Accept of a submit: the event `job` first, then all to the end; as SSE too."""
    events = list(daemon.lines("/v1/jobs", method="POST", json={"task": "numbers", "args": [3]}))
    assert [event["kind"] for event in events][:2] == ["job", "state"]
    assert [event["data"] for event in events if event["kind"] == "item"] == [0, 1, 2]
    assert (events[-1]["kind"], events[-1]["data"]["state"]) == ("end", "succeeded")
    with daemon.http.stream(
        "POST", "/v1/jobs", json={"task": "numbers", "args": [2]}, headers={"Accept": "text/event-stream"}
    ) as reply:
        assert reply.status_code == 201
        assert reply.headers["Location"].startswith("/v1/jobs/")
        found = list(sse(reply))
    assert [event["event"] for event in found if event["event"] != "state"] == ["job", "item", "item", "end"]


def test_wait_of_a_submit(daemon: Daemon) -> None:
    """Prefer: wait gives the outcome; call gives the bare result; a wait that is over says so."""
    body = {"task": "numbers", "args": [1]}
    done = daemon.post("/v1/jobs", json=body, headers={"Prefer": "wait=30"})
    assert (done.status_code, done.json()["done"], done.headers["Preference-Applied"]) == (
        201,
        True,
        "wait=30",
    )
    over = daemon.post("/v1/tasks/talk/call", json=["call-gate"], headers={"Prefer": "wait=0"})
    assert (over.status_code, over.json()["code"]) == (504, "wait_over")
    daemon.open_gate("call-gate")
    result = daemon.get(over.headers["Location"] + "/result", params={"wait": 30})
    assert (result.status_code, result.json()) == (200, "end")
    called = daemon.post("/v1/tasks/talk/call", json={"gate": "call-gate"})
    assert (called.status_code, called.json()) == (200, "end")
