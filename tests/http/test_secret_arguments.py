"""Secret arguments as the edge shows them: three stars on every way on which a job is read."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from jobsvc.model.sealing import KeyRing, opened
from jobsvc.model.typetree import TypeNode, from_bytes
from tests.http.house import TASKS, House, spec

SECRET = "hunter2"
LOGIN = spec("login", "process", {"user": TypeNode("str"), "password": TypeNode("secret")})
NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def house(house: House) -> House:
    """One that has keys, and a task with a secret."""
    numbers = itertools.count(1)
    house.engine.board.ring = KeyRing(
        {"aaaaaaaa": bytes(32)}, lambda count: next(numbers).to_bytes(count, "big")
    )
    house.engine.tasks_changed({**TASKS, "login": LOGIN})
    return house


def test_every_reply_shows_stars(house: House) -> None:
    """Submit, wait, get, list, events, bulk and a replay."""
    args = {"user": "ada", "password": SECRET}
    job = house.submit("login", args=args, key="k")
    assert job["args"] == {"user": "ada", "password": "***"}
    replay = house.ask("POST", "/v1/jobs", {"task": "login", "args": args, "key": "k"})
    assert (replay.status, replay.json()["id"]) == (200, job["id"])
    other = house.ask(
        "POST", "/v1/jobs", {"task": "login", "args": args | {"password": "hunter3"}, "key": "k"}
    )
    assert other.json()["code"] == "key_reused"
    line = msgspec.json.encode({"task": "login", "args": ["ada", SECRET]}) + b"\n"
    bulk = house.ask("POST", "/v1/jobs/bulk", raw=line, headers=NDJSON)
    replies = [replay.body, other.body, bulk.body]
    paths = (
        f"/v1/jobs/{job['id']}",
        f"/v1/jobs/{job['id']}/events?follow=0",
        "/v1/jobs?include=args,result",
        f"/v1/jobs?id={job['id']},{bulk.lines()[0]['id']}",
    )
    replies += [house.ask("GET", path).body for path in paths]
    for body in replies:
        assert SECRET.encode() not in body
        assert b"$secret" not in body


def test_the_worker_gets_it_encrypted_with_the_key_of_this_job(house: House) -> None:
    """What travels opens to what was sent; another job's key does not open it; others get no key."""
    house.submit("login", args={"password": SECRET})
    house.submit("login", args={"password": SECRET})
    house.submit("echo")
    first, second, echo = house.worker.started
    assert SECRET.encode() not in first.body
    node = from_bytes(LOGIN.args_tree)
    assert opened(node, first.body, first.id, first.secret_key)[1] == [SECRET]
    assert first.secret_key != second.secret_key
    assert echo.secret_key == b""


def test_a_retried_job_is_encrypted_anew(house: House) -> None:
    """For its own id: an envelope of the old one would not open."""
    job = house.done("login", args={"password": SECRET})
    assert house.ask("POST", f"/v1/jobs/{job['id']}/retry").status == 201
    (start,) = house.worker.started
    assert opened(from_bytes(LOGIN.args_tree), start.body, start.id, start.secret_key)[1] == [SECRET]


@pytest.mark.parametrize("value", [7, None, [SECRET], {"$secret": SECRET}])
def test_a_secret_of_another_type_is_refused_without_showing_it(house: House, value: object) -> None:
    """An envelope made by a client is no string either."""
    reply = house.ask("POST", "/v1/jobs", {"task": "login", "args": {"password": value}})
    assert (reply.status, reply.json()["errors"][0]["pointer"]) == (422, "/args/password")
    assert SECRET.encode() not in reply.body


def test_what_only_looks_like_an_envelope_is_left_alone(house: House) -> None:
    """In arguments of any shape a member of that name means nothing."""
    job = house.submit("echo", args={"x": {"$secret": "mine"}})
    assert job["args"] == {"x": {"$secret": "mine"}}
