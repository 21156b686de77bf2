"""Who may do what: every route of the table with no token and with each scope; other tenants; narrowed tokens.

The routes come from the application: a new one is covered, or fails here until it is entered.
"""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from jobsvc.http.route import Route
from jobsvc.model.access import SCOPES, Scope
from jobsvc.model.ids import id_text
from tests.http.house import House
from tests.http.keys import Key, key
from tests.http.wire import Reply

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
OPEN = {("GET", "/livez"), ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/docs")}
"""What needs no token; a new route with scope None must be entered here, on purpose."""
STREAMED = ("text/event-stream", "application/x-ndjson")
BODIES: dict[str, Any] = {
    "jobs.submit": {"task": "echo"},
    "jobs.change": {"priority": 1},
    "tokens.create": {"name": "x", "scopes": ["read"]},
}
"""Bodies without which a route does nothing; others take an empty one."""


def target(route: Route, **parts: str) -> str:
    """A path of the route; parts that are not given name nothing that is there."""
    filled = {"job_id": id_text(bytes(16)), "task": "echo", "name": "out", "token_id": "nobody", **parts}
    return route.path.format(**filled)


def asked(who: Key, route: Route, path: str) -> Reply:
    """One request by the table; streams are left after what came at once."""
    body = BODIES.get(route.name)
    wire = who.start(route.method, path, body, {"If-Match": "*"} if "If-Match" in route.headers else None)
    [reply] = wire.replies() or [Reply(0, {}, b"", whole=False)]
    if not reply.whole:
        wire.leave()
    assert reply.status < 500, (route.name, reply)
    return reply


# -- P02 ----------------------------------------------------------------------------------------------------------


def test_p02_no_route_and_no_method_without_a_token(house: House) -> None:
    """401 for every path of the table and every method, but for what load balancers ask."""
    paths = {route.path for route in house.api.routes}
    opened = {(route.method, route.path) for route in house.api.routes if route.scope is None}
    assert opened <= OPEN
    for path in sorted(paths | {"/", "/v1", "/v1/nothing", "/docs", "/favicon.ico"}):
        for method in METHODS:
            if path in {open_path for _, open_path in opened}:
                continue
            wire = house.wire()
            wire.request(method, path.format(job_id="x", task="x", name="x", token_id="x"), token=None)
            reply = wire.replies()[0]
            assert (reply.status, method, path) == (401, method, path)
            assert "www-authenticate" in reply.headers


def test_p02_health_has_no_other_door(house: House) -> None:
    """With a query the open paths ask for a token too, and other methods than GET do nothing there."""
    for path in [route.path for route in house.api.routes if route.scope is None]:
        wire = house.wire()
        wire.request("GET", path + "?verbose", token=None)
        assert wire.reply().status == 401
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            wire = house.wire()
            wire.request(method, path, token=None)
            assert wire.reply().status == 405


# -- P03: scopes --------------------------------------------------------------------------------------------------


def test_p03_each_route_with_each_scope(house: House) -> None:
    """403 exactly where the scope lacks, with what RFC 6750 says; the scope `admin` stands for all, `any` for any."""
    keys = {scope: key(house, scope) for scope in SCOPES}
    for route in house.api.routes:
        for scope in SCOPES:
            reply = asked(keys[scope], route, target(route))
            allowed = scope in {"admin", route.scope} or route.scope in {None, "any"}
            assert (reply.status == 403) is not allowed, (route.name, scope, reply)
            if not allowed:
                assert reply.json()["code"] == "forbidden"
                assert (
                    f'error="insufficient_scope", scope="{route.scope}"' in reply.headers["www-authenticate"]
                )


def test_p03_every_route_has_a_scope_of_the_list(house: House) -> None:
    """And what changes something never asks for `read` alone, but for making a ticket to read."""
    for route in house.api.routes:
        assert route.scope in {*get_args(Scope), "any", None}
        if route.method not in {"GET", "HEAD"}:
            assert route.scope in {"submit", "operate", "admin"} or route.name == "jobs.share", route.name


# -- P03: tenants -------------------------------------------------------------------------------------------------


@pytest.fixture
def jobs(house: House) -> dict[str, str]:
    """Jobs of the tenant `default`: one that runs, one that waits, one that is done."""
    done = house.done("echo", b'"secret"')
    return {
        "running": house.submit("echo", key="k-run")["id"],
        "waiting": house.submit("idle", delay_s=60, key="k-wait")["id"],
        "done": done["id"],
    }


def masked(reply: Reply) -> tuple[int, Any]:
    """What a reply says, but for the id that was asked for and the request's own."""
    body = json.loads(reply.body) if reply.body else None
    if isinstance(body, dict):
        body.pop("instance", None)
        detail = body.get("detail")
        body["detail"] = None if detail is None else detail.split(" job ")[0]
    return reply.status, body


def test_p03_a_job_of_another_tenant_is_not_there(house: House, jobs: dict[str, str]) -> None:
    """Every route with a job in its path answers for it as for an id that nobody has: 404, and nothing changes."""
    other = key(house, "admin", tenant="acme")
    routes = [route for route in house.api.routes if "{job_id}" in route.path]
    assert len(routes) >= 10
    nobody = {state: _like(job_id) for state, job_id in jobs.items()}
    for route in routes:
        for state, job_id in jobs.items():
            told = asked(other, route, target(route, job_id=job_id))
            assert (told.status, told.json()["code"]) == (404, "not_found"), (route.name, state, told)
            assert masked(told) == masked(asked(other, route, target(route, job_id=nobody[state])))
    assert house.ask("GET", f"/v1/jobs/{jobs['running']}").json()["state"] == "running"
    assert house.ask("GET", f"/v1/jobs/{jobs['waiting']}").json()["state"] == "scheduled"
    assert house.ask("GET", f"/v1/jobs/{jobs['done']}").json()["result"] == "secret"


def _like(job_id: str) -> str:
    """An id that nobody has, made at the same time."""
    return job_id[:-4] + ("0000" if job_id[-4:] != "0000" else "1111")


def test_p03_lists_waits_and_keys_stay_within_the_tenant(house: House, jobs: dict[str, str]) -> None:
    """Pages, ids, cursors, idempotency keys and follows tell nothing of another tenant."""
    other = key(house, "read", "submit", tenant="acme")
    assert other.ask("GET", "/v1/jobs").json() == {"jobs": [], "next": None}
    ids = ",".join(jobs.values())
    for query in ("", "&wait=300&until=any", "&wait=300&until=all"):
        many = other.ask("GET", f"/v1/jobs?id={ids}{query}").json()  # at once: it does not wait for them
        assert (many["jobs"], many["missing"]) == ([], list(jobs.values()))
    mine = other.submit("echo", key="k-run")
    assert (mine["tenant"], mine["id"] in jobs.values()) == ("acme", False)
    assert other.ask("POST", "/v1/jobs", {"task": "add", "key": "k-wait"}).status == 201
    foreign = house.ask("GET", "/v1/jobs?limit=1").json()["next"]
    page = other.ask("GET", f"/v1/jobs?cursor={foreign}").json()
    assert {job["tenant"] for job in page.get("jobs", [])} <= {"acme"}  # or it is refused as another list's
    reply = other.ask(
        "POST",
        "/v1/jobs/bulk",
        raw=b'{"task":"echo","key":"k-run"}\n',
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert reply.lines() == [{"line": 1, "id": mine["id"]}]


def test_p03_admins_of_other_tenants_manage_their_own_tokens_only(house: House) -> None:
    """The operator's tenant sees all; another one's admin its own; what is not its own is not there."""
    boss, stranger = key(house, "admin", tenant="acme", name="boss"), key(house, "read", name="stranger")
    mine = Key(house, boss.ask("POST", "/v1/tokens", {"name": "mine", "scopes": ["read"]}).json())
    assert mine.view["tenant"] == "acme"
    assert [t["name"] for t in boss.ask("GET", "/v1/tokens").json()["tokens"]] == ["boss", "mine"]
    assert len(house.ask("GET", "/v1/tokens").json()["tokens"]) == 4
    for token_id in (stranger.id, "test", "nobody"):
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate")):
            assert boss.code(method, f"/v1/tokens/{token_id}{path}") == (404, "not_found")
    assert boss.code("POST", "/v1/tokens", {"name": "x", "scopes": ["read"], "tenant": "default"}) == (
        403,
        "forbidden",
    )
    assert boss.code("POST", "/v1/reload") == (403, "forbidden")
    assert house.reloads == 0
    assert boss.ask("DELETE", f"/v1/tokens/{mine.id}").status == 204


# -- narrowed to tasks and queues ---------------------------------------------------------------------------------


def test_a_narrowed_token_submits_within_its_tasks_and_queues_only(house: House) -> None:
    """403 that names the task or queue, for single submits, calls, bulk lines; nothing is stored. The answer for a
    task that is not there is the same.
    """  # fmt: skip
    narrow = key(house, "submit", "read", tasks=["echo"], queues=["default", "fast"])
    assert narrow.ask("POST", "/v1/jobs", {"task": "echo", "queue": "fast"}).status == 201
    for body, words in (
        ({"task": "add"}, "not for the task 'add'"),
        ({"task": "nothing"}, "not for the task 'nothing'"),
        ({"task": "echo", "queue": "slow"}, "not for the queue 'slow'"),
    ):
        reply = narrow.ask("POST", "/v1/jobs", body)
        assert (reply.status, reply.json()["code"]) == (403, "forbidden")
        assert words in reply.json()["detail"]
    for task in ("add", "nothing"):
        assert narrow.code("POST", f"/v1/tasks/{task}/call") == (403, "forbidden")
        assert narrow.code("GET", f"/v1/tasks/{task}") == (404, "no_such_task")
    lines = b'{"task":"echo"}\n{"task":"add"}\n{"task":"echo","queue":"slow"}\n'
    headers = {"Content-Type": "application/x-ndjson"}
    told = narrow.ask("POST", "/v1/jobs/bulk", raw=lines, headers=headers).lines()
    assert [line.get("problem", {}).get("code") for line in told] == [None, "forbidden", "forbidden"]
    refused = narrow.ask("POST", "/v1/jobs/bulk?atomic=1", raw=lines, headers=headers)
    assert (refused.status, refused.json()["code"]) == (403, "forbidden")
    assert len(house.ask("GET", "/v1/jobs").json()["jobs"]) == 2
    assert [task["name"] for task in narrow.ask("GET", "/v1/tasks").json()["tasks"]] == ["echo"]


@pytest.mark.parametrize("fields", [{"tasks": ["echo"]}, {"queues": ["mine"]}])
def test_a_narrowed_token_sees_its_jobs_only(house: House, fields: dict[str, Any]) -> None:
    """Others of its tenant are as if they were not there, on every route and in every list."""
    narrow = key(house, "read", "operate", **fields)
    mine = house.submit("echo", queue="mine")["id"]
    other = house.submit("add", queue="other")["id"]
    for route in house.api.routes:
        if "{job_id}" in route.path:
            told = asked(narrow, route, target(route, job_id=other))
            if route.scope == "admin":
                assert told.status == 403
                continue
            assert (told.status, told.json()["code"]) == (404, "not_found"), route.name
            assert masked(told) == masked(asked(narrow, route, target(route, job_id=_like(other))))
    assert [job["id"] for job in narrow.ask("GET", "/v1/jobs").json()["jobs"]] == [mine]
    assert narrow.ask("GET", "/v1/jobs?task=add").json()["jobs"] == []
    many = narrow.ask("GET", f"/v1/jobs?id={mine},{other}").json()
    assert ([job["id"] for job in many["jobs"]], many["missing"]) == ([mine], [other])
    assert narrow.ask("GET", f"/v1/jobs?id={other}&wait=300").json()["missing"] == [other]
    assert narrow.code("POST", "/v1/reload") == (403, "forbidden")
    assert narrow.ask("POST", f"/v1/jobs/{mine}/cancel").status == 202


def test_what_every_reader_may_see(house: House) -> None:
    """Workers, executors and the daemon's own facts are of no tenant: `read` is enough, narrowed or not."""
    narrow = key(house, "read", tenant="acme", tasks=["echo"])
    for path in ("/v1/workers", "/v1/executors", "/v1/info", "/openapi.json", "/readyz?verbose"):
        assert narrow.ask("GET", path).status == 200, path


def test_figures_name_tenants_and_tasks_so_not_everybody_gets_them(house: House) -> None:
    """They are for a token of the operator's tenant that is not narrowed; it needs no more than `read`."""
    for fields in ({"tenant": "acme"}, {"tasks": ["echo"]}, {"queues": ["default"]}):
        assert key(house, "read", "operate", **fields).code("GET", "/metrics") == (403, "forbidden")
    assert key(house, "read").ask("GET", "/metrics").status == 200
