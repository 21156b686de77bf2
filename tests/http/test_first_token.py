"""The token of the data directory: its file is the truth about it, over restarts and rotations."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from jobsvc.http import guessing
from tests.http.house import House
from tests.http.keys import key
from tests.http.restarting import Again
from tests.http.wire import TOKEN, Wire


def test_the_first_token_is_the_one_in_the_file(house: House) -> None:
    """Listed as `first`; rotating writes the file before it counts; the store never hears of it."""
    again = Again(house)
    [view] = again.ask("GET", "/v1/tokens", TOKEN).json()["tokens"]
    assert (view["id"], view["name"], view["scopes"]) == ("test", "first", ["admin"])
    assert view["created_at"].startswith("2026-09")
    made = again.ask("POST", "/v1/tokens/test/rotate", TOKEN).json()
    assert again.drawer.text == made["token"]
    assert [again.status(text) for text in (TOKEN, made["token"])] == [401, 200]
    assert stored_ids(house) == []
    again.drawer.full = True
    reply = again.ask("POST", f"/v1/tokens/{made['id']}/rotate", made["token"])
    assert (reply.status, reply.json()["code"]) == (507, "disk_full")
    assert again.status(made["token"]) == 200
    assert again.ask("DELETE", f"/v1/tokens/{made['id']}", made["token"]).status == 204
    assert again.drawer.text is None
    assert again.status(made["token"]) == 401


def stored_ids(house: House) -> list[str]:
    rows: list[Any] = []
    house.store.tokens().addCallback(rows.extend)
    return [row.id for row in rows]


def test_the_end_of_a_first_token_in_its_grace_leaves_the_file_alone(house: House) -> None:
    """Only the one in the file takes the file with it."""
    again = Again(house)
    wire = Wire(again.site)
    wire.request("POST", "/v1/tokens/test/rotate", b'{"grace_s":60}')
    made = wire.reply().json()
    assert [again.status(text) for text in (TOKEN, made["token"])] == [200, 200]
    assert again.ask("DELETE", "/v1/tokens/test", made["token"]).status == 204
    assert again.drawer.text == made["token"]
    assert [again.status(text) for text in (TOKEN, made["token"])] == [401, 200]


def test_a_first_token_given_from_outside_is_not_ours_to_change(house: House) -> None:
    """409, and what to do; it goes on to work."""
    for method, path in (("POST", "/v1/tokens/test/rotate"), ("DELETE", "/v1/tokens/test")):
        reply = house.ask(method, path)
        assert (reply.status, reply.json()["code"]) == (409, "conflict")
        assert "change it there" in reply.json()["detail"]
    assert house.ask("GET", "/v1/info").status == 200


def test_before_the_store_is_open_only_the_first_token_is_known(house: House) -> None:
    """It works; others are told to come back, not that they are wrong, and are not counted as guesses."""
    asked = key(house, "read")
    again = Again(house, load=False)
    assert again.status(TOKEN) == 200
    for _ in range(guessing.WRONG_MAX + 1):
        reply = again.ask("GET", "/v1/info", asked.secret)
        assert (reply.status, reply.json()["code"]) == (503, "overloaded")
        assert "retry-after" in reply.headers
    Deferred.fromCoroutine(again.registry.load())
    assert again.status(asked.secret) == 200
    assert again.status("jobsvc_nobody.x") == 401
