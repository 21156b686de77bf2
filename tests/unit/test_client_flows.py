"""Conversations with one answer, played without I/O: what is sent, what is judged, what is tried again."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jobsvc.client import calls, flows
from jobsvc.client.core import Broken, Reply
from jobsvc.client.errors import (
    ClientError,
    JobCancelled,
    JobFailed,
    JobLost,
    Refused,
    Unreachable,
    WaitTimeout,
    job_failure,
)
from jobsvc.client.replies import job_of, problem_of
from jobsvc.client.shapes import JobError
from tests.client.scripted import CUT, JOB_ID, REFUSED, job, problem, reply, session


def test_submit_sends_the_envelope_and_a_key_of_its_own() -> None:
    """Task, arguments and options as the wire has them; a key, so that a lost reply does not make two jobs."""
    talk, player = session()
    made = player.play(
        flows.submit(talk, "add", {"a": 1}, {"priority": 3, "timeouts": {"run": 2.5}}),
        reply(job("queued"), 201),
    )
    (request,) = player.asked
    assert (request.method, request.target, request.repeatable) == ("POST", "/v1/jobs", True)
    assert msgspec.json.decode(request.body) == {
        "task": "add",
        "args": {"a": 1},
        "priority": 3,
        "timeouts": {"run": 2.5},
        "key": "made-up-key",
    }
    assert (made.id, made.state, made.done) == (JOB_ID, "queued", False)


def test_submit_is_repeated_with_the_same_key_when_the_reply_was_lost() -> None:
    """The second request is the first, byte for byte."""
    talk, player = session()
    player.play(flows.submit(talk, "add", None, {"key": "mine"}), CUT, reply(job("queued"), 200))
    first, second = player.asked
    assert first == second
    assert msgspec.json.decode(first.body) == {"task": "add", "key": "mine"}
    assert player.pauses == [0.1]


def test_retry_of_a_job_is_not_repeated_when_it_may_have_arrived() -> None:
    """Two retries would be two jobs: the caller is told that it may have happened."""
    talk, player = session()
    with pytest.raises(Unreachable) as caught:
        player.play(flows.ask_job(talk, calls.retry(JOB_ID)), CUT)
    assert caught.value.maybe_sent
    assert player.pauses == []


def test_no_daemon_is_said_soon() -> None:
    """A refused connection is tried a few times within a second, not for a minute."""
    talk, player = session()
    with pytest.raises(Unreachable, match="connection refused") as caught:
        player.play(flows.ask_job(talk, calls.get(JOB_ID)), REFUSED, REFUSED, REFUSED, REFUSED)
    assert not caught.value.maybe_sent
    assert sum(player.pauses) < 1.0


def test_load_is_waited_out_as_asked() -> None:
    """503 with Retry-After: the same request again, not sooner."""
    talk, player = session()
    busy = problem(503, "draining", retry_safe=True, retry_after_s=2)
    player.play(flows.submit(talk, "add", None, {}), busy, reply(job("queued"), 201))
    assert player.pauses == [pytest.approx(2.1)]


def test_wait_polls_until_done() -> None:
    """Each poll asks for as much as is left, thirty seconds at most."""
    talk, player = session()
    done = player.play(
        flows.wait(talk, JOB_ID, 40.0), reply(job("queued")), reply(job("succeeded", result=3))
    )
    assert done.result == 3
    assert [request.target for request in player.asked] == [f"/v1/jobs/{JOB_ID}?wait=30"] * 2


def test_wait_ends_when_its_time_is_up() -> None:
    """The job as last seen comes with the exception, which is also a TimeoutError."""
    talk, player = session()
    with pytest.raises(WaitTimeout) as caught:
        player.play(flows.wait(talk, JOB_ID, 0), reply(job("running")))
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.job.state == "running"
    assert player.asked[0].target.endswith("?wait=0")


def test_wait_outlasts_a_restart_of_the_daemon() -> None:
    """Once the daemon has answered, a minute of refused connections is a restart, not the end."""
    talk, player = session()
    done = player.play(
        flows.wait(talk, JOB_ID, None),
        reply(job("running")),
        CUT,
        *[REFUSED] * 20,
        reply(job("succeeded", result=1)),
    )
    assert done.result == 1


def test_wait_with_a_limit_does_not_outlast_it() -> None:
    """While the daemon is away the limit still counts."""
    talk, player = session()
    with pytest.raises(Unreachable):
        player.play(flows.wait(talk, JOB_ID, 1.0), CUT, REFUSED, REFUSED, REFUSED)
    assert sum(player.pauses) <= 1.0


def test_call_takes_one_request_when_the_job_is_quick() -> None:
    """Submit and wait in one: `Prefer: wait`."""
    talk, player = session()
    assert player.play(flows.call(talk, "add", [1, 2], {}, None), reply(job("succeeded", result=3), 201)) == 3
    assert player.asked[0].headers["Prefer"] == "wait=30"


def test_call_goes_on_waiting_for_a_slow_job() -> None:
    """What is not done in the first reply is polled for."""
    talk, player = session()
    flow = flows.call(talk, "add", [1, 2], {}, None)
    assert player.play(flow, reply(job("running"), 201), reply(job("succeeded", result=3))) == 3
    assert [request.method for request in player.asked] == ["POST", "GET"]


ERROR = {"kind": "task_error", "type": "ValueError", "message": "boom", "traceback": "Traceback\n  far away"}


@pytest.mark.parametrize(
    ("state", "error", "kind_of"),
    [
        ("failed", ERROR, JobFailed),
        ("failed", {"kind": "lost", "message": "gone"}, JobLost),
        ("cancelled", {"kind": "cancelled", "message": "asked"}, JobCancelled),
        ("expired", {"kind": "expired", "message": "too late"}, JobFailed),
        ("failed", {"kind": "a-kind-of-the-future"}, JobFailed),
    ],
)
def test_ends_without_a_result_have_their_exceptions(
    state: str, error: Any, kind_of: type[JobFailed]
) -> None:
    """Each final state but success raises, and says all that is known."""
    talk, player = session()
    with pytest.raises(JobFailed) as caught:
        player.play(flows.result(talk, JOB_ID, None), reply(job(state, error=error)))
    failed = caught.value
    assert type(failed) is kind_of
    assert (failed.job_id, failed.state, failed.kind) == (JOB_ID, state, error["kind"])
    assert failed.type == error.get("type")
    assert failed.job is not None


def test_remote_traceback_is_shown_below_our_own() -> None:
    """As a note, so that any traceback printer shows it."""
    failed = job_failure(JOB_ID, "failed", msgspec.convert(ERROR, JobError))
    assert failed.remote_traceback == "Traceback\n  far away"
    assert failed.__notes__ == ["In the worker:\nTraceback\n  far away"]
    assert str(failed) == f"job {JOB_ID} failed: task_error: ValueError: boom"


@pytest.mark.parametrize(
    ("answer", "code", "detail"),
    [
        (
            problem(422, "invalid_args", errors=[{"pointer": "/args/a", "detail": "x"}]),
            "invalid_args",
            "about invalid_args",
        ),
        (
            Reply(502, {"content-type": "text/html"}, b"<h1>Bad Gateway</h1>"),
            "unknown",
            "<h1>Bad Gateway</h1>",
        ),
        (Reply(500, {}, b""), "unknown", "HTTP status 500 without explanation"),
        (Reply(404, {"content-type": "application/problem+json"}, b"{"), "unknown", "{"),
    ],
)
def test_refusals_are_told_apart_from_strangers(answer: Reply, code: str, detail: str) -> None:
    """A problem document is taken at its word; any other error page keeps its status and text."""
    found = problem_of(answer)
    assert (found.status, found.code, found.detail) == (answer.status, code, detail)


def test_refused_carries_the_problem() -> None:
    """Code, status, detail and the list of errors, for programs and for people."""
    talk, player = session()
    errors = [{"pointer": "/args/width", "detail": "a whole number is expected"}]
    with pytest.raises(Refused) as caught:
        player.play(
            flows.submit(talk, "add", {"width": "x"}, {}), problem(422, "invalid_args", errors=errors)
        )
    assert (caught.value.code, caught.value.status, caught.value.errors) == ("invalid_args", 422, errors)
    assert str(caught.value) == "invalid_args (422): about invalid_args"


def test_an_answer_of_somebody_else_is_an_error() -> None:
    """A web server that says 200 to everything is no daemon."""
    with pytest.raises(ClientError, match="not the answer of a jobsvc daemon"):
        job_of(Reply(200, {}, b"<html>hello</html>"))


def test_list_reads_page_by_page_up_to_the_limit() -> None:
    """The cursor of one page asks for the next; no more rows are asked for than wanted."""
    talk, player = session()
    filters = {"state": ["failed", "expired"], "labels": {"team_": "a b"}, "task": None}
    player.play(
        flows.list_jobs(talk, filters, 3),
        reply({"jobs": [job(), job()], "next": "more"}),
        reply({"jobs": [job()], "next": "even-more"}),
    )
    assert len(player.emitted) == 3
    assert [request.target for request in player.asked] == [
        "/v1/jobs?state=failed%2Cexpired&label.team_=a+b&limit=3",
        "/v1/jobs?state=failed%2Cexpired&label.team_=a+b&limit=1&cursor=more",
    ]


def test_an_id_cannot_leave_its_place_in_the_path() -> None:
    """Ids come from users: slashes and question marks are quoted."""
    assert calls.get("../x?y").target == "/v1/jobs/..%2Fx%3Fy"
    assert calls.stream("a/b", "in/out", 5).target == "/v1/jobs/a%2Fb/streams/in%2Fout?from=5"


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": [{"b": float("-inf")}]}])
def test_numbers_that_json_lacks_are_refused_before_they_are_sent(value: Any) -> None:
    """The encoder would write null; that is never what was meant."""
    with pytest.raises(ValueError, match="NaN"):
        calls.encode({"args": value})
    assert calls.encode({"args": [None, "null", 1.5]}) == b'{"args":[null,"null",1.5]}'


def test_a_silent_reply_counts_as_sent() -> None:
    """A timeout of a read tells nothing about what the daemon did."""
    talk, player = session()
    with pytest.raises(Unreachable) as caught:
        player.play(flows.ask_job(talk, calls.retry(JOB_ID)), Broken("no answer", sent=True, silent=True))
    assert caught.value.maybe_sent
