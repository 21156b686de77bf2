"""Conditional requests: If-Match on everything that changes a job, If-None-Match on what is looked at. B55, B56."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.house import House
from tests.http.wire import Reply


def waiting(house: House, **fields: Any) -> dict[str, Any]:
    """A job that stays queued: no worker offers its executor."""
    return house.submit("idle", **fields)


def unknown_like(job: dict[str, Any]) -> str:
    """An id of the same moment that no job has."""
    return f"{job['id'][:-6]}000000"


def patch(house: House, job: dict[str, Any], value: Any, tag: str | None = "now") -> Reply:
    """PATCH under a tag; `now` is the one that the job had when it was submitted."""
    headers = {} if tag is None else {"If-Match": f'"r{job["revision"]}"' if tag == "now" else tag}
    return house.ask("PATCH", f"/v1/jobs/{job['id']}", value, headers)


def test_a_waiting_job_is_changed(house: House) -> None:
    """200 with the job and its new ETag; the old one is stale from then on, and the reply says which is not."""
    job = waiting(house, labels={"a": "b"})
    reply = patch(house, job, {"priority": 7, "labels": {"c": "d"}, "timeouts": {"run": 3}})
    changed = reply.json()
    assert (reply.status, reply.headers["etag"], changed["revision"]) == (200, '"r2"', 2)
    assert (changed["priority"], changed["labels"], changed["timeouts"]["run"]) == (
        7,
        {"a": "b", "c": "d"},
        3.0,
    )
    assert house.ask("GET", f"/v1/jobs/{job['id']}").json() == changed
    stale = patch(house, job, {"priority": 1})
    problem = stale.json()
    assert (stale.status, problem["code"], stale.headers["etag"]) == (412, "stale", '"r2"')
    assert (problem["job"], problem["revision"]) == (job["id"], 2)


def test_patch_needs_if_match(house: House) -> None:
    """428 says what to send (RFC 6585); `*` is a way to say "whichever"."""
    job = waiting(house)
    bare = patch(house, job, {"priority": 1}, None)
    assert (bare.status, bare.json()["code"]) == (428, "precondition_required")
    assert "If-Match" in bare.json()["detail"]
    assert patch(house, job, {"priority": 1}, "*").json()["priority"] == 1


TAGS = [
    ('"r1"', 200),
    (' "other" ,, "r1"', 200),
    ('"r9","r1"', 200),
    ('"a,b", "r1"', 200),
    ('W/"r1"', 412),
    ('"r01"', 412),
    ('"R1"', 412),
    ('"other"', 412),
    ('""', 412),
    ("r1", 400),
    ('"r1', 400),
    ('"r1" "r2"', 400),
    ('"r1"x', 400),
    ('*, "r1"', 400),
    ("* *", 400),
    (" , ,", 400),
    ('w/"r1"', 400),
    ('"r 1"', 400),
]


def test_tags_are_read_as_rfc_9110_says(house: House) -> None:
    """Lists with empty members, commas within a tag; weak ones never match strongly; the rest is refused."""
    for tag, status in TAGS:
        reply = patch(house, waiting(house), {"priority": 1}, tag)
        assert reply.status == status, (tag, reply)
        if status == 400:
            assert reply.json()["code"] == "bad_query"
            assert "If-Match" in reply.json()["detail"]


def test_several_header_lines_are_one_list(house: House) -> None:
    job = waiting(house)
    wire = house.wire()
    body = b'{"priority":1}'
    wire.request("PATCH", f"/v1/jobs/{job['id']}", body, {"If-Match": '"r7"\r\nIf-Match: "r1"'})
    assert wire.reply().status == 200


def test_a_long_list_of_nothing_is_read_at_once(house: House) -> None:
    """No pattern that takes longer than its text: 10 KiB of blanks and commas are one refusal."""
    reply = patch(house, waiting(house), {"priority": 1}, ", " * 5_000 + "x")
    assert reply.status == 400


WRONG: list[tuple[Any, str]] = [
    ({"queue": "x"}, "/queue"),
    ({"args": {}}, "/args"),
    ({"priority": 101}, "/priority"),
    ({"priority": None}, "/priority"),
    ({"priority": True}, "/priority"),
    ({"run_at": "tomorrow"}, "/run_at"),
    ({"timeouts": {"run": 0}}, "/timeouts/run"),
    ({"timeouts": {"walk": 1}}, "/timeouts/walk"),
    ({"labels": {"a b": "x"}}, "/labels/a b"),
    ([], ""),
]


def test_a_wrong_field_is_422_with_its_pointer(house: House) -> None:
    job = waiting(house)
    for body, pointer in WRONG:
        reply = patch(house, job, body)
        assert (reply.status, reply.json()["code"]) == (422, "invalid_field")
        assert reply.json()["errors"][0]["pointer"] == pointer


def test_what_is_no_json_object_at_all(house: House) -> None:
    job = waiting(house)
    target, tag = f"/v1/jobs/{job['id']}", {"If-Match": "*"}
    assert house.ask("PATCH", target, headers=tag | {"Content-Length": "0"}).status == 400
    assert house.ask("PATCH", target, headers=tag, raw=b"{").json()["code"] == "bad_json"
    merge = {"Content-Type": "application/merge-patch+json"}
    assert house.ask("PATCH", target, {"priority": 2}, tag | merge).json()["priority"] == 2
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert house.ask("PATCH", target, headers=tag | form, raw=b"priority=2").status == 415


def test_a_running_job_and_one_that_is_not_there(house: House) -> None:
    """409 under the right tag, 412 under an old one, 404."""
    job = house.submit()
    assert patch(house, job, {"priority": 1}).json()["code"] == "conflict"
    assert patch(house, job, {"priority": 1}, '"r1"').status == 412
    unknown = {"id": unknown_like(job), "revision": 1}
    assert patch(house, unknown, {"priority": 1}).status == 404


def test_a_moment_is_changed(house: House) -> None:
    """run_at in the reply is the new one; null starts it."""
    job = house.submit(delay_s=600)
    later = patch(house, job, {"run_at": "2026-12-01T00:00:00Z"})
    assert (later.status, later.json()["run_at"]) == (200, "2026-12-01T00:00:00.000000Z")
    now = patch(house, later.json(), {"run_at": None})
    assert (now.json()["state"], now.json()["run_at"]) == ("queued", None)
    assert house.worker.started[-1].task == "echo"


@pytest.mark.parametrize("verb", ["cancel", "run", "retry", "delete"])
def test_if_match_is_honoured_by_every_change(house: House, verb: str) -> None:
    """B55: 412 with the present ETag, and nothing has happened; with that ETag it is done."""
    job = house.done() if verb in ("retry", "delete") else house.submit(delay_s=600)
    target = f"/v1/jobs/{job['id']}"
    now = house.ask("GET", target)

    def ask(tag: str) -> Reply:
        if verb == "delete":
            return house.ask("DELETE", target, headers={"If-Match": tag})
        return house.ask("POST", f"{target}/{verb}", headers={"If-Match": tag})

    for wrong in ('"r99"', 'W/"r1"', '"x"'):
        refused = ask(wrong)
        assert (refused.status, refused.json()["code"]) == (412, "stale")
        assert refused.headers["etag"] == now.headers["etag"]
    assert ask("nonsense").status == 400
    assert house.ask("GET", target).json() == now.json()
    assert ask(f'"r99", {now.headers["etag"]}').status == {"retry": 201, "delete": 204}.get(verb, 200)


def test_cancel_of_a_running_job_under_a_tag(house: House) -> None:
    """B55: the engine's memory counts, which is ahead of the row."""
    job = house.submit()
    target = f"/v1/jobs/{job['id']}"
    assert house.ask("POST", f"{target}/cancel", headers={"If-Match": '"r1"'}).status == 412
    etag = house.ask("GET", target).headers["etag"]
    assert house.ask("POST", f"{target}/cancel", headers={"If-Match": etag}).status == 202


def test_cancel_twice_and_of_what_has_ended(house: House) -> None:
    """B56: 202 again while it stops; 409 when it has ended; 404 for what is not there."""
    job = house.submit()
    target = f"/v1/jobs/{job['id']}/cancel"
    assert [house.ask("POST", target).status for _ in range(2)] == [202, 202]
    house.worker.fail(house.worker.started[0])
    assert house.ask("POST", target).status == 409
    other = waiting(house)
    assert house.ask("POST", f"/v1/jobs/{other['id']}/cancel").status == 200
    assert house.ask("POST", f"/v1/jobs/{other['id']}/cancel").status == 409
    assert house.ask("POST", f"/v1/jobs/{unknown_like(job)}/cancel").status == 404


def test_an_unknown_mode_is_told_the_modes(house: House) -> None:
    job = house.submit()
    for mode in ("kill", "", None, 5):
        reply = house.ask("POST", f"/v1/jobs/{job['id']}/cancel", {"mode": mode})
        assert (reply.status, reply.json()["errors"][0]["pointer"]) == (422, "/mode")
        assert "polite, deadline, now" in reply.json()["detail"]


def test_a_grace_without_a_deadline_is_refused(house: House) -> None:
    """It would be passed over."""
    job = house.submit()
    for mode in ("now", "polite"):
        reply = house.ask("POST", f"/v1/jobs/{job['id']}/cancel", {"mode": mode, "grace_s": 3})
        assert (reply.status, reply.json()["errors"][0]["pointer"]) == (422, "/grace_s")


def test_304_for_any_tag_that_is_known(house: House) -> None:
    """By weak comparison, in lists, and by `*`; the job for any other, 400 for what is no tag."""
    job = house.submit()
    for tag in ('"r2"', 'W/"r2"', '"r1", W/"r2"', "*", '"x", "r2"'):
        reply = house.ask("GET", f"/v1/jobs/{job['id']}", headers={"If-None-Match": tag})
        assert (reply.status, reply.headers["etag"], reply.body) == (304, '"r2"', b"")
    for tag, status in (('"r1"', 200), ('"x"', 200), ('"r02"', 200), ("r2", 400), ('"r2', 400)):
        assert house.ask("GET", f"/v1/jobs/{job['id']}", headers={"If-None-Match": tag}).status == status


@pytest.mark.parametrize("tag", ['"r1", "r2"', "*", '"r2"'])
def test_a_long_poll_with_several_tags(house: House, tag: str) -> None:
    """It waits for a revision beyond the present one; 304 when none comes."""
    job = house.submit()
    target = f"/v1/jobs/{job['id']}?wait=5"
    quiet = house.start("GET", target, headers={"If-None-Match": tag})
    house.after(5.1)
    assert quiet.reply().status == 304
    moved = house.start("GET", target, headers={"If-None-Match": tag})
    assert moved.sent == b""
    house.worker.succeed(house.worker.started[0], b"1")
    assert moved.reply().status == (304 if tag == "*" else 200)  # there is one: that is what `*` asks


def test_a_long_poll_that_lags_is_answered_at_once(house: House) -> None:
    """Between two known revisions there may be one that is not."""
    job = house.submit()
    known = {"If-None-Match": '"r1", "r9"'}
    assert house.ask("GET", f"/v1/jobs/{job['id']}?wait=5", headers=known).json()["revision"] == 2


def test_the_description_is_not_sent_twice(house: House) -> None:
    tag = house.ask("GET", "/openapi.json").headers["etag"]
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        assert house.ask("GET", "/openapi.json", headers={"If-None-Match": known}).status == 304
    assert house.ask("GET", "/openapi.json", headers={"If-None-Match": '"x"'}).status == 200
