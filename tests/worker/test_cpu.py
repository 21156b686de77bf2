"""Cpu workers: real processes, driven over a real channel."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from jobsvc.model.frames import (
    PROTO,
    Begin,
    Cancel,
    Credit,
    Hello,
    Items,
    Loading,
    Log,
    Manifest,
    Ping,
    Pong,
    Progress,
    Quit,
    Recall,
    Result,
    Returned,
)
from jobsvc.model.limits import ITEM_MAX_BYTES, LOG_LINE_MAX_BYTES, MIB, RESULT_MAX_BYTES, STREAM_WINDOW_BYTES
from jobsvc.worker.outbox import BATCH_BYTES
from tests.worker.conftest import StartWorker
from tests.worker.harness import WorkerEnd, WorkerHarness


def test_says_who_it_is_and_what_it_can(start_worker: StartWorker) -> None:
    """The first messages are the hello and the manifest; what a module prints at import is the worker's own output."""
    worker = start_worker("cpu", ("computing",))
    manifest = worker.ready()
    assert worker.seen[0] == Hello(PROTO, worker.process.pid, "test-boot")
    assert manifest.errors == {}
    specs = {spec.name: spec for spec in manifest.tasks}
    assert specs["add"].executor == "process"
    assert [port.name for port in specs["count"].ports] == ["out"]
    assert worker.quit() == (0, "imported\n", "")


@pytest.mark.parametrize("kind", ["cpu", "io"])
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import no_such_thing\n", "no_such_thing"),
        ("raise SystemExit(3)\n", "SystemExit"),
        ("x = 1\n", "names no tasks"),
    ],
)
def test_module_that_does_not_load_is_told(
    start_worker: StartWorker, tmp_path: Path, kind: str, source: str, words: str
) -> None:
    """The manifest carries the error of the module and the tasks of the others, which run."""
    (tmp_path / "bad.py").write_text(source)
    executor = {"cpu": "process", "io": "thread"}[kind]
    (tmp_path / "good.py").write_text(
        f"import jobsvc\n@jobsvc.task(executor={executor!r})\ndef one() -> int:\n    return 1\n"
    )
    worker = start_worker(kind, ("bad", "good"), path=tmp_path)
    manifest = worker.ready()
    assert [message.module for message in worker.seen if isinstance(message, Loading)] == ["bad", "good"]
    assert words in manifest.errors["bad"]
    assert (manifest.modules, [task.name for task in manifest.tasks]) == ({"good": ["one"]}, ["one"])
    worker.send(worker.start("one", executor=executor))
    assert worker.until(Result).body == b"1"


def test_imports_nothing_heavy(cpu: WorkerHarness) -> None:
    """A cpu worker holds neither Twisted nor asyncio nor what the edge needs."""
    loaded = {name.partition(".")[0] for name in cpu.value("modules")}
    assert loaded.isdisjoint(
        {"twisted", "klein", "treq", "zope", "werkzeug", "asyncio", "httpx2", "click", "rich"}
    )


def test_runs_and_reports_in_order(cpu: WorkerHarness) -> None:
    """A task that is not quick: a begin, then the result with when it began and how long it ran."""
    before = time.time_ns() // 1000
    start = cpu.start("add", 2, 3)
    cpu.send(start)
    begin = cpu.begun(start)
    result = cpu.result(start)
    assert (result.error, result.body, result.epoch) == (None, b"5", 1)
    assert before <= begin.at_us == result.began_us <= time.time_ns() // 1000
    assert 0 < result.run_s < 10
    assert [type(m) for m in cpu.seen if getattr(m, "no", None) == start.no] == [Begin, Result]


def test_quick_tasks_show_their_begin_in_the_mark_only(cpu: WorkerHarness) -> None:
    """No begin frame for quick tasks; the mark counts them and is empty afterwards."""
    starts = [cpu.start("add", n, quick=True) for n in range(300)]
    cpu.send(*starts)
    assert [cpu.result(start).body for start in starts] == [str(n + 1).encode() for n in range(300)]
    assert not any(isinstance(message, Begin) for message in cpu.seen)
    cpu.value("noop", quick=True)
    no, _, _, generation = cpu.mark()
    assert generation == 301
    assert abs(no) == cpu.next_no - 1  # negative once it is cleared, which the result may outrun


def test_mark_names_who_runs(cpu: WorkerHarness, tmp_path: Path) -> None:
    """While an attempt runs, the mark names it."""
    start = cpu.start("wait_for", str(tmp_path / "go"))
    cpu.send(start)
    begin = cpu.begun(start)
    assert cpu.mark() == (start.no, 1, begin.at_us, 1)
    (tmp_path / "go").touch()
    assert cpu.result(start).error is None


def test_quick_task_that_takes_long_announces_itself(cpu: WorkerHarness, tmp_path: Path) -> None:
    """A quick task that runs on sends its begin after all, and what was held for company is sent."""
    first, second = cpu.start("add", 1, quick=True), cpu.start("wait_for", str(tmp_path / "go"), quick=True)
    cpu.send(first, second, cpu.start("noop", quick=True))
    assert cpu.begun(second).no == second.no
    assert cpu.result(first).body == b"2"
    assert not any(isinstance(message, Result) and message.no == second.no for message in cpu.seen)
    (tmp_path / "go").touch()
    assert cpu.result(second).error is None


def test_result_leaves_before_the_next_begins(cpu: WorkerHarness, tmp_path: Path) -> None:
    """The result of a task that is not quick does not wait for the one behind it."""
    first, second = cpu.start("add", 1), cpu.start("wait_for", str(tmp_path / "go"))
    cpu.send(first, second)
    assert cpu.result(first).body == b"2"
    assert cpu.begun(second).no == second.no
    (tmp_path / "go").touch()
    assert cpu.result(second).error is None


# -- errors


def test_error_of_a_task(cpu: WorkerHarness) -> None:
    """Type, words and a traceback that shows the author's frames only, the cause's too."""
    error = cpu.run("fail", "bread").error
    assert error is not None
    assert (error.kind, error.type, error.message) == ("task_error", "ValueError", "no bread")
    assert error.traceback is not None
    assert "KeyError: 'bread'" in error.traceback
    assert "raise ValueError" in error.traceback
    assert "jobsvc/worker" not in error.traceback
    assert "jobsvc/authoring" not in error.traceback


def test_refusals_by_kind(cpu: WorkerHarness) -> None:
    """Wrong arguments, unknown tasks, results that are no JSON or too large."""
    refused = cpu.run("add", "one").error
    assert refused is not None
    assert refused.kind == "rejected"
    assert "/0" in refused.message
    unknown = cpu.run("no_such").error
    assert unknown is not None
    assert (unknown.kind, "no_such" in unknown.message) == ("rejected", True)
    strange = cpu.run("strange").error
    assert strange is not None
    assert (strange.kind, "object" in strange.message) == ("not_serialisable", True)
    large = cpu.run("blob", RESULT_MAX_BYTES).error
    assert large is not None
    assert (large.kind, large.type) == ("too_large", None)
    item = cpu.run("fat", ITEM_MAX_BYTES).error
    assert item is not None
    assert item.kind == "too_large"
    assert cpu.value("add", 1, 1) == 2


def test_endless_recursion_is_the_tasks_error(cpu: WorkerHarness) -> None:
    """It fails its own attempt, and the worker goes on."""
    error = cpu.run("deep", 0).error
    assert error is not None
    assert (error.kind, error.type) == ("task_error", "RecursionError")
    assert cpu.value("add", 1, 1) == 2


@pytest.mark.parametrize("helper", [False, True])
def test_whatever_is_raised_ends_the_attempt_alone(cpu: WorkerHarness, helper: bool) -> None:
    """Ending the process by it would wait for every thread that the task has started: for ever."""
    error = cpu.run("throws", helper).error
    assert error is not None
    assert (error.kind, error.type, error.message) == ("task_error", "GeneratorExit", "over")
    assert cpu.value("add", 1, 1) == 2


@pytest.mark.parametrize("code", [0, 3])
def test_exit_ends_the_process(cpu: WorkerHarness, code: int) -> None:
    """A task that exits takes its process along, without a result; its last words and the mark stay."""
    start = cpu.start("leave", code)
    cpu.send(start)
    with pytest.raises(WorkerEnd):
        cpu.result(start)
    assert cpu.end()[0] == code
    assert [log["message"] for log in cpu.logs(start.no)] == ["last words"]
    assert cpu.mark()[:2] == (start.no, 1)


def test_crash_leaves_mark_and_stack(cpu: WorkerHarness) -> None:
    """A segmentation fault ends the process by its signal; the mark says who ran, stderr where."""
    start = cpu.start("crash")
    cpu.send(start)
    with pytest.raises(WorkerEnd):
        cpu.result(start)
    status, _, err = cpu.end()
    assert status == -signal.SIGSEGV
    assert "in crash" in err
    assert cpu.mark()[:2] == (start.no, 1)


def test_end_of_the_channel_ends_the_worker(cpu: WorkerHarness, tmp_path: Path) -> None:
    """Without a daemon nothing runs on, whatever the main thread does."""
    start = cpu.start("wait_for", str(tmp_path / "never"))
    cpu.send(start)
    cpu.begun(start)
    cpu.sock.close()
    assert cpu.end()[0] == 1


def test_what_is_no_frame_ends_the_worker(cpu: WorkerHarness) -> None:
    """A broken peer is not worked for."""
    cpu.sock.sendall(b"\xff" * 8)
    status, _, err = cpu.end()
    assert status == 1
    assert "no frame" in err


# -- not begun


def test_recall_returns_what_has_not_begun(cpu: WorkerHarness, tmp_path: Path) -> None:
    """The running attempt stays, the others come back in their order, none of them runs."""
    running = cpu.start("wait_for", str(tmp_path / "go"))
    waiting = [cpu.start("noop") for _ in range(3)]
    cpu.send(running, *waiting)
    cpu.begun(running)
    cpu.send(Recall())
    assert cpu.until(Returned).attempts == [(start.no, 1) for start in waiting]
    (tmp_path / "go").touch()
    assert cpu.result(running).error is None
    cpu.send(Ping(1))
    cpu.until(Pong)
    assert not any(isinstance(m, (Begin, Result)) and m.no != running.no for m in cpu.seen)


def test_cancel_before_begin_returns_it(cpu: WorkerHarness, tmp_path: Path) -> None:
    """A cancel of what has not begun gives it back at once, while another one runs."""
    running, first, second = cpu.start("wait_for", str(tmp_path / "go")), cpu.start("noop"), cpu.start("noop")
    cpu.send(running, first, second)
    cpu.begun(running)
    cpu.send(Cancel(first.no, 1, "cancel_asked"))
    assert cpu.until(Returned).attempts == [(first.no, 1)]
    (tmp_path / "go").touch()
    assert cpu.result(second).error is None
    assert not any(isinstance(m, (Begin, Result)) and m.no == first.no for m in cpu.seen)


def test_quit_finishes_what_has_begun(cpu: WorkerHarness, tmp_path: Path) -> None:
    """The running attempt ends, the others come back, the worker exits with 0."""
    running, waiting = cpu.start("wait_for", str(tmp_path / "go")), cpu.start("noop")
    cpu.send(running, waiting)
    cpu.begun(running)
    cpu.send(Quit())
    assert cpu.until(Returned).attempts == [(waiting.no, 1)]
    (tmp_path / "go").touch()
    assert cpu.result(running).error is None
    assert cpu.end()[0] == 0


# -- cancel


@pytest.mark.parametrize("answer", [True, False])
def test_cancel_is_seen_by_the_context(cpu: WorkerHarness, answer: bool) -> None:
    """A task that sees `ctx.cancelled` may stop, or give its result all the same: the report says which."""
    start = cpu.start("patient", answer)
    cpu.send(start)
    cpu.begun(start)
    cpu.send(Cancel(start.no, 1, "cancel_asked"))
    result = cpu.result(start)
    if answer:
        assert (result.error, result.body) == (None, b'"finished anyway"')
    else:
        assert result.error is not None
        assert (result.error.kind, result.error.message) == ("cancelled", "as you wish")


def test_late_cancel_does_no_harm(cpu: WorkerHarness) -> None:
    """A cancel that comes after the result is forgotten."""
    start = cpu.start("add", 1)
    cpu.send(start)
    cpu.result(start)
    cpu.send(Cancel(start.no, 1, "timeout"))
    assert cpu.value("add", 1, 1) == 2


# -- streams


def test_generator_streams_and_returns(cpu: WorkerHarness) -> None:
    """Every yield is an item of `out`; in a burst they travel in batches; what it returns is the result."""
    result = cpu.run("count", 20_000)
    assert result.body == b"20000"
    assert cpu.items(result.no) == list(range(20_000))
    messages = [m for m in cpu.seen if isinstance(m, Items)]
    assert sum(m.count for m in messages) == 20_000
    assert len(messages) < 2_000


def test_stream_stops_without_credit_and_resumes(start_worker: StartWorker, tmp_path: Path) -> None:
    """The producer stops when the window is used up, goes on with new credit, and closes when it is cancelled."""
    worker = start_worker("cpu", ("computing",), credit=False)
    worker.ready()
    start = worker.start("endless", str(tmp_path / "closed"))
    worker.send(start)
    sent = 0
    while sent < STREAM_WINDOW_BYTES:
        sent += len(worker.until(Items).body)
    assert sent < STREAM_WINDOW_BYTES + 2 * BATCH_BYTES
    worker.send(Ping(1))
    worker.until(Pong)
    assert worker.seen[-2] is not None
    assert not isinstance(worker.seen[-2], Result)
    stopped_at = sum(len(m.body) for m in worker.seen if isinstance(m, Items))
    worker.send(Credit(start.no, 1, "out", STREAM_WINDOW_BYTES))
    while (
        sum(len(m.body) for m in worker.seen if isinstance(m, Items))
        < stopped_at + STREAM_WINDOW_BYTES - BATCH_BYTES
    ):
        worker.until(Items)
    worker.send(Cancel(start.no, 1, "cancel_asked"))
    error = worker.result(start).error
    assert error is not None
    assert error.kind == "cancelled"
    assert (tmp_path / "closed").read_text() == "closed"


def test_large_bodies_travel_in_parts(cpu: WorkerHarness) -> None:
    """60 MB of arguments in, 15 MB of result out."""
    text = "x" * (60 * MIB)
    result = cpu.run("echo", text)
    assert result.error is not None
    assert result.error.kind == "too_large"
    value = cpu.value("blob", 15 * MIB)
    assert len(value) == 15 * MIB


def test_report_of_progress_log_and_streams(cpu: WorkerHarness) -> None:
    """Progress is thinned, the last one always comes; streams of one's own; everything before the result."""
    start = cpu.start("report", run_s=60.0)
    cpu.send(start)
    result = cpu.result(start)
    assert result.error is None
    assert result.body == b'["00000000-0000-0000-0000-%012x",1,1,true]' % start.no
    assert cpu.items(start.no, "extra") == [{"a": 1}]
    log = cpu.logs(start.no)[0]
    assert (log["level"], log["message"], log["source"], log["fields"]["n"]) == (
        "info",
        "half way",
        "task",
        50,
    )
    progress = [m.body for m in cpu.seen if isinstance(m, Progress)]
    assert progress[-1] == b'{"n":99,"of":99,"note":"at it"}'
    assert 1 <= len(progress) < 20
    assert cpu.seen[-1] is result


# -- output


def test_printed_lines_are_the_jobs_log(cpu: WorkerHarness) -> None:
    """Both streams, pieces, bytes, threads, what cannot be encoded, the last state of a progress bar, a last line."""
    start = cpu.start("chatter")
    cpu.send(start)
    assert cpu.result(start).error is None
    lines = [(log["message"], log["source"], log["level"]) for log in cpu.logs(start.no)]
    assert lines == [
        ("plain", "stdout", "info"),
        ("wärning", "stderr", "warning"),
        ("in pieces", "stdout", "info"),
        ("and a rest", "stdout", "info"),
        ("bytes", "stdout", "info"),
        ("from a thread", "stdout", "info"),
        ("a surrogate \\udc80", "stdout", "info"),
        ("100 %", "stdout", "info"),
    ]
    assert all(log["fields"] == {} for log in cpu.logs(start.no))


def test_long_lines_are_cut(cpu: WorkerHarness) -> None:
    """A line over the limit becomes several, none within a character, nothing lost."""
    start = cpu.start("long_line", 20_000)
    cpu.send(start)
    assert cpu.result(start).error is None
    pieces = [log["message"] for log in cpu.logs(start.no)]
    assert "".join(pieces) == "ü" * 20_000
    assert [len(piece.encode()) for piece in pieces] == [
        LOG_LINE_MAX_BYTES,
        LOG_LINE_MAX_BYTES,
        40_000 - 2 * LOG_LINE_MAX_BYTES,
    ]


def test_output_by_other_ways_reaches_the_descriptors(cpu: WorkerHarness) -> None:
    """Descriptor 1, programs and forked children: the daemon reads these pipes; a forked child is no worker."""
    assert cpu.value("native") is None
    assert cpu.value("forked") == 7
    assert not any(isinstance(message, Log) for message in cpu.seen)
    # Nobody read the pipes meanwhile: each attempt has sealed what is its own.
    native = "by descriptor\nby a program\n\x1ejobsvc end 1 1\n"
    assert cpu.quit() == (0, f"imported\n{native}child here\n\x1ejobsvc end 2 1\n", "")


def test_pong_tells_the_memory(cpu: WorkerHarness) -> None:
    """A ping is answered while the main thread computes."""
    cpu.send(Ping(7))
    pong = cpu.until(Pong)
    assert pong.n == 7
    assert 5 * MIB < pong.rss_bytes < 100 * MIB
    assert isinstance(cpu.seen[2], Manifest)


def test_task_knows_what_its_request_was_called(cpu: WorkerHarness) -> None:
    """The request id and the trace, each alone, or neither."""
    for origin in (("front-1", "00-ab"), (None, "00-ab"), ("front-1", None)):
        assert cpu.value("called", origin=origin) == list(origin)
    assert cpu.value("called") == [None, None]
