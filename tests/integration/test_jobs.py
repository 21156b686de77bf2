"""Single jobs on every executor: results, streams, output, errors, limits, order, timeouts, retries, keys, cancels."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.daemon import Daemon, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import StartDaemon
    from tests.integration.daemon import WheelEnv

TASKS = """
import asyncio, ctypes, os, subprocess, sys, threading, time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.task import deferLater
from jobsvc import Cancelled, Context, command, task

@dataclass
class Point:
    x: float
    y: float = 0.0

def wait_for(gate):
    while not Path(gate).exists():
        time.sleep(0.005)

# -- the stranger's module

def later(value):
    return deferLater(reactor, 0.01, lambda: value)

@task
async def gathered(n: int) -> list[int]:
    async def by_asyncio(value):
        await asyncio.sleep(0.01)
        return value
    async def by_twisted(value):
        return await later(value)
    def named():
        from twisted.internet import reactor
        return gatherResults([later(-1), succeed(-2)])
    values = await asyncio.gather(*(by_asyncio(i) if i % 2 else by_twisted(i) for i in range(n)))
    async with asyncio.TaskGroup() as group:
        more = [group.create_task(by_twisted(n)), group.create_task(by_asyncio(n + 1))]
    last = await asyncio.wait_for(by_twisted(n + 2), 30)
    return values + [t.result() for t in more] + [last] + await named()

@task
def plain(a: int, b: int = 2) -> int:
    return a * b

@task(executor="loop")
def deferred(value: int) -> Any:
    return later(value)

@task
def lines(upto: int) -> Iterator[int]:
    for n in range(upto):
        yield n
    return "sum of lines"

@task
async def ticks(upto: int) -> AsyncIterator[int]:
    for n in range(upto):
        await asyncio.sleep(0)
        yield n

@task(executor="process")
def cube(point: Point, when: datetime) -> dict:
    return {"volume": point.x ** 3, "year": when.year, "pid": os.getpid()}

@task(executor="process")
def squares(upto: int) -> Iterator[int]:
    for n in range(upto):
        yield n * n

count = command("count", ["sh", "-c", "for i in $(seq $0); do echo line $i; done; echo done >&2", "{upto}"])
shell = command("shell", ["sh", "-c", "{script}"], ok_codes=[0, 3])

# -- output

@task
async def print_loop(word: str) -> None:
    print(word, "coroutine")
    async def child():
        await asyncio.sleep(0.01)
        print(word, "child")
    await asyncio.gather(child(), asyncio.create_task(child()))
    await asyncio.to_thread(print, word, "to_thread")

@task
def print_thread(word: str) -> None:
    print(word, "thread")
    print(word, "error", file=sys.stderr)

@task(executor="process")
def print_process(word: str) -> None:
    print(word, "process")
    subprocess.run(["sh", "-c", f"echo {word} subprocess; echo {word} suberror >&2"], check=True)
    os.write(1, f"{word} descriptor\\n".encode())
    thread = threading.Thread(target=print, args=(word, "its thread"))
    thread.start()
    thread.join()

@task
def speak(ctx: Context) -> None:
    ctx.progress(1, 2, "half")
    ctx.log("said", level="warning", a=1, b=["x"])
    ctx.emit({"k": 1})
    ctx.emit("elsewhere", stream="side")
    ctx.progress(2, 2)

# -- errors

class Unhappy(Exception):
    pass

@task(executor="process")
def fail_process(word: str) -> None:
    raise Unhappy(f"no {word}")

@task
def fail_thread(word: str) -> None:
    try:
        raise KeyError(word)
    except KeyError as error:
        raise Unhappy("again") from error

@task
async def fail_loop(word: str) -> None:
    await asyncio.sleep(0)
    raise Unhappy(word)

@task
def unserialisable() -> Any:
    return object()

@task(executor="process")
def too_large(n: int) -> str:
    return "x" * n

@task(executor="process")
def echo(value: Any) -> Any:
    return value

@task(retries=3, backoff={"base_s": 0.01})
def third_time(ctx: Context) -> int:
    if ctx.attempt < 3:
        raise Unhappy(str(ctx.attempt))
    return ctx.attempt

# -- waiting

@task(concurrency=2)
async def few(ctx: Context, gate: str) -> None:
    ctx.emit("in")
    while not Path(gate).exists():
        await asyncio.sleep(0.01)

@task(executor="process")
def held(ctx: Context, gate: str) -> None:
    ctx.emit(os.getpid())
    wait_for(gate)

@task
def held_thread(ctx: Context, gate: str) -> None:
    ctx.emit("in")
    wait_for(gate)

@task
async def held_loop(ctx: Context, gate: str) -> None:
    ctx.emit("in")
    while not Path(gate).exists():
        await asyncio.sleep(0.01)

held_command = command("held_command", ["sh", "-c", "echo in; until [ -e $0 ]; do sleep 0.02; done", "{gate}"])

@task
def ask_thread(ctx: Context) -> None:
    ctx.emit("in")
    while not ctx.cancelled:
        time.sleep(0.005)
    raise Cancelled

@task(executor="process")
def ask_process(ctx: Context) -> None:
    ctx.emit("in")
    while not ctx.cancelled:
        time.sleep(0.005)
    raise Cancelled

@task(executor="process")
def order(ctx: Context, n: int) -> int:
    return time.monotonic_ns()
"""


@pytest.fixture(scope="module")
def daemon(wheel_env: WheelEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all that leave it as they found it."""
    options = ("--cpu-workers", "2", "--args-max", "2M")
    with running(Daemon(wheel_env, tmp_path_factory.mktemp("jobs"), options), TASKS) as started:
        yield started


def result(daemon: Daemon, task: str, *args: Any, **fields: Any) -> Any:
    """The result of one job."""
    return daemon.succeeded(daemon.submit(task, *args, **fields)["id"])


def items(daemon: Daemon, job_id: str) -> list[Any]:
    """The data of all items of `out`."""
    return [item["data"] for item in daemon.lines(f"/v1/jobs/{job_id}/streams/out")]


def printed(daemon: Daemon, job_id: str) -> set[tuple[str, str]]:
    """(source, message) of all log events of a job that is done."""
    daemon.done(job_id)
    return {(e["data"]["source"], e["data"]["message"]) for e in daemon.events(job_id, kinds="log")}


def failure(daemon: Daemon, job_id: str) -> dict[str, Any]:
    """The error of a job that fails."""
    job = daemon.done(job_id)
    assert job["state"] == "failed", job
    error: dict[str, Any] = job["error"]
    return error


# -- executors ----------------------------------------------------------------------------------------------------


def test_coroutine_awaits_asyncio_and_deferreds(daemon: Daemon) -> None:
    """gather, TaskGroup and wait_for over code that awaits either."""
    assert result(daemon, "gathered", 6) == [*range(9), -1, -2]


def test_plain_functions(daemon: Daemon) -> None:
    """A thread; a Deferred on the loop; arguments by name and by position."""
    assert result(daemon, "plain", 21) == 42
    reply = daemon.post("/v1/jobs", json={"task": "plain", "args": {"b": 3, "a": 5}})
    assert daemon.succeeded(reply.json()["id"]) == 15
    assert result(daemon, "deferred", 7) == 7


def test_process_with_typed_arguments(daemon: Daemon) -> None:
    """A dataclass and a datetime arrive as such."""
    made = result(daemon, "cube", {"x": 2}, "2030-01-31T08:00:00Z")
    assert (made["volume"], made["year"]) == (8, 2030)
    assert made["pid"] in {row["pid"] for row in daemon.workers("cpu")}


@pytest.mark.parametrize("task", ["lines", "ticks", "squares"])
def test_generators_stream(daemon: Daemon, task: str) -> None:
    """Each yield is an item of out; what is returned is the result."""
    job = daemon.submit(task, 50)["id"]
    assert items(daemon, job) == [n * n if task == "squares" else n for n in range(50)]
    assert daemon.succeeded(job) == ("sum of lines" if task == "lines" else None)


def test_command(daemon: Daemon) -> None:
    """Lines of stdout are items, lines of stderr the log, the result its status; another code is crashed."""
    job = daemon.submit("count", 3)["id"]
    assert items(daemon, job) == ["line 1", "line 2", "line 3"]
    assert daemon.succeeded(job) == {"code": 0}
    assert printed(daemon, job) == {("stderr", "done")}
    assert result(daemon, "shell", "exit 3") == {"code": 3}
    error = failure(daemon, daemon.submit("shell", "echo oh no >&2; exit 4")["id"])
    assert (error["kind"], error["exit"]["code"]) == ("crashed", 4)
    assert "oh no" in error["message"]
    killed = failure(daemon, daemon.submit("shell", "kill -SEGV $$")["id"])
    assert killed["exit"]["name"] == "SIGSEGV"


# -- output -------------------------------------------------------------------------------------------------------


def test_printed_lines_find_their_job(daemon: Daemon) -> None:
    """From a coroutine, its child tasks, threads, a process, its subprocess, a bare descriptor; of two jobs at once."""
    jobs = {
        (task, word): daemon.submit(task, word)["id"]
        for task in ("print_loop", "print_thread", "print_process")
        for word in ("red", "blue")
    }
    wanted = {
        "print_loop": [("stdout", "coroutine"), ("stdout", "child"), ("stdout", "to_thread")],
        "print_thread": [("stdout", "thread"), ("stderr", "error")],
        "print_process": [("stdout", "process"), ("stdout", "subprocess"), ("stderr", "suberror"),
                          ("stdout", "descriptor"), ("stdout", "its thread")],
    }  # fmt: skip
    for (task, word), job in jobs.items():
        assert printed(daemon, job) == {(source, f"{word} {what}") for source, what in wanted[task]}, task


def test_progress_log_and_emit(daemon: Daemon) -> None:
    """What the context says is in the events, in order, before the outcome; the last progress always arrives."""
    job = daemon.submit("speak")["id"]
    assert daemon.done(job)["progress"] == {"n": 2, "of": 2, "note": None}
    events = daemon.events(job)
    assert [event["seq"] for event in events[:-1]] == list(range(1, len(events)))
    logs = [event["data"] for event in events if event["kind"] == "log"]
    assert logs == [{"level": "warning", "message": "said", "fields": {"a": 1, "b": ["x"]}, "source": "task"}]
    found = [(event["stream"], event["n"], event["data"]) for event in events if event["kind"] == "item"]
    assert sorted(found) == [("out", 1, {"k": 1}), ("side", 1, "elsewhere")]
    assert [event["data"]["n"] for event in events if event["kind"] == "progress"][-1] == 2
    assert [event["kind"] for event in events[-2:]] == ["state", "end"]


# -- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["fail_process", "fail_thread", "fail_loop"])
def test_errors_carry_the_remote_traceback(daemon: Daemon, task: str) -> None:
    """Type, message, and a traceback of the author's code alone."""
    error = failure(daemon, daemon.submit(task, "luck")["id"])
    assert (error["kind"], error["type"]) == ("task_error", "tasks_under_test.Unhappy")
    assert error["message"] in {"no luck", "again", "luck"}
    assert "raise Unhappy" in error["traceback"]
    assert "tasks_under_test.py" in error["traceback"]
    assert "jobsvc/worker" not in error["traceback"]
    assert ("KeyError" in error["traceback"]) == (task == "fail_thread")
    assert error["where"]["executor"] == task.removeprefix("fail_")


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"task": "plain", "args": ["x"]}, "invalid_args", "/args/0"),
        ({"task": "plain", "args": {"a": "x"}}, "invalid_args", "/args/a"),
        ({"task": "plain", "args": {}}, "invalid_args", "/args/a"),
        ({"task": "plain", "args": {"a": 1, "c": 2}}, "invalid_args", "/args/c"),
        ({"task": "plain", "args": [1, 2, 3]}, "invalid_args", "/args/2"),
        ({"task": "cube", "args": [{"x": "wide"}, "2030-01-31T08:00:00Z"]}, "invalid_args", "/args/0/x"),
        ({"task": "plain", "args": [1], "retries": -1}, "invalid_field", "/retries"),
        ({"task": "plain", "args": [1], "color": 1}, "invalid_field", "/color"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_stored(
    daemon: Daemon, body: dict[str, Any], code: str, pointer: str
) -> None:
    """422 that names the place; no job appears."""
    before = daemon.get("/v1/jobs?limit=1").json()["jobs"]
    refused = daemon.post("/v1/jobs", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, code), refused.text
    assert refused.headers["Content-Type"].startswith("application/problem+json")
    assert pointer in [error["pointer"] for error in refused.json()["errors"]], refused.json()["errors"]
    assert daemon.get("/v1/jobs?limit=1").json()["jobs"] == before


def test_unserialisable_and_too_large_results(daemon: Daemon) -> None:
    """Kinds of their own, not retried."""
    assert failure(daemon, daemon.submit("unserialisable", retries=2)["id"])["kind"] == "not_serialisable"
    error = failure(daemon, daemon.submit("too_large", 17 * 1024 * 1024, retries=2)["id"])
    assert (error["kind"], error["where"]["attempt"]) == ("too_large", 1)


def test_megabytes_in_and_out(daemon: Daemon) -> None:
    """1 MB of arguments (--args-max) and of result; over the limit: 413."""
    text = "ä" * 500_000 + '"\n'
    assert result(daemon, "echo", text) == text
    over = daemon.post("/v1/jobs", json={"task": "echo", "args": ["x" * (2 * 1024 * 1024)]})
    assert (over.status_code, over.json()["code"]) == (413, "too_large")
    assert len(result(daemon, "too_large", 8_000_000)) == 8_000_000


def test_pretty_printed_arguments_stay_one_line_in_streams(daemon: Daemon) -> None:
    """NDJSON is lines, whatever spaces and newlines the client sent."""
    pretty = json.dumps({"task": "echo", "args": {"value": {"a": [1, 2], "b": "x\ny"}}}, indent=2)
    head = {"Content-Type": "application/json"}
    events = list(daemon.lines("/v1/jobs", method="POST", content=pretty, headers=head))
    assert events[0]["kind"] == "job"
    assert events[0]["data"]["args"] == {"value": {"a": [1, 2], "b": "x\ny"}}
    assert events[-1]["kind"] == "end"
    assert events[-1]["data"]["result"] == {"a": [1, 2], "b": "x\ny"}


# -- when it runs -------------------------------------------------------------------------------------------------


def test_default_policy(daemon: Daemon) -> None:
    """0 retries, no timeouts, default queue, priority 0, retried when lost."""
    job = daemon.submit("plain", 1)
    assert (job["max_attempts"], job["queue"], job["priority"], job["on_lost"]) == (1, "default", 0, "retry")
    assert job["timeouts"] == {"run": None, "idle": None, "total": None}
    assert job["backoff"] == {"base_s": 1, "max_s": 600}
    assert (job["labels"], job["tenant"], job["durability"]) == ({}, "default", "power")
    failed = daemon.done(daemon.submit("fail_thread", "x")["id"])
    assert (failed["attempt"], failed["max_attempts"]) == (1, 1)


def test_concurrency_cap(daemon: Daemon) -> None:
    """Of five at most two run; the others wait and take their turn."""
    jobs = [daemon.submit("few", "few-gate")["id"] for _ in range(5)]
    for job in jobs[:2]:
        daemon.first_item(job)
    assert [daemon.job(job)["state"] for job in jobs] == ["running"] * 2 + ["queued"] * 3
    daemon.open_gate("few-gate")
    for job in jobs:
        daemon.succeeded(job)


def test_larger_priority_first(start_daemon: StartDaemon) -> None:
    """While the only worker is busy they gather; then they run by priority, equal ones by age."""
    daemon = start_daemon(TASKS, "--cpu-workers", "1")
    busy = daemon.submit("held", "order-gate")["id"]
    daemon.first_item(busy)
    priorities = [0, -5, 10, 0, 100, 10]
    jobs = [daemon.submit("order", n, priority=p)["id"] for n, p in enumerate(priorities)]
    daemon.open_gate("order-gate")
    moments = [daemon.succeeded(job) for job in jobs]
    assert sorted(range(6), key=lambda n: moments[n]) == [4, 2, 5, 0, 3, 1]


def test_delay_and_run_now(daemon: Daemon) -> None:
    """It is scheduled until it is time, or until somebody says now."""
    soon = daemon.submit("plain", 1, delay_s=0.2)
    assert (soon["state"], soon["reason"]) == ("scheduled", "run_at")
    assert daemon.succeeded(soon["id"]) == 2
    done = daemon.job(soon["id"])
    assert done["started_at"] >= done["run_at"] == soon["run_at"]
    moment = datetime.now(UTC) + timedelta(days=30)
    far = daemon.submit("plain", 2, run_at=moment.isoformat())
    assert datetime.fromisoformat(far["run_at"]) == moment
    assert daemon.post(f"/v1/jobs/{far['id']}/run").status_code == 200
    assert daemon.succeeded(far["id"]) == 4


def test_expires(daemon: Daemon) -> None:
    """What waited too long does not start any more."""
    running_ = [daemon.submit("few", "expires-gate")["id"] for _ in range(2)]
    for job_id in running_:
        daemon.first_item(job_id)
    soon = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
    job = daemon.submit("few", "expires-gate", expires_at=soon)
    assert job["state"] == "queued"
    ended = daemon.done(job["id"])
    daemon.open_gate("expires-gate")
    assert (ended["state"], ended["error"]["kind"], ended["epoch"]) == ("expired", "expired", 0)
    assert ended["finished_at"] >= ended["expires_at"]
    never = {"task": "plain", "args": [1], "expires_at": "2026-01-01T00:00:00Z"}
    assert daemon.post("/v1/jobs", json=never).status_code == 422


# -- timeouts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["held", "held_loop", "held_command", "held_thread"])
def test_timeout_of_a_run(daemon: Daemon, task: str) -> None:
    """A process and a command are killed, a coroutine is cancelled, a thread is given up; each try counts."""
    gate = f"timeout-{task}"
    retries = 0 if task == "held_thread" else 1
    job = daemon.submit(task, gate, timeouts={"run": 0.3}, retries=retries, backoff={"base_s": 0})["id"]
    ended = daemon.done(job)
    assert (ended["state"], ended["error"]["kind"], ended["attempt"]) == ("failed", "timeout", 1 + retries)
    assert [row["state"] for row in daemon.attempts(job)] == ["failed"] * (1 + retries)
    daemon.open_gate(gate)
    assert daemon.done(daemon.submit(task, gate)["id"])["state"] == "succeeded"


def test_idle_and_total_timeouts(daemon: Daemon) -> None:
    """No sign of life for too long; too long since the submission, waiting included."""
    assert failure(daemon, daemon.submit("held", "never", timeouts={"idle": 0.3})["id"])["kind"] == "timeout"
    assert (
        failure(daemon, daemon.submit("held", "never", timeouts={"total": 0.3}, retries=5)["id"])["kind"]
        == "timeout"
    )


def test_retry_of_a_timed_out_thread_waits_for_it(daemon: Daemon) -> None:
    """Two attempts of one job never overlap: the next one begins when the given-up thread has returned."""
    job = daemon.submit(
        "held_thread", "orphan-gate", timeouts={"run": 0.2}, retries=1, backoff={"base_s": 0}
    )["id"]
    waiting = daemon.in_state(job, "retrying")
    assert waiting["reason"] == "orphan_running"
    daemon.open_gate("orphan-gate")
    assert daemon.done(job)["state"] == "succeeded"
    assert daemon.job(job)["attempt"] == 2


# -- retries and keys ---------------------------------------------------------------------------------------------


def test_retries_with_backoff(daemon: Daemon) -> None:
    """It fails twice and succeeds; all attempts are told."""
    job = daemon.submit("third_time")["id"]
    assert daemon.succeeded(job) == 3
    rows = daemon.attempts(job)
    assert [row["attempt"] for row in rows] == [1, 2, 3]
    assert [row["state"] for row in rows] == ["failed", "failed", "succeeded"]
    assert [row["error"] and row["error"]["message"] for row in rows] == ["1", "2", None]
    states = [event["data"]["state"] for event in daemon.events(job, kinds="state")]
    assert [state for state in states if state != "queued"] == [
        "running", "retrying", "running", "retrying", "running", "succeeded",
    ]  # fmt: skip


def test_manual_retry_is_a_new_job(daemon: Daemon) -> None:
    """The final one stays as it is; one that is not done is refused."""
    failed = daemon.submit("fail_thread", "again", labels={"a": "b"})["id"]
    daemon.done(failed)
    again = daemon.post(f"/v1/jobs/{failed}/retry")
    assert again.status_code == 201
    assert (again.json()["rerun_of"], again.json()["args"], again.json()["labels"]) == (
        failed,
        ["again"],
        {"a": "b"},
    )
    assert again.json()["id"] != failed
    waiting = daemon.submit("plain", 1, delay_s=3600)["id"]
    refused = daemon.post(f"/v1/jobs/{waiting}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


def test_idempotency_key(daemon: Daemon) -> None:
    """The same key and body give the same job, by header or body; another body is refused."""
    body = {"task": "plain", "args": {"a": 4, "b": 5}}
    head = {"Idempotency-Key": "order-66"}
    first = daemon.post("/v1/jobs", json=body, headers=head)
    again = daemon.post(
        "/v1/jobs",
        content=b'{"args":{"b":5, "a":4},  "task":"plain"}',
        headers={**head, "Content-Type": "application/json"},
    )
    by_body = daemon.post("/v1/jobs", json={**body, "key": "order-66"})
    assert [reply.status_code for reply in (first, again, by_body)] == [201, 200, 200]
    assert {reply.json()["id"] for reply in (first, again, by_body)} == {first.json()["id"]}
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == by_body.headers["Idempotency-Replayed"] == "true"
    other = daemon.post("/v1/jobs", json={"task": "plain", "args": [5]}, headers=head)
    assert (other.status_code, other.json()["code"]) == (422, "key_reused")
    both = daemon.post("/v1/jobs", json={**body, "key": "order-67"}, headers=head)
    assert both.status_code == 422


# -- cancel -------------------------------------------------------------------------------------------------------


def cancel(daemon: Daemon, job: str, **body: Any) -> Any:
    """Ask for it."""
    return daemon.post(f"/v1/jobs/{job}/cancel", json=body) if body else daemon.post(f"/v1/jobs/{job}/cancel")


def test_cancel_of_a_waiting_job_is_done_at_once(daemon: Daemon) -> None:
    """200 and cancelled; a second one is refused."""
    job = daemon.submit("plain", 1, delay_s=3600)["id"]
    reply = cancel(daemon, job)
    assert (reply.status_code, reply.json()["state"], reply.json()["error"]["kind"]) == (
        200,
        "cancelled",
        "cancelled",
    )
    again = cancel(daemon, job)
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize("task", ["ask_thread", "ask_process", "held_loop", "held_command"])
def test_polite_cancel(daemon: Daemon, task: str) -> None:
    """It is asked, and ends by itself: stopping, then cancelled."""
    job = daemon.submit(task, *(["never"] if task.startswith("held") else []))["id"]
    daemon.first_item(job)
    reply = cancel(daemon, job)
    assert (reply.status_code, reply.json()["state"], reply.json()["reason"]) == (
        202,
        "stopping",
        "cancel_asked",
    )
    assert daemon.done(job)["state"] == "cancelled"


@pytest.mark.parametrize(
    "body", [{"mode": "now"}, {"mode": "deadline", "grace_s": 0.1}], ids=["now", "deadline"]
)
@pytest.mark.parametrize("task", ["held", "held_command"])
def test_cancel_that_kills(daemon: Daemon, task: str, body: dict[str, Any]) -> None:
    """What does not listen is killed at once, or after the grace; its worker is replaced."""
    job = daemon.submit(task, "never", retries=5)["id"]
    daemon.first_item(job)
    assert cancel(daemon, job, **body).status_code == 202
    ended = daemon.done(job)
    assert (ended["state"], ended["attempt"]) == ("cancelled", 1)
    assert result(daemon, "squares", 1) is None


def test_polite_cancel_of_what_does_not_listen_changes_nothing_else(daemon: Daemon) -> None:
    """It stays stopping; when it returns all the same, it succeeded, and says so."""
    job = daemon.submit("held", "deaf-gate")["id"]
    daemon.first_item(job)
    assert cancel(daemon, job).json()["state"] == "stopping"
    daemon.open_gate("deaf-gate")
    assert daemon.done(job)["state"] == "succeeded"


@pytest.mark.parametrize("mode", ["now", "deadline"])
def test_thread_cannot_be_killed(daemon: Daemon, mode: str) -> None:
    """409 cannot_kill: nothing changes, and the detail offers the polite way."""
    job = daemon.submit("held_thread", f"thread-gate-{mode}")["id"]
    daemon.first_item(job)
    refused = cancel(daemon, job, mode=mode)
    assert (refused.status_code, refused.json()["code"]) == (409, "cannot_kill")
    assert "polite" in refused.json()["detail"]
    assert daemon.job(job)["state"] == "running"
    daemon.open_gate(f"thread-gate-{mode}")
    assert daemon.done(job)["state"] == "succeeded"
