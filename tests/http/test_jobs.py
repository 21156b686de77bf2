"""Looking at jobs, waiting for them, changing them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.house import House

UNKNOWN = "/v1/jobs/01999999-0000-7000-8000-000000000000"


def test_get_and_its_etag(house: House) -> None:
    """The ETag is the revision; the same one back gives 304."""
    job = house.submit()
    target = f"/v1/jobs/{job['id']}"
    reply = house.ask("GET", target)
    assert (reply.status, reply.json()["id"]) == (200, job["id"])
    again = house.ask("GET", target, headers={"If-None-Match": reply.headers["etag"]})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", reply.headers["etag"])
    assert house.ask("GET", target, headers={"If-None-Match": '"r999"'}).status == 200
    assert house.ask("GET", target, headers={"If-None-Match": '"other"'}).status == 200


def test_a_long_poll_returns_when_the_job_is_done(house: House) -> None:
    """Not before, and at the end of the wait as it then is."""
    job = house.submit()
    wire = house.start("GET", f"/v1/jobs/{job['id']}?wait=30")
    short = house.start("GET", f"/v1/jobs/{job['id']}?wait=0.5")
    house.after(0.6)
    assert short.reply().json()["done"] is False
    assert wire.sent == b""
    house.worker.succeed(house.worker.started[0], b"7")
    assert wire.reply().json()["result"] == 7


def test_a_long_poll_for_the_next_revision(house: House) -> None:
    """304 when nothing changed, 200 at once when something did."""
    job = house.submit()
    tag = {"If-None-Match": f'"r{job["revision"]}"'}
    quiet = house.start("GET", f"/v1/jobs/{job['id']}?wait=5", headers=tag)
    house.after(5.1)
    assert quiet.reply().status == 304
    moved = house.start("GET", f"/v1/jobs/{job['id']}?wait=5", headers=tag)
    house.worker.fail(house.worker.started[0])
    assert (moved.reply().status, moved.reply().json()["state"]) == (200, "failed")


def test_many_at_once(house: House) -> None:
    """Full rows in the order asked for, and what is missing; any and all."""
    first, second = house.submit(args={"x": 1}), house.submit(args={"x": 2})
    ids = f"{second['id']},{first['id']},nonsense,{UNKNOWN[9:]}"
    page = house.ask("GET", f"/v1/jobs?id={ids}").json()
    assert [job["id"] for job in page["jobs"]] == [second["id"], first["id"]]
    assert page["jobs"][0]["args"] == {"x": 2}
    assert set(page["missing"]) == {"nonsense", UNKNOWN[9:]}
    both = f"/v1/jobs?id={first['id']},{second['id']}&wait=10&until="
    any_one, all_of_them = house.start("GET", both + "any"), house.start("GET", both + "all")
    house.worker.succeed(house.worker.started[0])
    assert [job["done"] for job in any_one.reply().json()["jobs"]] == [True, False]
    assert all_of_them.sent == b""
    house.worker.succeed(house.worker.started[1])
    assert [job["done"] for job in all_of_them.reply().json()["jobs"]] == [True, True]


def test_200_of_a_result_never_means_failure(house: House) -> None:
    """202 with the job while it runs, 200 with the bare result, 424 with the error."""
    job = house.submit()
    target = f"/v1/jobs/{job['id']}/result"
    early = house.ask("GET", target)
    assert (early.status, early.headers["retry-after"], early.json()["done"]) == (202, "1", False)
    waiting = house.start("GET", target + "?wait=30")
    house.worker.succeed(house.worker.started.pop(), b'{"a": [1, 2]}')
    assert (waiting.reply().status, waiting.reply().body) == (200, b'{"a": [1, 2]}')
    failed = house.submit()
    house.worker.fail(house.worker.started.pop(), "no luck")
    reply = house.ask("GET", f"/v1/jobs/{failed['id']}/result")
    problem = reply.json()
    assert (reply.status, problem["code"], problem["source"], problem["job"]) == (
        424,
        "job_failed",
        "job",
        failed["id"],
    )
    assert problem["error"]["type"] == "ValueError"
    assert "no luck" in problem["detail"]


def test_unknown_ids(house: House) -> None:
    """404 for what was never here, 410 for what is older than the retention."""
    newer = f"/v1/jobs/{(house.now_us() // 1000):012x}"
    fresh = f"{newer[:-4]}-{newer[-4:]}-7000-8000-000000000000".replace("/v1/jobs/", "")
    assert house.ask("GET", f"/v1/jobs/{fresh}").json()["code"] == "not_found"
    old = house.ask("GET", "/v1/jobs/00000000-0001-7000-8000-000000000000")
    assert (old.status, old.json()["code"]) == (410, "purged")
    for text in ("x", "A" * 5000, "00000000-0001-7000-8000-00000000000g", "'; DROP TABLE jobs"):
        reply = house.ask("GET", f"/v1/jobs/{text}".replace(" ", "%20"))
        assert (reply.status, reply.json()["code"]) == (404, "not_found")


def test_lists_are_paged_by_an_opaque_cursor(house: House) -> None:
    """Newest first, stable under inserts; the last page says so."""
    ids = [house.submit(args={"x": n})["id"] for n in range(5)]
    first = house.ask("GET", "/v1/jobs?limit=2").json()
    house.submit()
    second = house.ask("GET", f"/v1/jobs?limit=2&cursor={first['next']}").json()
    third = house.ask("GET", f"/v1/jobs?limit=2&cursor={second['next']}").json()
    seen = [job["id"] for page in (first, second, third) for job in page["jobs"]]
    assert seen == ids[::-1]
    assert third["next"] is None
    upward = house.ask("GET", "/v1/jobs?limit=5&order=asc").json()
    assert [job["id"] for job in upward["jobs"]] == ids
    wrong_way = house.ask("GET", f"/v1/jobs?order=asc&cursor={first['next']}")
    assert wrong_way.json()["code"] == "bad_query"


def test_lists_are_filtered_and_lean(house: House) -> None:
    """By state, task, queue, label, time; args, result and traceback only when asked for."""
    good = house.done(result=b'"r"', args={"x": 1}, labels={"team": "a"}, queue="fast")
    bad = house.submit("add", args={"n": 1})
    house.worker.fail(house.worker.started.pop())

    def ids(query: str) -> list[str]:
        return [job["id"] for job in house.ask("GET", f"/v1/jobs?{query}").json()["jobs"]]

    assert ids("state=failed") == ids("task=add") == [bad["id"]]
    assert ids("queue=fast") == ids("label.team=a") == ids("state=succeeded,cancelled") == [good["id"]]
    assert ids("label.team=") == []  # a label may be empty
    assert house.ask("GET", "/v1/jobs?id=").json()["code"] == "bad_query"
    assert ids("since=2026-01-01T00:00:00Z") == [bad["id"], good["id"]]
    assert ids("since=2099-01-01T00:00:00%2B02:00") == []
    failed, succeeded = house.ask("GET", "/v1/jobs").json()["jobs"]
    assert "args" not in succeeded
    assert "result" not in succeeded
    assert failed["error"]["traceback"] is None
    failed, succeeded = house.ask("GET", "/v1/jobs?include=args,result").json()["jobs"]
    assert (succeeded["args"], succeeded["result"]) == ({"x": 1}, "r")
    assert failed["error"]["traceback"] == "Traceback: line 1"


def test_cancel(house: House) -> None:
    """200 for a waiting job, 202 for a running one, 409 for a final one; an empty body is polite."""
    waiting = house.submit("idle")
    reply = house.ask("POST", f"/v1/jobs/{waiting['id']}/cancel")
    assert (reply.status, reply.json()["state"]) == (200, "cancelled")
    running = house.submit()
    stopping = house.ask("POST", f"/v1/jobs/{running['id']}/cancel", {"mode": "polite"})
    assert (stopping.status, stopping.json()["state"]) == (202, "stopping")
    final = house.ask("POST", f"/v1/jobs/{waiting['id']}/cancel")
    assert (final.status, final.json()["code"], final.json()["job"]) == (409, "conflict", waiting["id"])
    thread = house.submit("blocking")
    refused = house.ask("POST", f"/v1/jobs/{thread['id']}/cancel", {"mode": "now"})
    assert (refused.status, refused.json()["code"]) == (409, "cannot_kill")
    assert "polite" in refused.json()["detail"]
    wrong = house.ask("POST", f"/v1/jobs/{thread['id']}/cancel", {"mode": "gently"})
    assert (wrong.status, wrong.json()["errors"][0]["pointer"]) == (422, "/mode")


def test_retry_run_delete(house: House) -> None:
    """A new job with `rerun_of`; a scheduled one at once; a final one gone; else 409."""
    job = house.done(args={"x": 3})
    again = house.ask("POST", f"/v1/jobs/{job['id']}/retry")
    new = again.json()
    assert (again.status, again.headers["location"]) == (201, f"/v1/jobs/{new['id']}")
    assert (new["rerun_of"], new["args"]) == (job["id"], {"x": 3})
    assert house.ask("POST", f"/v1/jobs/{new['id']}/retry").status == 409
    later = house.submit(delay_s=100)
    assert (later["state"], later["reason"]) == ("scheduled", "run_at")
    assert house.ask("POST", f"/v1/jobs/{later['id']}/run").status == 200
    assert house.ask("POST", f"/v1/jobs/{later['id']}/run").status == 409
    assert house.ask("DELETE", f"/v1/jobs/{new['id']}").status == 409
    gone = house.ask("DELETE", f"/v1/jobs/{job['id']}")
    assert (gone.status, gone.body) == (204, b"")
    assert house.ask("GET", f"/v1/jobs/{job['id']}").status == 404
    assert (
        house.ask("POST", f"/v1/jobs/{new['id']}/retry", {"colour": 1}).json()["errors"][0]["pointer"]
        == "/colour"
    )


def test_attempts(house: House) -> None:
    """Every one with its error, in order."""
    job = house.submit("retried", backoff={"base_s": 1})
    house.worker.begin(house.worker.started[0])
    house.worker.fail(house.worker.started.pop())
    house.after(1.5)
    house.worker.succeed(house.worker.started.pop())
    attempts: list[dict[str, Any]] = house.ask("GET", f"/v1/jobs/{job['id']}/attempts").json()["attempts"]
    assert [(row["epoch"], row["attempt"]) for row in attempts] == [(1, 1), (2, 2)]
    assert [row["state"] for row in attempts][-1] == "succeeded"
    assert attempts[0]["error"]["kind"] == "task_error"
    assert attempts[0]["began_at"].endswith("Z")


@pytest.mark.parametrize("verb", ["result", "events", "streams/out", "attempts"])
def test_reads_of_unknown_jobs_are_404(house: House, verb: str) -> None:
    """Streams too: nothing has been sent before the job was found."""
    reply = house.ask("GET", f"{UNKNOWN.replace('01999999', 'ffffffff')}/{verb}")
    assert (reply.status, reply.json()["code"]) == (404, "not_found")
