"""Submits joined into one request: who goes when, who is told what, who is sent again. No sockets, no time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from jobsvc.client.core import Exchange, Flow, Request
from jobsvc.client.errors import ClientError, Refused, Unreachable
from jobsvc.client.joining import JOINED_LINES, Joiner
from jobsvc.client.shapes import Job
from tests.client.scripted import CUT, JOB_ID, REFUSED, job, problem, reply, session


class Wire:
    """Starts flows and leaves them alone until the test plays them; keys are k1, k2 and so on."""

    def __init__(self, tries: int = 4) -> None:
        made, self.player = session(tries)
        made.new_key = self._key
        self._keys = 0
        self.flows: list[Started] = []
        self.joiner = Joiner(made, self._start)
        self.told: dict[str, Job | Exception] = {}

    def _key(self) -> str:
        self._keys += 1
        return f"k{self._keys}"

    def _start(self, flow: Flow[None]) -> Started:
        self.flows.append(Started(flow))
        return self.flows[-1]

    def submit(self, name: str, **args: Any) -> Callable[[], None]:
        """Submit for a caller of this name."""
        return self.joiner.submit("add", args or None, {}, lambda outcome: self.told.update({name: outcome}))

    def play(self, *script: Any) -> list[Request]:
        """Play the oldest flow; what it asked."""
        before = len(self.player.asked)
        self.player.play(self.flows.pop(0).flow, *script)
        return self.player.asked[before:]


class Started:
    """A flow that is being run."""

    def __init__(self, flow: Flow[None]) -> None:
        self.flow = flow
        self.given_up = False

    def cancel(self) -> None:
        self.given_up = True
        self.flow.close()


def rows(*lines: dict[str, Any]) -> Any:
    """A bulk reply in one piece."""
    body = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    return reply({})._replace(body=body)


def asked_by(flow: Flow[None]) -> Request:
    """What a flow asks first."""
    step = next(flow)
    assert isinstance(step, Exchange)
    return step.request


def keys(request: Request) -> list[str]:
    return [msgspec.json.decode(line)["key"] for line in request.body.splitlines()]


BUSY = {
    "status": 429,
    "code": "queue_full",
    "title": "",
    "type": "about:blank",
    "retry_safe": True,
    "retry_after_s": 7,
}


def test_the_first_goes_alone_and_at_once() -> None:
    """Nothing is held back for others that might come."""
    wire = Wire()
    wire.submit("a", x=1)
    [request] = wire.play(reply(job(), 201))
    assert (request.method, request.target) == ("POST", "/v1/jobs")
    assert msgspec.json.decode(request.body) == {"task": "add", "args": {"x": 1}, "key": "k1"}
    assert isinstance(wire.told["a"], Job)
    assert wire.flows == []


def test_what_comes_meanwhile_goes_together() -> None:
    """One request for all that came while another was under way; each line has its key, each caller its own answer."""
    wire = Wire()
    for name in "abcd":
        wire.submit(name)
    assert len(wire.flows) == 1
    wire.play(reply(job(), 201))
    other = {**job(), "id": "other", "task": "mul"}
    refused = {"status": 422, "code": "invalid_args", "title": "", "type": "about:blank"}
    [request] = wire.play(
        rows(
            {"line": 1, "id": JOB_ID, "job": job()},
            {"line": 2, "problem": refused},
            {"line": 3, "id": "other", "job": other},
        )
    )
    assert (request.target, keys(request)) == ("/v1/jobs/bulk?full=1", ["k2", "k3", "k4"])
    b, c, d = wire.told["b"], wire.told["c"], wire.told["d"]
    assert isinstance(b, Job)
    assert isinstance(c, Refused)
    assert (c.code, c.line) == ("invalid_args", None)
    assert isinstance(d, Job)
    assert (b.id, d.id, d.task) == (JOB_ID, "other", "mul")


def test_one_that_comes_meanwhile_goes_alone() -> None:
    """A bulk request of one line would be a plain submit with more words."""
    wire = Wire()
    wire.submit("a")
    wire.submit("b")
    wire.play(reply(job(), 201))
    [request] = wire.play(reply(job(), 201))
    assert request.target == "/v1/jobs"
    assert set(wire.told) == {"a", "b"}


def test_requests_are_bounded() -> None:
    """By lines and by bytes; a large one goes alone."""
    wire = Wire()
    for number in range(JOINED_LINES + 2):
        wire.submit(str(number))
    wire.play(reply(job(), 201))
    assert len(asked_by(wire.flows[0].flow).body.splitlines()) == JOINED_LINES
    wire.joiner.close()

    wire = Wire()
    for name in "abc":
        wire.submit(name, x="y" * 600_000)
    wire.play(reply(job(), 201))
    for _ in "bc":
        [request] = wire.play(reply(job(), 201))
        assert request.target == "/v1/jobs"


def test_a_request_that_pauses_lets_others_go() -> None:
    """One that the daemon asks to come again later holds up nobody else."""
    wire = Wire()
    wire.submit("a")
    wire.submit("b")
    first = wire.flows[0].flow
    first.send(None)
    assert len(wire.flows) == 1
    first.send(problem(429, "queue_full", retry_safe=True, retry_after_s=20))
    assert len(wire.flows) == 2
    wire.flows.reverse()
    wire.play(reply(job(), 201))
    assert set(wire.told) == {"b"}
    first.send(None)
    with pytest.raises(StopIteration):
        first.send(reply(job(), 201))
    assert set(wire.told) == {"a", "b"}


def test_busy_lines_are_sent_again_by_themselves() -> None:
    """Refused for load: the same line, the same key, after the delay asked for; the others know at once."""
    wire = Wire()
    for name in "abc":
        wire.submit(name)
    wire.play(reply(job(), 201))
    requests = wire.play(
        rows({"line": 1, "problem": BUSY}, {"line": 2, "id": JOB_ID, "job": job()}),
        rows({"line": 1, "id": JOB_ID, "job": job()}),
    )
    assert [keys(request) for request in requests] == [["k2", "k3"], ["k2"]]
    assert wire.player.pauses == [pytest.approx(7.1)]
    assert isinstance(wire.told["b"], Job)


def test_a_line_that_stays_busy_is_refused_in_the_end() -> None:
    """After as many tries as any other request has."""
    wire = Wire(tries=2)
    for name in "abc":
        wire.submit(name)
    wire.play(reply(job(), 201))
    ok = {"line": 2, "id": JOB_ID, "job": job()}
    wire.play(rows({"line": 1, "problem": BUSY}, ok), rows({"line": 1, "problem": BUSY}))
    refused = wire.told["b"]
    assert isinstance(refused, Refused)
    assert refused.code == "queue_full"


def test_a_broken_connection_repeats_the_whole() -> None:
    """Keys make it safe; when it stays broken every caller hears so."""
    wire = Wire(tries=2)
    for name in "abc":
        wire.submit(name)
    wire.play(reply(job(), 201))
    requests = wire.play(CUT, rows(*({"line": n, "id": JOB_ID, "job": job()} for n in (1, 2))))
    assert requests[0] == requests[1]
    for name in "def":
        wire.submit(name)
    wire.play(REFUSED, REFUSED)
    wire.play(CUT, CUT)
    assert [getattr(wire.told[name], "maybe_sent", None) for name in "abcdef"] == [
        None,
        None,
        None,
        False,
        True,
        True,
    ]


def test_a_refusal_of_the_whole_goes_to_all() -> None:
    """A wrong token is everybody's problem."""
    wire = Wire()
    for name in "abc":
        wire.submit(name)
    wire.play(reply(job(), 201))
    wire.play(problem(401, "unauthenticated"))
    assert {str(getattr(wire.told[name], "code", "")) for name in "bc"} == {"unauthenticated"}


def test_a_reply_that_makes_no_sense_is_told() -> None:
    """Lines nobody sent, no lines at all, no JSON: an error for each caller, never silence."""
    for answer in (rows({"line": 9, "id": "x"}), rows(), rows()._replace(body=b"<html>\n")):
        wire = Wire()
        for name in "abc":
            wire.submit(name)
        wire.play(reply(job(), 201))
        wire.play(answer)
        assert isinstance(wire.told["b"], ClientError)
        assert isinstance(wire.told["c"], ClientError)


def test_a_job_that_is_not_in_the_reply_is_asked_for() -> None:
    """It ended and was deleted meanwhile: the daemon's word on it is the answer."""
    wire = Wire()
    for name in "abc":
        wire.submit(name)
    wire.play(reply(job(), 201))
    ok = {"line": 2, "id": JOB_ID, "job": job()}
    requests = wire.play(rows({"line": 1, "id": "gone", "job": None}, ok), reply(job(), 200))
    assert requests[-1].target == "/v1/jobs/gone"
    assert isinstance(wire.told["b"], Job)


def test_leaving_gives_up_the_request_and_no_other() -> None:
    """What was not sent is not sent; what went with others is given up with the last of them."""
    wire = Wire()
    leave_a = wire.submit("a")
    leave_b, leave_c = wire.submit("b"), wire.submit("c")
    wire.submit("d")
    leave_b()
    first = wire.flows.pop(0)
    first.flow.send(None)
    leave_a()
    assert first.given_up
    together = wire.flows[0]
    assert keys(asked_by(together.flow)) == ["k3", "k4"]
    leave_c()
    assert not together.given_up
    with pytest.raises(StopIteration):
        together.flow.send(rows(*({"line": n, "id": JOB_ID, "job": job()} for n in (1, 2))))
    assert set(wire.told) == {"d"}


def test_closing_tells_everybody() -> None:
    """Nobody waits for ever: neither who is under way nor who waits behind."""
    wire = Wire()
    wire.submit("a")
    wire.submit("b")
    wire.joiner.close()
    assert all(isinstance(outcome, Unreachable) for outcome in wire.told.values())
    assert set(wire.told) == {"a", "b"}
    assert wire.flows[0].given_up


def test_bad_arguments_are_raised_at_once() -> None:
    """They concern nobody else."""
    wire = Wire()
    with pytest.raises(ValueError, match="NaN"):
        wire.submit("a", x=float("nan"))
    with pytest.raises(TypeError):
        wire.submit("a", x=object())
    assert wire.flows == []


def test_a_wire_that_answers_at_once_is_fine() -> None:
    """Flows that run to their end while they are started do not pile up."""
    made, player = session()
    told: list[Any] = []

    def run(flow: Flow[None]) -> Started:
        player.play(flow, reply(job(), 201))
        return Started(flow)

    joiner = Joiner(made, run)
    for _ in range(3):
        joiner.submit("add", None, {}, told.append)
    assert [outcome.id for outcome in told] == [JOB_ID] * 3
