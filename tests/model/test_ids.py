"""Identifiers: UUIDv7 that grow, whatever the clock does."""

from __future__ import annotations

from itertools import accumulate, pairwise
from random import Random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.model.ids import IdMaker, id_text, id_time_us, parse_id

NOW_US = 1_795_000_000_123_456


def test_an_id_is_a_uuid_of_version_7_and_tells_its_time() -> None:
    made = IdMaker(Random(3).getrandbits)(NOW_US)
    uuid = UUID(bytes=made)
    assert (uuid.version, uuid.variant) == (7, "specified in RFC 4122")
    assert id_text(made) == str(uuid)
    assert id_time_us(made) == 1_795_000_000_123_000
    assert uuid.int >> 80 == NOW_US // 1000


@given(st.lists(st.integers(-5_000, 5_000), min_size=2, max_size=50), st.integers(0, 2**32))
def test_ids_grow_also_when_the_clock_stands_still_or_steps_back(steps: list[int], seed: int) -> None:
    make = IdMaker(Random(seed).getrandbits)
    made = [make(NOW_US + passed) for passed in accumulate(steps)]
    assert made == sorted(set(made))
    assert all(UUID(bytes=each).version == 7 for each in made)


@pytest.mark.parametrize("bit", [0, 1])
def test_thousands_in_one_millisecond_at_the_ends_of_chance(bit: int) -> None:
    """The largest random start and steps do not overflow into the version or the time."""
    make = IdMaker(lambda k: (1 << k) - 1 if bit else 0)
    made = [make(NOW_US) for _ in range(20_000)]
    assert made == sorted(set(made))
    assert {id_time_us(each) for each in made} == {1_795_000_000_123_000}
    assert {UUID(bytes=each).version for each in made} == {7}


def test_the_next_id_cannot_be_told_from_the_last() -> None:
    make = IdMaker(Random(3).getrandbits)
    values = [int.from_bytes(make(NOW_US), "big") for _ in range(100)]
    gaps = {later - earlier for earlier, later in pairwise(values)}
    assert len(gaps) == 99


@given(st.uuids())
def test_texts_are_read_back(uuid: UUID) -> None:
    assert parse_id(str(uuid)) == uuid.bytes
    assert parse_id(id_text(uuid.bytes)) == uuid.bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "01a1ee56-5e00-7137-b2a7-4de4b7f9db4",
        "01a1ee56-5e00-7137-b2a7-4de4b7f9db4733",
        "01A1EE56-5E00-7137-B2A7-4DE4B7F9DB47",
        "{01a1ee56-5e00-7137-b2a7-4de4b7f9db}",
        "01a1ee565e00-7137-b2a7-4de4b7f9db47-",
        "urn:uuid:01a1ee565e007137b2a74de4b7f9",
        "01a1ee56-5e00-7137-b2a7-4de4b7f9db4g",
        "\uff101a1ee56-5e00-7137-b2a7-4de4b7f9db47",
        "01a1ee56_5e00-7137-b2a7-4de4b7f9db47",
    ],
)
def test_other_texts_are_no_ids(text: str) -> None:
    """One job, one name: no second spelling of the same id."""
    assert parse_id(text) is None


def test_other_versions_tell_no_time() -> None:
    assert id_time_us(UUID("6ba7b810-9dad-41d1-80b4-00c04fd430c8").bytes) is None
    assert id_time_us(bytes(16)) is None
