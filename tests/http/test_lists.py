"""Lists: wrong filters are refused, cursors belong to their list; what results and streams answer. B53, B57, B58."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from urllib.parse import quote

import pytest

from jobsvc.http import api_lists
from tests.http.house import House


def test_filters_that_do_not_exist(house: House) -> None:
    """B53: unknown columns, orders, states, labels without a name; each is named, with what there is."""
    for query, word in (
        ("sort=created_at", "sort"), ("order_by=id", "order_by"), ("order=random()", "order"), ("order=", "order"),
        ("state=running,dead", "dead"), ("state=", "state"), ("label=x", "label"), ("label.=x", "label."),
        ("args.x=1", "args"), ("tenant=other", "tenant"), ("limit=0", "limit"), ("limit=1001", "limit"),
        ("limit=\u0661", "limit"), ("limit=1e2", "limit"), ("limit=5&limit=6", "limit"), ("since=yesterday", "since"),
        ("since=2026-01-01T00:00:00", "since"), ("include=owner", "include"), ("task=", "task"),
        ("task=a%00b", "task"), ("%ff=1", "UTF-8"), ("fields=id", "fields"),
        ("&".join(f"label.k{n}=v" for n in range(1_100)), "16"),
    ):  # fmt: skip
        reply = house.ask("GET", f"/v1/jobs?{quote(query, safe='=&%.,')}")
        assert (reply.status, reply.json()["code"]) == (400, "bad_query"), query
        assert word in reply.json()["detail"], query


def test_wildcards_and_patterns_are_plain_text(house: House) -> None:
    """B53: `%`, `_` and a regular expression that would never end match nothing but themselves, and are no names."""
    house.submit(labels={"a": "x"})
    for value in ("%", "_", "x%", "(x+x+)+y" * 20, "x' OR '1'='1", "*"):
        for name in ("task", "queue", "label.a"):
            page = house.ask("GET", f"/v1/jobs?{name}={quote(value)}")
            if name == "label.a" or value == "_":
                assert (page.status, page.json()["jobs"]) == (200, []), value
            else:  # what can be no name is a mistake, not an empty list
                assert (page.status, page.json()["code"]) == (400, "bad_query"), value
    assert len(house.ask("GET", "/v1/jobs?label.a=x&task=echo").json()["jobs"]) == 1


def test_a_cursor_belongs_to_its_list(house: House) -> None:
    """With other filters or another order it is refused; with another page size or other members it is good."""
    for n in range(5):
        house.submit(labels={"n": str(n % 2)})
    page = house.ask("GET", "/v1/jobs?limit=2&task=echo").json()
    cursor = page["next"]
    good = house.ask("GET", f"/v1/jobs?limit=3&task=echo&include=args&cursor={cursor}")
    assert len(good.json()["jobs"]) == 3
    assert not {job["id"] for job in page["jobs"]} & {job["id"] for job in good.json()["jobs"]}
    for other in (
        "", "&task=add", "&task=echo&order=asc", "&task=echo&state=running", "&task=echo&queue=default",
        "&task=echo&label.n=1", "&task=echo&since=2026-01-01T00:00:00Z",
    ):  # fmt: skip
        reply = house.ask("GET", f"/v1/jobs?cursor={cursor}{other}")
        assert (reply.status, reply.json()["code"]) == (400, "bad_query"), other
        assert "filters" in reply.json()["detail"]
    states = house.ask("GET", "/v1/jobs?limit=1&state=running,queued").json()["next"]
    assert house.ask("GET", f"/v1/jobs?limit=1&state=queued,running&cursor={states}").status == 200


def test_a_cursor_of_another_tenant(house: House) -> None:
    """It would tell a row number: it is refused like any other list's."""
    for _ in range(3):
        house.submit()
    cursor = house.ask("GET", "/v1/jobs?limit=1").json()["next"]
    other = house.ask("POST", "/v1/tokens", {"name": "other", "scopes": ["read"], "tenant": "other"}).json()
    headers = {"Authorization": f"Bearer {other['token']}"}
    assert house.ask("GET", f"/v1/jobs?limit=1&cursor={cursor}", headers=headers).status == 400
    assert house.ask("GET", "/v1/jobs?limit=1", headers=headers).json() == {"jobs": [], "next": None}


def test_cursors_made_up(house: House) -> None:
    for plain in (
        b"",
        b"2:abc:1",
        b"2:000000000000:-1",
        b"2:000000000000:1e3",
        b"1:desc:1",
        b"\xff",
        b"2" * 500,
    ):
        text = urlsafe_b64encode(plain).decode().rstrip("=")
        if text:
            reply = house.ask("GET", f"/v1/jobs?cursor={text}")
            assert (reply.status, reply.json()["code"]) == (400, "bad_query"), plain
    for text in ("%C3%BC", "a", "====", "!!"):
        assert house.ask("GET", f"/v1/jobs?cursor={text}").status == 400


def test_pages_are_stable_while_jobs_come_in(house: House) -> None:
    """Nothing twice, nothing left out, in both orders."""
    made = [house.submit()["id"] for _ in range(6)]
    for order, expected in (("desc", made[::-1]), ("asc", made)):
        seen: list[str] = []
        cursor = ""
        while True:
            page = house.ask("GET", f"/v1/jobs?limit=2&task=echo&order={order}{cursor}").json()
            seen += [job["id"] for job in page["jobs"]]
            if order == "desc":
                house.submit()
            if page["next"] is None or len(seen) >= len(expected):
                break
            cursor = f"&cursor={page['next']}"
        assert seen[: len(expected)] == expected


def test_results_of_jobs_in_every_condition(house: House) -> None:
    """B57: 202 with the job while it is not there, 424 for a failed one, 410 for one that was purged, 404 for none."""
    job = house.submit()
    target = f"/v1/jobs/{job['id']}/result"
    early = house.ask("GET", target)
    assert (early.status, early.json()["id"], early.headers["retry-after"]) == (202, job["id"], "1")
    house.worker.fail(house.worker.started.pop())
    failed = house.ask("GET", target)
    assert (failed.status, failed.json()["source"], failed.json()["error"]["kind"]) == (
        424,
        "job",
        "task_error",
    )
    house.after(8 * 86_400)
    assert (house.ask("GET", target).status, house.ask("GET", target).json()["code"]) == (410, "purged")
    young = house.submit()["id"]
    assert house.ask("GET", f"/v1/jobs/{young[:-6]}000000/result").status == 404


def test_where_a_stream_goes_on(house: House) -> None:
    """B58: a Last-Event-ID that is no number is 400; one from the future, or from another job, starts anew: it is only
    a number, and rather everything again than nothing; a job that is not there is 404.
    """  # fmt: skip
    job = house.done()
    target = f"/v1/jobs/{job['id']}/events"
    for garbage in ("x", "-1", "1.5", "1e3", "9" * 40, "٣", "0x1"):
        reply = house.ask("GET", target, headers={"Last-Event-ID": garbage.encode().decode("latin-1")})
        assert (reply.status, reply.json()["code"]) == (400, "bad_query"), garbage
    other = house.submit()
    wire = house.start("GET", f"/v1/jobs/{other['id']}/events", headers={"Last-Event-ID": "77"})
    assert b"id: 1\n" in wire.replies()[0].body
    missing = house.ask("GET", f"/v1/jobs/{other['id'][:-6]}000000/events", headers={"Last-Event-ID": "1"})
    assert missing.status == 404


def test_a_page_ends_before_it_is_too_long(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the bytes of arguments and results, if they are asked for; `next` goes on where it ended."""
    monkeypatch.setattr(api_lists, "PAGE_BYTES", 10_000)
    ids = [house.submit(args={"x": "y" * 4_000})["id"] for _ in range(5)]
    pages, cursor = [], ""
    while True:
        page = house.ask("GET", f"/v1/jobs?include=args,result&order=asc&limit=1000{cursor}").json()
        pages.append([job["id"] for job in page["jobs"]])
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert pages == [ids[:2], ids[2:4], ids[4:]]
    assert len(house.ask("GET", "/v1/jobs?limit=1000").json()["jobs"]) == 5


def test_named_jobs_that_are_too_long_for_one_reply(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """`rest` names what had no room; what is done goes first, so that a client who waits for any gets it."""
    monkeypatch.setattr(api_lists, "PAGE_BYTES", 10_000)
    ids = [house.submit(args={"x": "y" * 4_000}, run_at="2027-01-01T00:00:00Z")["id"] for _ in range(5)]
    ids.append(house.submit(args={"x": "y" * 4_000})["id"])
    house.worker.succeed(house.worker.started[-1], b'"%s"' % (b"z" * 5_000))
    gone = "0198c0de-0000-7000-8000-000000000000"
    page = house.ask("GET", f"/v1/jobs?id={','.join(ids)},{gone}&wait=300&until=any").json()
    assert ([job["id"] for job in page["jobs"]], page["missing"]) == (ids[5:], [gone])
    assert (page["rest"], len(page["jobs"][0]["result"])) == (ids[:5], 5_000)
    page = house.ask("GET", f"/v1/jobs?id={','.join(page['rest'])}").json()
    assert ([job["id"] for job in page["jobs"]], page["rest"]) == (ids[:2], ids[2:5])
    page = house.ask("GET", f"/v1/jobs?id={ids[4]}").json()
    assert "rest" not in page
    monkeypatch.setattr(api_lists, "PAGE_BYTES", 1)
    assert len(house.ask("GET", f"/v1/jobs?id={','.join(ids)}").json()["jobs"]) == 1


def test_long_pages_are_made_few_at_a_time_in_slices(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are served in between; who leaves meanwhile does not hold up the next one."""
    monkeypatch.setattr(api_lists, "ROWS_AT_ONCE", 2)
    ids = [house.submit(run_at="2027-01-01T00:00:00Z")["id"] for _ in range(5)]
    first = house.start("GET", "/v1/jobs?order=asc")
    leaving = house.start("GET", "/v1/jobs")
    named = house.start("GET", f"/v1/jobs?id={','.join(ids)}")
    assert [wire.sent for wire in (first, leaving, named)] == [b""] * 3
    assert house.ask("GET", "/v1/jobs?limit=2").status == 200
    leaving.leave()
    house.after(0)
    assert [job["id"] for job in first.reply().json()["jobs"]] == ids
    assert [job["id"] for job in named.reply().json()["jobs"]] == ids


def test_the_same_wait_gives_all_the_same_page(house: House) -> None:
    """Also what is missing; another wait for the same jobs that names other ones beside them has its own."""
    ids = [house.submit()["id"] for _ in range(2)]
    target = f"/v1/jobs?id={','.join(ids)}"
    same = [house.start("GET", f"{target}&wait=60") for _ in range(3)]
    more = house.start("GET", f"{target},nothing&wait=60")
    for start in house.worker.started:
        assert [wire.sent for wire in (*same, more)] == [b""] * 4
        house.worker.succeed(start)
    pages = [wire.reply().json() for wire in same]
    assert [job["state"] for job in pages[0]["jobs"]] == ["succeeded"] * 2
    assert (pages, pages[0]["missing"]) == ([pages[0]] * 3, [])
    assert more.reply().json() == pages[0] | {"missing": ["nothing"]}
