"""The conversation behind `map`: outcomes in the order of the input, whatever the network and the jobs do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from jobsvc.client import mapping
from jobsvc.client.bulk import Batch, MapLines, batches
from jobsvc.client.core import Broken, Reply, Session
from jobsvc.client.errors import ClientError, JobFailed, Refused, Unreachable
from tests.client.scripted import CUT, Body, job, ndjson, problem, reply, session


def accepted(*lines: int) -> list[dict[str, Any]]:
    return [{"line": line, "id": f"id-{line}"} for line in lines]


def ended(line: int, result: Any = None, state: str = "succeeded", error: Any = None) -> dict[str, Any]:
    return {"line": line, "id": f"id-{line}", "state": state, "result": result, "error": error}


def source(talk: Session, inputs: Any, **options: Any) -> Iterator[Batch]:
    return batches(inputs, MapLines("t", options), talk.clock)  # type: ignore[arg-type]


def test_outcomes_come_in_the_order_of_the_input() -> None:
    """Jobs end in any order; values are handed out as soon as all before them are there."""
    talk, player = session()
    body = ndjson(*accepted(1, 2, 3), ended(3, "c"), ended(1, "a"), ended(2, "b"))
    player.play(mapping.outcomes(talk, source(talk, "xyz"), follow=True), body)
    assert player.emitted == ["a", "b", "c"]
    assert player.asked[0].target == "/v1/jobs/bulk?follow=out"
    assert body.closed


def test_failures_and_refusals_stand_in_their_places() -> None:
    """Neither stops the others; a refusal knows its line."""
    talk, player = session()
    no = {"line": 2, "problem": {"status": 422, "code": "invalid_args", "detail": "no"}}
    boom = {"kind": "task_error", "type": "ValueError", "message": "boom"}
    body = ndjson(*accepted(1), no, *accepted(3), ended(3, 3), ended(1, None, "failed", boom))
    player.play(mapping.outcomes(talk, source(talk, [1, 2, 3]), follow=True), body)
    first, second, third = player.emitted
    assert isinstance(first, JobFailed)
    assert (first.job_id, first.kind, first.job) == ("id-1", "task_error", None)
    assert isinstance(second, Refused)
    assert (second.line, second.code) == (2, "invalid_args")
    assert third == 3


def test_without_follow_the_values_are_ids() -> None:
    """What `submit_many` runs."""
    talk, player = session()
    player.play(mapping.outcomes(talk, source(talk, [1, 2]), follow=False), ndjson(*accepted(1, 2)))
    assert player.emitted == ["id-1", "id-2"]
    assert player.asked[0].target == "/v1/jobs/bulk"


def test_a_broken_reply_costs_nothing_once_the_ids_are_known() -> None:
    """The rest is asked for by id: done, deleted meanwhile, and still running (asked again)."""
    talk, player = session()
    player.play(
        mapping.outcomes(talk, source(talk, [1, 2, 3]), follow=True),
        ndjson(*accepted(1, 2, 3), ended(2, "b"), broken=CUT),
        reply({"jobs": [{**job("succeeded", result="a"), "id": "id-1"}], "next": None, "missing": []}),
        CUT,
        reply({"jobs": [], "next": None, "missing": ["id-3"]}),
    )
    assert player.emitted[:2] == ["a", "b"]
    gone = player.emitted[2]
    assert isinstance(gone, Refused)
    assert gone.code == "purged"
    assert player.asked[1].target == "/v1/jobs?id=id-1,id-3&wait=30&until=any"
    assert player.asked[3].target == "/v1/jobs?id=id-3&wait=30&until=any"


def test_a_reply_that_ends_early_is_completed_by_id() -> None:
    """A stopping daemon closes cleanly; the jobs go on with the next one."""
    talk, player = session()
    done = {**job("succeeded", result=1), "id": "id-1"}
    player.play(
        mapping.outcomes(talk, source(talk, [1]), follow=True),
        ndjson(*accepted(1)),
        reply({"jobs": [done], "next": None}),
    )
    assert player.emitted == [1]


def test_a_batch_without_keys_is_not_sent_twice() -> None:
    """Its jobs may exist, and nobody knows their ids: the caller must decide."""
    talk, player = session()
    with pytest.raises(Unreachable, match="lines 1 to 2") as caught:
        player.play(
            mapping.outcomes(talk, source(talk, [1, 2]), follow=True), ndjson(*accepted(1), broken=CUT)
        )
    assert caught.value.maybe_sent


def test_a_batch_with_keys_is_sent_again() -> None:
    """The same lines give the same jobs."""
    talk, player = session()
    player.play(
        mapping.outcomes(talk, source(talk, [1, 2], key="k"), follow=True),
        ndjson(*accepted(1), broken=CUT),
        CUT,
        ndjson(*accepted(1, 2), ended(1, "a"), ended(2, "b")),
    )
    assert player.emitted == ["a", "b"]
    assert player.asked[0].body == player.asked[2].body


def reply_lines(*lines: dict[str, Any]) -> Reply:
    return Reply(200, {}, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


def busy(line: int, *, retry_safe: bool = True) -> dict[str, Any]:
    fields = {
        "status": 503,
        "code": "draining",
        "detail": "later",
        "retry_safe": retry_safe,
        "retry_after_s": 1,
    }
    return {"line": line, "problem": fields}


def test_lines_refused_for_load_are_sent_again() -> None:
    """Only those, as often as it takes; the others' outcomes are read on from the first reply."""
    talk, player = session()
    rows = [{**job("succeeded", result=text), "id": name} for text, name in (("B", "new-2"), ("C", "new-3"))]
    player.play(
        mapping.outcomes(talk, source(talk, ["a", "b", "c"]), follow=True),
        ndjson(*accepted(1), busy(2), busy(3), ended(1, "A")),
        reply_lines({"line": 1, "id": "new-2"}, busy(2)),
        reply_lines({"line": 1, "id": "new-3"}),
        reply({"jobs": rows, "next": None}),
    )
    assert player.emitted == ["A", "B", "C"]
    assert [request.body.count(b"\n") for request in player.asked[:3]] == [3, 2, 1]
    assert b'"args":"c"' in player.asked[2].body
    assert player.pauses == [pytest.approx(1.1)] * 2


def test_lines_refused_for_good_stay_so() -> None:
    """Nothing is sent again that the daemon does not call safe, and a failing second try loses nothing."""
    talk, player = session()
    body = ndjson(*accepted(1), busy(2, retry_safe=False), ended(1, "A"))
    player.play(mapping.outcomes(talk, source(talk, [1, 2]), follow=True), body)
    assert player.emitted[0] == "A"
    assert isinstance(player.emitted[1], Refused)

    talk, player = session()
    body = ndjson(*accepted(1), busy(2), ended(1, "A"))
    player.play(mapping.outcomes(talk, source(talk, [1, 2]), follow=True), body, problem(403, "forbidden"))
    assert player.emitted[0] == "A"
    assert isinstance(player.emitted[1], Refused)


def test_two_batches_are_in_flight() -> None:
    """The second is sent, and its ids are known, before the first one's outcomes are read."""
    talk, player = session()
    count = 256 + 1
    first = Body(200, {}, [b""])
    first.pieces = [
        *ndjson(*accepted(*range(1, 257))).pieces,
        *ndjson(*[ended(line, line) for line in range(1, 257)]).pieces,
    ]
    player.play(
        mapping.outcomes(talk, source(talk, range(count)), follow=True),
        first,
        ndjson(*accepted(1), ended(1, 257)),
    )
    assert player.emitted == list(range(1, 258))
    assert len(player.asked) == 2


def test_what_was_accepted_is_handed_out_before_the_whole_fails() -> None:
    """A refused second batch does not take away the results of the first."""
    talk, player = session()
    lines = [*accepted(*range(1, 257)), *[ended(line, line) for line in range(1, 257)]]
    with pytest.raises(Refused, match="forbidden"):
        player.play(
            mapping.outcomes(talk, source(talk, range(300)), follow=True),
            ndjson(*lines),
            problem(403, "forbidden"),
        )
    assert len(player.emitted) == 256


def test_an_input_that_raises_does_so_in_its_place() -> None:
    """The results of what it gave before come first."""
    talk, player = session()

    def inputs() -> Iterator[int]:
        yield 1
        raise RuntimeError("the file is gone")

    with pytest.raises(RuntimeError, match="the file is gone"):
        player.play(
            mapping.outcomes(talk, source(talk, inputs()), follow=True), ndjson(*accepted(1), ended(1, "a"))
        )
    assert player.emitted == ["a"]


@pytest.mark.parametrize("pieces", [[b"<html>\n"], [b'{"line":7,"id":"x"}\n']])
def test_a_reply_of_somebody_else_is_an_error(pieces: list[bytes | Broken]) -> None:
    """Neither a page of a proxy nor lines that were never sent are taken."""
    talk, player = session()
    with pytest.raises(ClientError, match="not the bulk reply"):
        player.play(mapping.outcomes(talk, source(talk, [1]), follow=True), Body(200, {}, pieces))
