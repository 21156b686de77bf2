"""Tokens over HTTP: made, listed, replaced, revoked, expired; their text is told once and kept nowhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

import jobsvc.http.auth
from jobsvc.http import grants, registry
from jobsvc.model.tokens import taken_apart
from jobsvc.store.memory import InlineStore
from tests.http.house import START_US, House
from tests.http.keys import Key, bearer, key
from tests.http.restarting import Again
from tests.http.wire import TOKEN

SECOND_US = 1_000_000


# -- making -------------------------------------------------------------------------------------------------------


def test_a_token_is_told_once(house: House) -> None:
    """The text `jobsvc_<id>.<secret>` with 256 bits in the reply that makes it; never in a list, never in its view."""
    made = key(house, "read", name="dashboard", tenant="acme", tasks=["echo"], queues=["default"])
    assert re.fullmatch(rf"jobsvc_{made.id}\.[A-Za-z0-9_-]{{43}}", made.secret)
    shown = {name: value for name, value in made.view.items() if name != "token"}
    assert shown == {
        "id": made.id,
        "name": "dashboard",
        "tenant": "acme",
        "scopes": ["read"],
        "tasks": ["echo"],
        "queues": ["default"],
        "state": "active",
        "created_at": shown["created_at"],
        "expires_at": None,
        "revoked_at": None,
        "used_at": None,
    }
    listed = house.ask("GET", "/v1/tokens")
    assert listed.json()["tokens"][1:] == [shown]
    assert house.ask("GET", f"/v1/tokens/{made.id}").json() == shown
    assert made.secret.partition(".")[2] not in listed.body.decode()


def test_every_token_may_ask_who_it_is(house: House) -> None:
    """Id, tenant, scopes, expiry: with whatever scope."""
    for scope in ("read", "submit", "operate", "admin"):
        asked = key(house, scope, tenant="acme", ttl_s=60)
        told = asked.ask("GET", "/v1/tokens/self").json()
        assert (told["id"], told["tenant"], told["scopes"]) == (asked.id, "acme", [scope])
        assert told["expires_at"] == asked.view["expires_at"] is not None
    first = house.ask("GET", "/v1/tokens/self").json()
    assert (first["id"], first["name"], first["tenant"]) == ("test", "first", "default")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "first"}, "/name"),
        ({"name": "a\nb"}, "/name"),
        ({"name": "x" * 129}, "/name"),
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["root"]}, "/scopes/0"),
        ({"scopes": "read"}, "/scopes"),
        ({"scopes": ["admin"], "tasks": ["echo"]}, "/scopes"),
        ({"scopes": ["read", "admin"], "queues": ["q"]}, "/scopes"),
        ({"tenant": "a b"}, "/tenant"),
        ({"tenant": "a\n"}, "/tenant"),
        ({"tenant": None}, "/tenant"),
        ({"tasks": ["os:system"]}, "/tasks/0"),
        ({"tasks": ["echo\n"]}, "/tasks/0"),
        ({"queues": ["q"] * 101}, "/queues"),
        ({"ttl_s": 0}, "/ttl_s"),
        ({"ttl_s": 1e12}, "/ttl_s"),
        ({"ttl_s": 5, "expires_at": "2099-01-01T00:00:00Z"}, "/ttl_s"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "2099-01-01T00:00:00"}, "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-12:00"}, "/expires_at"),  # in the year 10000
        ({"secret": "mine"}, "/secret"),
    ],
)
def test_what_a_token_cannot_be_is_422(house: House, fields: dict[str, Any], pointer: str) -> None:
    """With the field, and nothing made."""
    reply = house.ask("POST", "/v1/tokens", {"name": "x", "scopes": ["read"], **fields})
    assert (reply.status, reply.json()["errors"][0]["pointer"]) == (422, pointer), reply.json()
    assert len(house.ask("GET", "/v1/tokens").json()["tokens"]) == 1


def test_there_is_room_for_so_many(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended ones make room; else 409 says what to do."""
    monkeypatch.setattr(registry, "TOKENS_MAX", 3)
    short = key(house, "read", ttl_s=5)
    key(house, "read")
    reply = house.ask("POST", "/v1/tokens", {"name": "x", "scopes": ["read"]})
    assert (reply.status, reply.json()["code"]) == (409, "conflict")
    house.after(5)
    key(house, "read")
    assert house.ask("GET", f"/v1/tokens/{short.id}").status == 404


def test_a_tenant_does_not_take_the_room_of_all(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """By making tokens, or by rotating one again and again while the old ones are still good; revoking helps."""
    monkeypatch.setattr(registry, "TENANT_TOKENS_MAX", 3)
    admin = key(house, "admin", tenant="acme")
    made = [admin.ask("POST", "/v1/tokens", {"name": "x", "scopes": ["read"]}).json() for _ in range(2)]
    assert admin.code("POST", "/v1/tokens", {"name": "x", "scopes": ["read"]}) == (409, "conflict")
    assert admin.code("POST", f"/v1/tokens/{made[0]['id']}/rotate", {"grace_s": 60}) == (409, "conflict")
    for _ in range(4):
        key(house, "read")  # the operator's, and another tenant's, are not held up
    key(house, "read", tenant="other")
    assert admin.ask("DELETE", f"/v1/tokens/{made[0]['id']}").status == 204
    assert admin.ask("POST", f"/v1/tokens/{made[1]['id']}/rotate", {"grace_s": 60}).status == 201


# -- ending -------------------------------------------------------------------------------------------------------


def test_a_revoked_token_is_refused_at_once_and_for_ever(house: House) -> None:
    """B49: 401 with the very next request; twice is the same; a start after it knows."""
    asked = key(house, "read")
    assert asked.ask("GET", "/v1/info").status == 200
    for _ in range(2):
        assert house.ask("DELETE", f"/v1/tokens/{asked.id}").status == 204
        reply = asked.ask("GET", "/v1/info")
        assert (reply.status, reply.json()["detail"]) == (401, "This token has been revoked.")
        assert reply.headers["www-authenticate"] == 'Bearer realm="jobsvc", error="invalid_token"'
    assert house.ask("GET", f"/v1/tokens/{asked.id}").json()["state"] == "revoked"
    restarted = Again(house)
    assert restarted.status(asked.secret) == 401
    assert house.ask("DELETE", "/v1/tokens/nobody").status == 404


def test_what_a_revoked_token_reads_is_cut_off(house: House) -> None:
    """A stream and a long poll end unfinished; those of others go on."""
    job = house.submit()
    asked, other = key(house, "read"), key(house, "read")
    targets = (
        f"/v1/jobs/{job['id']}/events",
        f"/v1/jobs/{job['id']}?wait=300",
        f"/v1/jobs?id={job['id']}&wait=9",
    )
    cut = [asked.start("GET", target) for target in targets]
    kept = [other.start("GET", target) for target in targets]
    house.ask("DELETE", f"/v1/tokens/{asked.id}")
    assert [wire.transport.aborted for wire in cut] == [True] * 3
    assert [wire.transport.aborted for wire in kept] == [False] * 3
    assert b"0\r\n\r\n" not in cut[0].sent
    for wire in (*cut, *kept):
        wire.leave()


def test_what_an_expired_token_reads_is_cut_off(house: House) -> None:
    """At its end, also at that of a grace; those of others go on. Without such tokens nobody looks."""
    job = house.submit()
    path = f"/v1/jobs/{job['id']}/events"
    other = key(house, "read").start("GET", path)
    assert looking(house) == []
    late, soon = key(house, "read", ttl_s=500), key(house, "read", ttl_s=100)
    graced = key(house, "read")
    house.ask("POST", f"/v1/tokens/{graced.id}/rotate", {"grace_s": 200})
    wires = [who.start("GET", path) for who in (soon, graced, late)]
    for seconds, aborted in ((99, 0), (1, 1), (99, 1), (1, 2), (299, 2), (1, 3)):
        house.after(seconds)
        assert [wire.transport.aborted for wire in wires] == [True] * aborted + [False] * (3 - aborted)
        assert len(looking(house)) == (aborted < 3)
    assert not other.transport.aborted
    for wire in (*wires, other):
        wire.leave()


def looking(house: House) -> list[Any]:
    """Timers that look for expired tokens."""
    return [call for call in house.clock.getDelayedCalls() if "Registry._look" in repr(call)]


def test_what_a_revoked_token_still_sends_is_cut_off(house: House) -> None:
    """A bulk upload in its middle: what was committed stays, what follows is not taken. A body half sent neither."""
    asked = key(house, "submit")
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/x-ndjson"}
    upload, single = (
        asked.start("POST", "/v1/jobs/bulk", headers={**headers, "Content-Length": ""}),
        house.wire(),
    )
    upload.send(b'10\r\n{"task":"echo"}\n\r\n')
    house.after(0.01)
    single.send(
        f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {asked.secret}\r\n"
        'Content-Type: application/json\r\nContent-Length: 15\r\n\r\n{"task":'.encode()
    )
    house.ask("DELETE", f"/v1/tokens/{asked.id}")
    assert upload.transport.aborted
    upload.drop()
    if single.transport.aborted:
        single.drop()
    else:  # the token is looked at when the body is in
        single.send(b'"echo"}')
        assert single.reply().status == 401
    house.after(0.01)
    assert len(house.ask("GET", "/v1/jobs").json()["jobs"]) == 1


def test_a_token_expires_by_the_wall_clock(house: House) -> None:
    """From that moment on, not a second before; the list says so."""
    asked = key(house, "read", ttl_s=60)
    later = key(house, "read", expires_at="2099-01-01T00:00:00Z")
    house.after(59.999)
    assert asked.ask("GET", "/v1/info").status == 200
    house.after(0.001)
    reply = asked.ask("GET", "/v1/info")
    assert (reply.status, reply.json()["detail"]) == (401, "This token has expired.")
    assert house.ask("GET", f"/v1/tokens/{asked.id}").json()["state"] == "expired"
    assert later.ask("GET", "/v1/info").status == 200


def test_rotation_puts_another_in_its_place(house: House) -> None:
    """The same name and rights, another id and secret; the old one ends at once, or after its grace."""
    old = key(house, "read", "submit", name="ci", tenant="acme", tasks=["echo"])
    reply = house.ask("POST", f"/v1/tokens/{old.id}/rotate")
    assert reply.status == 201
    new = Key(house, reply.json())
    assert reply.headers["location"] == f"/v1/tokens/{new.id}"
    same = ("name", "tenant", "scopes", "tasks", "queues", "expires_at")
    assert [new.view[field] for field in same] == [old.view[field] for field in same]
    assert new.id != old.id
    assert (old.ask("GET", "/v1/info").status, new.ask("GET", "/v1/info").status) == (401, 200)

    graced = Key(house, house.ask("POST", f"/v1/tokens/{new.id}/rotate", {"grace_s": 30}).json())
    assert [k.ask("GET", "/v1/info").status for k in (new, graced)] == [200, 200]
    assert house.ask("POST", f"/v1/tokens/{new.id}/rotate").status == 409  # it was replaced already
    house.after(30)
    assert [k.ask("GET", "/v1/info").status for k in (new, graced)] == [401, 200]
    assert house.ask("POST", f"/v1/tokens/{old.id}/rotate").status == 409
    assert [Again(house).status(k.secret) for k in (old, new, graced)] == [401, 401, 200]


@pytest.mark.parametrize("body", [{"grace_s": -1}, {"grace_s": 8 * 86_400}, {"grace_s": "1"}, {"x": 1}])
def test_a_rotation_of_the_wrong_shape_changes_nothing(house: House, body: Any) -> None:
    old = key(house, "read")
    assert house.ask("POST", f"/v1/tokens/{old.id}/rotate", body).status == 422
    assert old.ask("GET", "/v1/info").status == 200


def test_when_it_was_used_is_written_once_a_minute_and_at_the_stop(house: House) -> None:
    """In the list at once; in the store within a minute, or when the daemon stops. An unused one costs no timer."""
    asked = key(house, "read")
    assert writing(house) == []
    for _ in range(3):
        asked.ask("GET", "/v1/info")
        house.after(1)
    assert house.ask("GET", f"/v1/tokens/{asked.id}").json()["used_at"] is not None
    assert [len(writing(house)), stored(house, asked.id).used_at] == [1, None]
    house.after(60)
    assert stored(house, asked.id).used_at == START_US + 2 * SECOND_US
    assert writing(house) == []
    house.after(5)
    asked.ask("GET", "/v1/info")
    Deferred.fromCoroutine(house.api.edge.registry.close())
    assert writing(house) == []
    assert stored(house, asked.id).used_at == START_US + 68 * SECOND_US


def writing(house: House) -> list[Any]:
    """Timers that write the last uses."""
    return [call for call in house.clock.getDelayedCalls() if "_flush_now" in repr(call)]


def stored(house: House, token_id: str) -> Any:
    rows: list[Any] = []
    house.store.tokens().addCallback(rows.extend)
    return next(row for row in rows if row.id == token_id)


# -- how it is looked at ------------------------------------------------------------------------------------------


def test_the_source_compares_secrets_in_constant_time_only(house: House) -> None:
    """P06: in `auth` nothing of what a client sent is compared by == or !=, but by `compare_digest`; an unknown id
    is compared too.
    """  # fmt: skip
    tree = ast.parse(Path(jobsvc.http.auth.__file__).read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    digests = [call for call in calls if getattr(call.func, "id", "") == "compare_digest"]
    assert len(digests) == 1
    assert ast.unparse(digests[0]) == "compare_digest(sha256(secret).digest(), grant.digest)"
    assert house.api.edge.registry.find(b"jobsvc_unknown") is grants.NOBODY
    secret = {"digest", "secret", "hash", "mac"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            names = {getattr(part, "id", getattr(part, "attr", "")) for part in ast.walk(node)}
            assert not names & secret, ast.unparse(node)


def test_unknown_ids_and_wrong_secrets_are_told_the_same(house: House) -> None:
    """P06: nobody learns which ids exist."""
    asked = key(house, "read")
    wrong = [f"jobsvc_{asked.id}.x", "jobsvc_0123456789ab.x", asked.secret + "x", asked.secret[:-1]]
    replies = [house.ask("GET", "/v1/info", headers=bearer(text)) for text in wrong]
    assert {(r.status, r.json()["detail"], r.headers["www-authenticate"]) for r in replies} == {
        (401, "This token is not valid here.", 'Bearer realm="jobsvc", error="invalid_token"')
    }


@pytest.mark.parametrize(
    ("lines", "challenge"),
    [
        ([], 'Bearer realm="jobsvc"'),
        ([f"Authorization: Basic {TOKEN}"], 'Bearer realm="jobsvc", error="invalid_request"'),
        ([f"Authorization: {TOKEN}"], 'Bearer realm="jobsvc", error="invalid_request"'),
        (["Authorization: Bearer"], 'Bearer realm="jobsvc", error="invalid_request"'),
        ([f"Authorization: Bearer {TOKEN}"] * 2, 'Bearer realm="jobsvc", error="invalid_request"'),
        ([f"Authorization: Bearer {TOKEN}, Bearer {TOKEN}"], 'Bearer realm="jobsvc", error="invalid_token"'),
        (["Authorization: Bearer \xff.\xff"], 'Bearer realm="jobsvc", error="invalid_token"'),
        ([f"Authorization: Bearer x{TOKEN}"], 'Bearer realm="jobsvc", error="invalid_token"'),
    ],
)
def test_b48_what_is_no_token_is_401_with_a_challenge(house: House, lines: list[str], challenge: str) -> None:
    """RFC 6750: no error where nothing was sent; invalid_request where it is no bearer token; else invalid_token."""
    wire = house.wire()
    head = "".join(f"{line}\r\n" for line in ("GET /v1/info HTTP/1.1", "Host: localhost", *lines))
    wire.send((head + "\r\n").encode("latin-1"))
    reply = wire.reply()
    assert (reply.status, reply.headers["www-authenticate"]) == (401, challenge)


def test_the_database_holds_no_secret(house: House, tmp_path: Path) -> None:
    """P07: a dump has the SHA-256 alone, from which nobody gets the token."""
    asked = key(house, "admin")
    asked.ask("GET", "/v1/info")
    house.after(61)
    inner = house.store
    assert isinstance(inner, InlineStore)
    dump = "\n".join(inner._store._db.iterdump())
    minted = taken_apart(asked.secret)
    assert minted is not None
    assert minted.digest.hex().upper() in dump.upper()
    assert asked.secret.partition(".")[2] not in dump
    assert asked.secret.encode().hex().upper() not in dump.upper()
