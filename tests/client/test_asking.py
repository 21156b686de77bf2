"""Waits that share requests: who is asked for when, who is told what. No sockets, no time."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from jobsvc.client import asking
from jobsvc.client.asking import ASKING, Asker
from jobsvc.client.core import Exchange, Flow
from jobsvc.client.errors import Refused, Unreachable
from jobsvc.client.shapes import Job
from tests.client.scripted import CUT, job, problem, reply, session


class Started:
    """A flow under way, moved by the test."""

    def __init__(self, flow: Flow[None]) -> None:
        self.flow = flow
        self.ended = self.given_up = False
        self.step: Any = next(flow)

    @property
    def query(self) -> dict[str, str]:
        assert isinstance(self.step, Exchange)
        return {name: text[0] for name, text in parse_qs(urlsplit(self.step.request.target).query).items()}

    @property
    def ids(self) -> list[str]:
        return self.query["id"].split(",")

    def answer(self, *jobs: dict[str, Any], missing: tuple[str, ...] = ()) -> None:
        self.send(reply({"jobs": jobs, "next": None, "missing": missing}))

    def send(self, answer: Any) -> None:
        try:
            self.step = self.flow.send(answer)
        except StopIteration:
            self.ended = True

    def cancel(self) -> None:
        self.given_up = True
        self.flow.close()


class Waits:
    """An asker whose requests the test answers."""

    def __init__(self) -> None:
        made, _ = session(tries=1)
        self.requests: list[Started] = []
        self.asker = Asker(made, self._start)
        self.told: dict[str, Any] = {}

    def _start(self, flow: Flow[None]) -> Started:
        self.requests.append(Started(flow))
        return self.requests[-1]

    def watch(self, job_id: str, name: str = "") -> Any:
        return self.asker.watch(job_id, lambda end: self.told.update({name or job_id: end}))


def done(job_id: str) -> dict[str, Any]:
    return {**job(), "id": job_id}


def queued(job_id: str) -> dict[str, Any]:
    return {**job("queued"), "id": job_id}


def test_a_few_requests_ask_for_all() -> None:
    """The first at once; what comes while all are under way goes with the next that is free."""
    waits = Waits()
    for number in range(ASKING + 3):
        waits.watch(f"j{number}")
    assert [request.ids for request in waits.requests] == [[f"j{number}"] for number in range(ASKING)]
    assert waits.requests[0].query["until"] == "any"
    waits.requests[0].answer(queued("j0"))
    assert waits.requests[0].ids == ["j4", "j5", "j6", "j0"]
    waits.requests[0].answer(done("j5"), queued("j4"), missing=("j6",))
    assert isinstance(waits.told["j5"], Job)
    assert isinstance(waits.told["j6"], Refused)
    assert waits.told["j6"].code == "purged"
    assert waits.requests[0].ids == ["j4", "j0"]
    waits.requests[0].answer(done("j4"), done("j0"))
    assert waits.requests[0].ended
    assert set(waits.told) == {"j0", "j4", "j5", "j6"}


def test_very_many_are_asked_for_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each id once in a round: the more there are, the shorter each request waits."""
    monkeypatch.setattr(asking, "ASK_IDS", 2)
    monkeypatch.setattr(asking, "ASKING", 1)
    waits = Waits()
    for number in range(7):
        waits.watch(f"j{number}")
    [request] = waits.requests
    seen = [request.ids]
    for _ in range(4):
        request.answer()
        seen.append(request.ids)
    assert seen == [["j0"], ["j1", "j2"], ["j3", "j4"], ["j5", "j6"], ["j0", "j1"]]
    assert float(request.query["wait"]) < asking.ROUND_S


def test_several_may_wait_for_one_job() -> None:
    """One id, one question, each is told; who has left is not."""
    waits = Waits()
    waits.watch("x", "a")
    leave = waits.watch("x", "b")
    waits.watch("x", "c")
    leave()
    [request] = waits.requests
    request.answer(done("x"))
    assert set(waits.told) == {"a", "c"}
    leave()


def test_jobs_nobody_waits_for_are_not_asked_for_again() -> None:
    """The last one who left takes the question along."""
    waits = Waits()
    leave = waits.watch("x")
    waits.watch("y")
    leave()
    waits.requests[0].answer(queued("x"))
    assert waits.requests[0].ended
    assert not waits.requests[1].ended


def test_a_refusal_goes_to_those_it_concerns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are asked for all the same."""
    monkeypatch.setattr(asking, "ASKING", 1)
    waits = Waits()
    waits.watch("x")
    waits.watch("y")
    [request] = waits.requests
    request.send(problem(403, "forbidden"))
    assert waits.told["x"].code == "forbidden"
    assert request.ids == ["y"]
    request.send(reply([1, 2]))
    assert "not the answer of a jobsvc daemon" in str(waits.told["y"])


def test_a_restart_is_waited_for() -> None:
    """The daemon was there when the job was submitted: a broken connection is met with patience."""
    waits = Waits()
    waits.watch("x")
    [request] = waits.requests
    request.step = request.flow.throw(CUT)
    request.send(None)
    request.answer(done("x"))
    assert isinstance(waits.told["x"], Job)


def test_closing_tells_everybody() -> None:
    """Under way or not."""
    waits = Waits()
    for number in range(ASKING + 1):
        waits.watch(f"j{number}")
    waits.asker.close()
    assert {type(end) for end in waits.told.values()} == {Unreachable}
    assert len(waits.told) == ASKING + 1
    assert all(request.given_up for request in waits.requests)
