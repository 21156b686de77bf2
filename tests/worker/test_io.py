"""The io worker: a real process; asyncio and Twisted in one coroutine, threads beside them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from jobsvc.model.frames import Begin, Cancel, Credit, Items, Log, Ping, Pong, Quit, Recall, Result, Returned
from jobsvc.model.limits import MIB, STREAM_WINDOW_BYTES
from jobsvc.worker.outbox import BATCH_BYTES
from tests.worker.conftest import StartWorker
from tests.worker.harness import WAIT_S, WorkerHarness

# -- one coroutine, two worlds


@pytest.mark.parametrize(
    ("task", "value"),
    [
        ("gather", [1, 2, 3]),
        ("gather_results", [[1, 2], [True, 3], ["x"]]),
        ("group", [0, 1, 2]),
        ("too_late", "gave up"),
        ("abandoned", "gave up"),
    ],
)
def test_asyncio_and_deferreds_in_one_coroutine(io: WorkerHarness, task: str, value: object) -> None:
    """gather, gatherResults, TaskGroup, wait_for and timeouts work over both; nothing given up makes noise."""
    assert io.value(task, executor="loop") == value
    assert io.quit() == (0, "", "")
    assert io.logs(1) == []


def test_error_of_a_deferred(io: WorkerHarness) -> None:
    """It is raised where it is awaited, with the author's line in the traceback."""
    error = io.run("failing_deferred", executor="loop").error
    assert error is not None
    assert (error.kind, error.type) == ("task_error", "KeyError")
    assert "in failing_deferred" in (error.traceback or "")
    assert "jobsvc/worker" not in (error.traceback or "")
    assert io.quit()[2] == ""


def test_other_functions_on_the_loop(io: WorkerHarness) -> None:
    """A coroutine that awaits nothing, a function that returns a Deferred, a plain function."""
    assert io.value("hello", "you", executor="loop") == "hello you"
    assert io.value("gives_deferred", 5, executor="loop") == 5
    assert io.value("plain", 6, executor="loop") == 6


@pytest.mark.parametrize("what", ["deferred", "future", "child", "list"])
def test_cancel_reaches_what_is_awaited(io: WorkerHarness, what: str) -> None:
    """A Deferred, an asyncio future, child tasks and a list of Deferreds; none of them makes noise afterwards."""
    start = io.start("hang", what, executor="loop")
    io.send(start)
    io.until(Log)
    io.send(Cancel(start.no, 1, "cancel_asked"))
    error = io.result(start).error
    assert error is not None
    assert error.kind == "cancelled"
    assert io.quit() == (0, "", "")


def test_coroutine_may_finish_all_the_same(io: WorkerHarness) -> None:
    """A coroutine that catches the cancel and returns has succeeded: the report is truthful."""
    start = io.start("stubborn", executor="loop")
    io.send(start)
    io.until(Log)
    io.send(Cancel(start.no, 1, "cancel_asked"))
    result = io.result(start)
    assert (result.error, result.body) == (None, b'"finished anyway"')


def test_cancel_with_its_start_returns_it(io: WorkerHarness) -> None:
    """In the same batch as the start: it has not begun, and does not."""
    for executor, task in (("loop", "hello"), ("thread", "thread_name")):
        start, other = io.start(task, "x", executor=executor), io.start("hello", "y", executor="loop")
        io.send(start, Cancel(start.no, 1, "cancel_asked"), other)
        assert io.until(Returned).attempts == [(start.no, 1)]
        assert io.result(other).error is None
        assert not any(isinstance(m, (Begin, Result)) and m.no == start.no for m in io.seen)


def test_many_sleepers_share_the_loop(io: WorkerHarness) -> None:
    """Five hundred coroutines that sleep 50 ms take far less than one after the other would."""
    starts = [io.start("sleeps", 0.05, executor="loop") for _ in range(500)]
    io.send(*starts)
    results = [io.until(Result) for _ in starts]
    assert {result.no for result in results} == {start.no for start in starts}
    last_us = max(result.began_us + int(result.run_s * 1e6) for result in results)
    assert last_us - min(result.began_us for result in results) < 500 * 50_000 / 4


def test_exit_of_a_child_task_ends_its_own_attempt_only(io: WorkerHarness) -> None:
    """sys.exit on the loop or in a thread fails its job; the worker serves on."""
    for task, executor, code in (("exits", "loop", 4), ("thread_exit", "thread", 3)):
        error = io.run(task, executor=executor).error
        assert error is not None
        assert error.exit is not None
        assert (error.kind, error.exit.code) == ("crashed", code)
    assert io.value("plain", 1, executor="loop") == 1


def test_whatever_a_thread_raises_ends_its_attempt(io: WorkerHarness) -> None:
    """Else it would take the thread with it, and its job would neither end nor could it be stopped."""
    kinds = {
        what: io.run("thread_throws", what, executor="thread").error
        for what in ("CancelledError", "GeneratorExit", "Unlookable")
    }
    types = {what: (error.kind, error.type) for what, error in kinds.items() if error is not None}
    assert types == {
        "CancelledError": ("task_error", "asyncio.exceptions.CancelledError"),
        "GeneratorExit": ("task_error", "GeneratorExit"),
        "Unlookable": ("task_error", None),
    }
    assert io.value("thread_name")
    assert io.quit()[0] == 0


def test_mark_names_who_holds_up_the_loop(io: WorkerHarness, tmp_path: Path) -> None:
    """While a step of a coroutine runs, the mark names its attempt; when the loop rests, nobody."""
    hog = io.start("hog", str(tmp_path / "go"), executor="loop")
    io.send(hog)
    io.until(Log)
    deadline = time.monotonic() + WAIT_S
    while io.mark()[0] <= 0 and time.monotonic() < deadline:
        pass  # its second step is about to begin, and lasts
    assert io.mark()[:2] == (hog.no, 1)
    (tmp_path / "go").touch()
    assert io.result(hog).error is None
    io.send(Ping(1))
    io.until(Pong)
    assert io.mark()[0] <= 0


# -- output


def test_output_finds_its_job(io: WorkerHarness) -> None:
    """From coroutines, child tasks, threads that they use and Twisted's log, of two jobs at the same time."""
    starts = {name: io.start("prints", name, executor="loop") for name in "AB"}
    io.send(*starts.values())
    for name, start in starts.items():
        assert io.result(start).error is None
        messages = [log["message"] for log in io.logs(start.no)]
        expected = ["start", "child", "thread", "child again", "end"]
        assert sorted(m for m in messages if "#warn" not in m) == sorted(
            f"{name} {word}" for word in expected
        )
        assert [log["source"] for log in io.logs(start.no) if f"{name} logged" in log["message"]] == [
            "stderr"
        ]
    assert io.quit() == (0, "", "")


def test_output_that_cannot_wait_is_counted(start_worker: StartWorker) -> None:
    """Without credit, a coroutine's output is held up to a limit; what is dropped then is told."""
    worker = start_worker("io", ("looping",), credit=False)
    worker.ready()
    start = worker.start("loud", 1_000, executor="loop")
    worker.send(start)
    assert worker.result(start).error is None
    logs = worker.logs(start.no)
    assert sum(len(log["message"]) for log in logs) < 2 * MIB
    told = int(logs[-1]["message"].split()[0])
    assert len({log["message"] for log in logs[:-1]}) == 1_000 - told
    assert told > 0


# -- streams


def test_async_generator_streams(io: WorkerHarness) -> None:
    """Every yield is an item; the result is null."""
    result = io.run("counted", 5_000, executor="loop")
    assert (result.error, result.body) == (None, b"null")
    assert io.items(result.no) == list(range(5_000))


def test_thread_generator_streams(io: WorkerHarness) -> None:
    """The same from a thread, with a return value."""
    result = io.run("thread_count", 5_000, executor="thread")
    assert (result.error, result.body) == (None, b"5000")
    assert io.items(result.no) == list(range(5_000))


@pytest.mark.parametrize(("task", "executor"), [("endless", "loop"), ("thread_endless", "thread")])
def test_stream_stops_without_credit_and_others_go_on(
    start_worker: StartWorker, tmp_path: Path, task: str, executor: str
) -> None:
    """The window used up, the producer waits, while other jobs of both executors run; a cancel closes it."""
    worker = start_worker("io", ("looping",), credit=False)
    worker.ready()
    start = worker.start(task, str(tmp_path / "closed"), executor=executor)
    worker.send(start)

    def received() -> int:
        return sum(len(m.body) for m in worker.seen if isinstance(m, Items))

    while received() < STREAM_WINDOW_BYTES:
        worker.until(Items)
    assert worker.value("hello", "x", executor="loop") == "hello x"
    assert worker.value("thread_name", executor="thread")
    assert received() < STREAM_WINDOW_BYTES + 2 * BATCH_BYTES
    worker.send(Credit(start.no, 1, "out", STREAM_WINDOW_BYTES))
    while received() < 2 * STREAM_WINDOW_BYTES - BATCH_BYTES:
        worker.until(Items)
    worker.send(Cancel(start.no, 1, "cancel_asked"))
    error = worker.result(start).error
    assert error is not None
    assert error.kind == "cancelled"
    assert (tmp_path / "closed").read_text() == "closed"


def test_emit_on_the_loop_refuses_to_pile_up(start_worker: StartWorker) -> None:
    """`ctx.emit` cannot wait on the loop: past a limit it raises, and says what to do instead."""
    worker = start_worker("io", ("looping",), credit=False)
    worker.ready()
    error = worker.run("flood", executor="loop").error
    assert error is not None
    assert error.kind == "task_error"
    assert "async generator" in error.message


# -- threads


def test_threads_are_named_reused_and_captured(io: WorkerHarness) -> None:
    """Attempts one after the other share a thread; what they print is theirs."""
    for _ in range(3):
        start = io.start("thread_name", executor="thread")
        io.send(start)
        assert io.result(start).body == b'["jobsvc-thread-1"]'
        assert [log["message"] for log in io.logs(start.no)] == ["in a thread"]


def test_threads_run_side_by_side_and_the_rest_can_be_recalled(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    """Two threads: two attempts begin, a third waits; it comes back by a recall, and a fourth by a cancel."""
    worker = start_worker("io", ("looping",), threads=2)
    worker.ready()
    first, second, third, fourth = (
        worker.start("until", str(tmp_path / name), executor="thread") for name in ("one", "two", "no", "no")
    )
    worker.send(first, second, third, fourth)
    assert {worker.until(Begin).no, worker.until(Begin).no} == {first.no, second.no}
    worker.send(Cancel(fourth.no, 1, "cancel_asked"))
    assert worker.until(Returned).attempts == [(fourth.no, 1)]
    worker.send(Recall())
    assert worker.until(Returned).attempts == [(third.no, 1)]
    (tmp_path / "one").touch()
    assert worker.result(first).body == b'"there"'
    worker.send(Cancel(second.no, 1, "cancel_asked"))
    error = worker.result(second).error
    assert error is not None
    assert (error.kind, error.message) == ("cancelled", "stopped")


def test_waiting_attempt_gets_the_next_free_thread(start_worker: StartWorker, tmp_path: Path) -> None:
    """It begins when the one before has ended, and says so before its result."""
    worker = start_worker("io", ("looping",), threads=1)
    worker.ready()
    first, second = (
        worker.start("until", str(tmp_path / "go"), executor="thread"),
        worker.start("thread_name", executor="thread"),
    )
    worker.send(first, second)
    worker.begun(first)
    (tmp_path / "go").touch()
    worker.result(second)
    order = [(type(m), m.no) for m in worker.seen if isinstance(m, (Begin, Result))]
    assert order.index((Begin, second.no)) < order.index((Result, second.no))
    assert set(order) == {(Begin, first.no), (Result, first.no), (Begin, second.no), (Result, second.no)}


def test_attempt_that_had_to_wait_has_said_that_it_began_before_its_code_runs(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    """Else a job that must not run twice would be taken for one that never began, and be started again."""
    worker = start_worker("io", ("looping",), threads=1)
    worker.ready()
    first = worker.start("until", str(tmp_path / "go"), executor="thread")
    second = worker.start("thread_kills", executor="thread")
    worker.send(first, second)
    worker.begun(first)
    (tmp_path / "go").touch()
    assert worker.begun(second).at_us > 0


# -- ends


def test_quit_waits_for_what_has_begun(io: WorkerHarness, tmp_path: Path) -> None:
    """Then the worker exits with 0."""
    start = io.start("until", str(tmp_path / "go"), executor="thread")
    io.send(start)
    io.begun(start)
    io.send(Quit())
    assert io.until(Returned).attempts == []
    (tmp_path / "go").touch()
    assert io.result(start).error is None
    assert io.end()[0] == 0


def test_end_of_the_channel_ends_the_worker(io: WorkerHarness, tmp_path: Path) -> None:
    """Without a daemon nothing runs on."""
    start = io.start("until", str(tmp_path / "never"), executor="thread")
    io.send(start)
    io.begun(start)
    io.sock.close()
    assert io.end()[0] == 1


def test_large_bodies_travel_in_parts(io: WorkerHarness) -> None:
    """60 MB of arguments, while a ping is answered."""
    result = io.run("hello", "x" * (15 * MIB), executor="loop")
    assert len(result.body) > 15 * MIB
    start = io.start("hello", "x" * (60 * MIB), executor="loop")
    io.send(start, Ping(3))
    assert io.until(Pong).n == 3
    error = io.result(start).error
    assert error is not None
    assert error.kind == "too_large"


@pytest.mark.parametrize("where", [("called_in_a_thread", "thread"), ("called_on_the_loop", "loop")])
def test_task_knows_what_its_request_was_called(io: WorkerHarness, where: tuple[str, str]) -> None:
    """In a thread and in a coroutine."""
    task, executor = where
    assert io.value(task, executor=executor, origin=("front-1", "00-ab")) == ["front-1", "00-ab"]
    assert io.value(task, executor=executor) == [None, None]
