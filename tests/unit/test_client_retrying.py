"""When a request is sent again: only if that is safe, and as late as it was asked for."""

from __future__ import annotations

import pytest

from jobsvc.client.retrying import Retry, seconds_of
from jobsvc.client.shapes import Problem

RETRY = Retry(uniform=lambda _low, high: high, tries=4, base_s=0.1, max_s=0.3, patience_s=30.0)


@pytest.mark.parametrize(
    ("sent", "repeatable", "again"),
    [(False, False, True), (False, True, True), (True, True, True), (True, False, False)],
)
def test_after_a_broken_connection(sent: bool, repeatable: bool, again: bool) -> None:
    """What may have arrived is sent again only if twice is no more than once."""
    assert (RETRY.after_break(1, sent=sent, repeatable=repeatable) is not None) is again


def test_delays_grow_to_their_bound_and_tries_end() -> None:
    """0.1, 0.2, then the bound; the fourth try was the last."""
    delays = [RETRY.after_break(tried, sent=False, repeatable=False) for tried in (1, 2, 3, 4)]
    assert delays == [0.1, 0.2, 0.3, None]


@pytest.mark.parametrize(
    ("status", "code", "retry_safe", "repeatable", "again"),
    [
        (503, "draining", True, False, True),
        (503, "overloaded", False, False, False),
        (503, "overloaded", False, True, True),
        (429, "queue_full", True, False, True),
        (422, "invalid_args", True, True, False),
        (500, "internal", False, True, False),
        (504, "wait_over", True, True, False),
        (502, "unknown", False, True, True),
        (504, "unknown", False, True, True),
        (503, "unknown", False, False, False),
        (404, "unknown", False, True, False),
    ],
)
def test_after_a_refusal(status: int, code: str, retry_safe: bool, repeatable: bool, again: bool) -> None:
    """Refused for load is tried again; a proxy's word counts only for what may be repeated; a plain no is a no."""
    refused = Problem(status=status, code=code, retry_safe=retry_safe)
    assert (RETRY.after_problem(1, refused, None, repeatable=repeatable) is not None) is again


def test_retry_after_is_honoured_in_the_problem_and_in_the_header() -> None:
    """Never sooner than asked, a little later at random; a longer one than our patience is reported instead."""
    asked = Problem(status=503, code="draining", retry_safe=True, retry_after_s=5.0)
    silent = Problem(status=503, code="draining", retry_safe=True)
    assert RETRY.after_problem(1, asked, "1", repeatable=True) == pytest.approx(5.1)
    assert RETRY.after_problem(1, silent, "7", repeatable=True) == pytest.approx(7.1)
    assert RETRY.after_problem(1, silent, "31", repeatable=True) is None
    assert RETRY.after_problem(4, asked, None, repeatable=True) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("3", 3.0), (" 3 ", 3.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None)],
)
def test_retry_after_header(header: str | None, seconds: float | None) -> None:
    """Whole seconds; anything else counts as not given."""
    assert seconds_of(header) == seconds


def test_reconnect_waits_at_least_as_long_as_the_server_asks() -> None:
    """A stream's `retry:` is a lower bound; our own delay never passes its own."""
    assert RETRY.reconnect(1, None) == pytest.approx(0.2)
    assert RETRY.reconnect(50, None) == pytest.approx(0.3)
    assert RETRY.reconnect(1, 4.0) == pytest.approx(4.0)
