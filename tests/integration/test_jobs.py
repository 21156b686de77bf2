"""Single jobs on every executor: results, items, output, errors, limits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.daemon import Daemon, running
from tests.integration.stranger import TASKS, failure, result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.daemon import WheelEnv


@pytest.fixture(scope="module")
def daemon(wheel_env: WheelEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all that leave it as they found it."""
    options = ("--cpu-workers", "2", "--args-max", "2M")
    with running(Daemon(wheel_env, tmp_path_factory.mktemp("jobs"), options), TASKS) as started:
        yield started


def items(daemon: Daemon, job_id: str) -> list[Any]:
    """The data of all items of `out`."""
    return [item["data"] for item in daemon.lines(f"/v1/jobs/{job_id}/streams/out")]


def printed(daemon: Daemon, job_id: str) -> set[tuple[str, str]]:
    """(source, message) of all log events of a job that is done."""
    daemon.done(job_id)
    return {(e["data"]["source"], e["data"]["message"]) for e in daemon.events(job_id, kinds="log")}


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
