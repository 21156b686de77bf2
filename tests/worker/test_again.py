"""What a task's code says about running again reaches the daemon as data, from every form a task has."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from jobsvc.model.clock import time_us
from jobsvc.model.frames import Again, Result
from tests.worker.harness import WorkerHarness

FORMS = [
    ("cpu", "process_plain"),
    ("cpu", "process_generator"),
    ("io", "thread_plain"),
    ("io", "thread_generator"),
    ("io", "loop_plain"),
    ("io", "loop_coroutine"),
    ("io", "loop_generator"),
]


@pytest.fixture(scope="module")
def workers() -> Iterator[dict[str, WorkerHarness]]:
    """One worker of each kind for all that leave it as they found it."""
    started = {kind: WorkerHarness(kind, ("again",)) for kind in ("cpu", "io")}
    for worker in started.values():
        assert worker.ready().errors == {}
    yield started
    for worker in started.values():
        worker.close()


@pytest.fixture(params=FORMS, ids=lambda form: form[1])
def form(request: pytest.FixtureRequest, workers: dict[str, WorkerHarness]) -> tuple[WorkerHarness, str]:
    """A worker and a task on it."""
    kind, task = request.param
    return workers[kind], task


def run(form: tuple[WorkerHarness, str], what: str) -> Result:
    worker, task = form
    return worker.run(task, what, executor=task.partition("_")[0])


def test_a_retry_is_an_error_with_its_moment(form: tuple[WorkerHarness, str]) -> None:
    """Kind, type, words and the traceback of the author's frames, as of any other error."""
    result = run(form, "retry")
    assert result.again == Again("retry", 2.5)
    error = result.error
    assert error is not None
    assert (error.kind, error.type, error.message) == ("task_error", "jobsvc.Retry", "busy")
    assert "raise Retry(2.5" in (error.traceback or "")
    assert "jobsvc/worker" not in (error.traceback or "")
    assert run(form, "policy").again == Again("retry")


def test_a_retry_tells_what_led_to_it(form: tuple[WorkerHarness, str]) -> None:
    result = run(form, "led")
    assert result.again == Again("retry", 60)
    assert result.error is not None
    assert result.error.message == "Busy: no line"
    assert "again.Busy: no line" in (result.error.traceback or "")
    assert "direct cause" in (result.error.traceback or "")


def test_a_snooze_is_no_error(form: tuple[WorkerHarness, str]) -> None:
    result = run(form, "snooze")
    assert (result.error, result.body, result.again) == (None, b"", Again("snooze", 60))
    assert result.began_us > 0
    moment = time_us(datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC))
    assert run(form, "moment").again == Again("snooze", at_us=moment)


def test_a_snooze_without_a_time_zone_is_refused_where_it_is_raised(form: tuple[WorkerHarness, str]) -> None:
    result = run(form, "naive")
    assert result.error is not None
    assert (result.error.type, "without a time zone" in result.error.message) == ("ValueError", True)


def test_errors_are_told_apart_by_their_class_where_the_classes_are(form: tuple[WorkerHarness, str]) -> None:
    """`retry_on=OSError, give_up_on=(Broken,)`; kinds that are not of the task's code are not asked."""
    told = {what: run(form, what) for what in ("busy", "broken", "value", "object")}
    assert {what: result.again for what, result in told.items()} == {
        "busy": None,
        "broken": Again("never"),
        "value": Again("never"),
        "object": None,
    }
    kinds = {what: result.error.kind for what, result in told.items() if result.error is not None}
    assert kinds == dict.fromkeys(("busy", "broken", "value"), "task_error") | {"object": "not_serialisable"}


def test_an_exit_on_a_thread_is_a_crash_that_no_rule_touches(workers: dict[str, WorkerHarness]) -> None:
    result = workers["io"].run("leave_thread", executor="thread")
    assert result.again is None
    assert result.error is not None
    assert result.error.kind == "crashed"


def test_a_class_made_from_retry_needs_no_more(workers: dict[str, WorkerHarness]) -> None:
    result = workers["cpu"].run("own_retry")
    assert result.again == Again("retry")
    assert result.error is not None
    assert result.error.message == "to be tried again"
