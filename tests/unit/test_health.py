"""Checks by name: each is asked, one that fails does not hide the others."""

from __future__ import annotations

from jobsvc.health import Check, Checks, workers_at_all, workers_of
from tests.conftest import FlushFailures


def test_checks_are_asked_in_order(flush_failures: FlushFailures) -> None:
    """A later one of the same name takes the place of the first; what raises is not well, and logged."""
    checks = Checks()
    checks.add("a", lambda: (True, "old"))
    checks.add("b", lambda: (1 // 0 > 0, "never"))
    checks.add("c", lambda: (False, "so so"), decides=False)
    checks.add("a", lambda: (True, "fine"))
    assert checks.ask() == [
        Check("a", ok=True, detail="fine", decides=True),
        Check("b", ok=False, detail="cannot be told: ZeroDivisionError", decides=True),
        Check("c", ok=False, detail="so so", decides=False),
    ]
    assert [check.name for check in checks.ask(decides=True)] == ["a", "b"]
    assert [check.name for check in checks.ask(decides=False)] == ["c"]
    assert len(flush_failures(ZeroDivisionError)) == 2


def test_workers_are_judged_by_kind() -> None:
    """One that is not there is told, and leaves the others at work; a command worker makes up for none of them."""
    rows = [
        ("io", "ready"),
        ("cpu", "backing_off"),
        ("cpu", "starting"),
        ("command", "ready"),
    ]
    assert workers_of("io", rows, "no interpreter") == (True, "1 of 1 ready")
    assert workers_of("cpu", rows, "no interpreter") == (False, "0 of 2 ready; no interpreter")
    assert workers_of("cpu", rows, None) == (False, "0 of 2 ready")
    assert workers_at_all(rows, "no interpreter") == (True, "1 of 3 ready; no interpreter")
    assert workers_at_all(rows[1:], None) == (False, "0 of 2 ready")
    assert workers_of("command", rows, "no interpreter") == (True, "1 of 1 ready")
