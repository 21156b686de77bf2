"""Refusals that come in floods: few records, true counts, and the changes beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobsvc.http.auditing import WINDOW_S
from jobsvc.http.tally import ADDRESS_REFUSALS, ADDRESSES_MAX, STRANGER_REFUSALS, Tally
from jobsvc.store.audit_check import check
from tests.http.audited import Audited
from tests.http.keys import key

WRONG = {"Authorization": "Bearer wrong"}
ELSEWHERE = {"Host": "evil.example"}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Audited]:
    made = Audited(tmp_path)
    made.site.behind_proxy = True  # a client's address is what X-Forwarded-For says
    yield made
    made.run(made.trail.close())
    made.close()


def refused(house: Audited, source: str, headers: dict[str, str]) -> None:
    assert house.ask("GET", "/v1/jobs", headers={**headers, "X-Forwarded-For": source}).status in (401, 421)


def told(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in ("what", "who", "code", "count", "addresses", "from"))


def test_strangers_of_many_addresses_share_one_record_for_each_code(house: Audited) -> None:
    """A few are written whole; at the end of the minute the others are a number, and of how many addresses."""
    for number in range(40):
        refused(house, f"192.0.2.{number}", WRONG)
        refused(house, f"198.51.100.{number % 3}", ELSEWHERE)
    records = house.records()
    assert [record["what"] for record in records] == [
        ("edge.unauthenticated", "edge.bad_host")[number % 2] for number in range(STRANGER_REFUSALS)
    ]
    house.after(WINDOW_S)
    whole = {"edge.unauthenticated": 3, "edge.bad_host": 2}  # of the five
    assert [told(record) for record in house.records()[STRANGER_REFUSALS:]] == [
        ("audit.left_out", "daemon", "bad_host", 40 - whole["edge.bad_host"], 3, None),
        ("audit.left_out", "daemon", "unauthenticated", 40 - whole["edge.unauthenticated"], 37, None),
    ]
    report = check(house.folder)
    assert (report.ok, report.records) == (True, STRANGER_REFUSALS + 2), report.problems


def test_a_flood_of_one_address_names_it(house: Audited) -> None:
    """Whom to shut out is then known. The next minute begins anew."""
    for _ in range(2):
        seen = len(house.records())
        for _ in range(STRANGER_REFUSALS + 4):
            refused(house, "192.0.2.9", ELSEWHERE)
        house.after(WINDOW_S)
        fresh = house.records()[seen:]
        assert len(fresh) == STRANGER_REFUSALS + 1
        assert told(fresh[-1]) == ("audit.left_out", "daemon", "bad_host", 4, 1, "192.0.2.9")


def test_strangers_do_not_take_the_room_of_those_who_are_known(house: Audited) -> None:
    """Ten refusals of an address with a token are written, whatever strangers do; the others are its count."""
    reader = key(house, "read")
    for number in range(STRANGER_REFUSALS + 7):
        refused(house, f"192.0.2.{number}", ELSEWHERE)
    seen = len(house.records())
    for _ in range(ADDRESS_REFUSALS + 25):
        assert reader.ask("POST", "/v1/jobs", {"task": "echo"}).status == 403
    fresh = house.records()[seen:]
    assert [(record["who"], record["code"]) for record in fresh] == [
        (reader.id, "forbidden")
    ] * ADDRESS_REFUSALS
    house.after(WINDOW_S)
    assert [told(record) for record in house.records()[seen + ADDRESS_REFUSALS :]] == [
        ("audit.left_out", "daemon", None, 25, None, "127.0.0.1"),
        ("audit.left_out", "daemon", "bad_host", 7, 7, None),
    ]


def test_what_is_counted_at_a_stop_is_written(house: Audited) -> None:
    """The minute need not be over."""
    for _ in range(STRANGER_REFUSALS + 2):
        refused(house, "192.0.2.1", ELSEWHERE)
    house.run(house.trail.close())
    assert told(house.last())[:4] == ("audit.left_out", "daemon", "bad_host", 2)


def test_the_memory_of_a_flood_is_bounded() -> None:
    """The count is exact; beyond the bound the number of addresses says: so many or more."""
    tally = Tally()
    more = ADDRESSES_MAX + 500
    for number in range(STRANGER_REFUSALS + more):
        tally.admits(f"10.0.{number >> 8}.{number & 255}", "unauthenticated", stranger=True)
    for number in range(more * (ADDRESS_REFUSALS + 1)):
        tally.admits(f"10.1.{number % more}", "forbidden", stranger=False)
    *known, strangers = tally.left_out(7)
    assert (strangers.at, strangers.count, strangers.addresses) == (7, more, ADDRESSES_MAX)
    assert len(known) == ADDRESSES_MAX + 1
    assert [entry.of for entry in known if entry.source == "others"] == [500 * (ADDRESS_REFUSALS + 1)]
