"""Bulk bodies: exact lines, bounded batches, lazily made; what is wrong comes in its place."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec
import pytest

from jobsvc.client import bulk
from jobsvc.client.bulk import Batch, MapLines, SubmitLines, batches


def still() -> float:
    """A clock that stands."""
    return 0.0


def lines_of(batch: Batch) -> list[Any]:
    return [msgspec.json.decode(line) for line in batch.body.splitlines()]


def test_map_lines_are_submissions() -> None:
    """Task and options in each line, arguments as given, none as an empty object."""
    (batch,) = batches([{"a": 1}, [2], None], MapLines('a"b', {"queue": "slow", "retries": 2}), still)
    rest = {"queue": "slow", "retries": 2}
    assert lines_of(batch) == [{"task": 'a"b', "args": args, **rest} for args in ({"a": 1}, [2], {})]
    assert (batch.first, batch.lines, batch.repeatable) == (1, 3, False)


def test_map_keys_are_numbered_over_all_batches() -> None:
    """The same map again has the same keys, so it may be repeated."""
    found = list(batches(range(bulk.FIRST_LINES + 1), MapLines("t", {"key": "k"}), still))
    assert [batch.repeatable for batch in found] == [True, True]
    assert lines_of(found[1]) == [{"task": "t", "args": bulk.FIRST_LINES, "key": f"k:{bulk.FIRST_LINES + 1}"}]


def test_submit_lines_take_pairs_and_mappings() -> None:
    """Repeatable only if every line has a key."""
    (batch,) = batches([("a", [1]), {"task": "b", "key": "k", "args": {}}], SubmitLines(), still)
    assert lines_of(batch) == [{"task": "a", "args": [1]}, {"task": "b", "key": "k", "args": {}}]
    assert not batch.repeatable
    (batch,) = batches([{"task": "b", "key": "k"}], SubmitLines(), still)
    assert batch.repeatable


def test_batches_of_an_endless_input_are_lazy_and_grow_to_a_bound() -> None:
    """Only what a batch needs is read; batches double up to their largest size."""
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    source = batches(endless(), MapLines("t", {}), still)
    assert taken == 0
    assert next(source).lines == taken == bulk.FIRST_LINES
    sizes = [batch.lines for batch in islice(source, 6)]
    assert sizes == [512, 1024, 2048, 4096, bulk.BATCH_LINES, bulk.BATCH_LINES]


def test_batches_are_bounded_in_bytes() -> None:
    """Large arguments make small batches."""
    first, *_ = batches(["x" * 1_000_000] * 10, MapLines("t", {}), still)
    assert first.lines == 5
    assert len(first.body) < bulk.BATCH_BYTES + 1_100_000


def test_a_slow_input_is_sent_as_it_comes() -> None:
    """What a slow source gave is not held back for a full batch."""
    now = 0.0

    def slowly() -> Iterator[int]:
        nonlocal now
        for value in range(3):
            now += 1.0
            yield value

    found = list(batches(slowly(), MapLines("t", {}), lambda: now))
    assert [(batch.first, batch.lines) for batch in found] == [(1, 1), (2, 1), (3, 1)]


@pytest.mark.parametrize("bad", [float("nan"), object()])
def test_bad_input_comes_after_what_was_good_before(bad: Any) -> None:
    """The lines before are sent, the bad one leaves no trace in the body, then its error is raised."""
    source = batches([1, 2, bad, 4], MapLines("t", {}), still)
    batch = next(source)
    assert [line["args"] for line in lines_of(batch)] == [1, 2]
    with pytest.raises((TypeError, ValueError)):
        next(source)


def test_null_is_no_nan() -> None:
    """A None in arguments is a null, and meant so."""
    (batch,) = batches([{"a": None}], MapLines("t", {}), still)
    assert lines_of(batch)[0]["args"] == {"a": None}
