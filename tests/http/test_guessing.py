"""Wrong tokens: after some of one address each further one is 429; good ones of the same address are let in."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from jobsvc.http.guessing import ADDRESSES_MAX, WINDOW_S, WRONG_MAX, WrongTokens
from tests.http.house import House
from tests.http.keys import key


def guess(house: House, text: str = "jobsvc_test.guess") -> tuple[int, str | None]:
    reply = house.ask("GET", "/v1/info", headers={"Authorization": f"Bearer {text}"})
    return reply.status, reply.headers.get("retry-after")


def test_after_some_wrong_tokens_further_ones_are_429(house: House) -> None:
    """With the seconds that are left of the window; a good token passes meanwhile, and all is well after it."""
    assert [guess(house) for _ in range(WRONG_MAX)] == [(401, None)] * WRONG_MAX
    house.after(10)
    for text in ("jobsvc_test.guess", "jobsvc_nobody.x", "nonsense"):
        assert guess(house, text) == (429, str(int(WINDOW_S) - 10))
    reply = house.ask("GET", "/v1/info", headers={"Authorization": "Bearer x"})
    assert (reply.json()["code"], reply.json()["retry_safe"]) == ("rate_limited", True)
    assert house.ask("GET", "/v1/info").status == 200
    house.after(WINDOW_S - 10)
    assert guess(house) == (401, None)


def test_what_is_no_guess_does_not_count(house: House) -> None:
    """No token, no bearer token, and one that was good once."""
    old = key(house, "read", ttl_s=1)
    house.after(1)
    for _ in range(WRONG_MAX + 5):
        assert guess(house, old.secret)[0] == 401
        wire = house.wire()
        wire.request("GET", "/v1/info", token=None)
        assert wire.reply().status == 401
    assert guess(house) == (401, None)


def test_wrong_tickets_are_guesses_too(house: House) -> None:
    target = f"/v1/jobs/{house.submit()['id']}?ticket=AAAA"
    statuses = []
    for _ in range(WRONG_MAX + 1):
        wire = house.wire()
        wire.request("GET", target, token=None)
        statuses.append(wire.reply().status)
    assert statuses == [401] * WRONG_MAX + [429]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("unix", "unix", True),
        ("unix", "127.0.0.1", False),
    ],
)
def test_whom_an_address_stands_for(one: str, other: str, *, same: bool) -> None:
    """IPv6 by the /64, mapped IPv4 as what it is, a Unix socket as one."""
    wrong = WrongTokens(Clock())
    for _ in range(WRONG_MAX):
        wrong.count(one)
    assert (wrong.count(other) is not None) is same


def test_behind_a_proxy_each_client_has_guesses_of_its_own(house: House) -> None:
    """The proxy's own address is everybody's."""
    house.site.behind_proxy = True

    def status(client: str) -> int:
        bad = {"Authorization": "Bearer jobsvc_test.guess", "X-Forwarded-For": client}
        return house.ask("GET", "/v1/info", headers=bad).status

    assert [status("192.0.2.1") for _ in range(WRONG_MAX + 1)] == [401] * WRONG_MAX + [429]
    assert status("192.0.2.2") == 401


def test_the_table_of_addresses_is_bounded() -> None:
    """Whoever was quiet for longest is forgotten; who guesses on is not."""
    wrong = WrongTokens(Clock())
    steady = "192.0.2.1"
    for number in range(ADDRESSES_MAX + 500):
        wrong.count(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        last = wrong.count(steady)
    assert len(wrong) == ADDRESSES_MAX
    assert last == WINDOW_S


def test_behind_a_proxy_each_client_guesses_for_itself(house: House) -> None:
    """By the hop that the proxy adds: what the client itself says before it changes nothing."""
    house.site.behind_proxy = True

    def status(forwarded: str) -> int:
        headers = {"Authorization": "Bearer jobsvc_test.guess", "X-Forwarded-For": forwarded}
        return house.ask("GET", "/v1/info", headers=headers).status

    assert [status(f"192.0.2.{n}, 203.0.113.1") for n in range(WRONG_MAX + 1)] == [401] * WRONG_MAX + [429]
    assert status("203.0.113.1, 203.0.113.2") == 401
    assert status("203.0.113.1") == 429
