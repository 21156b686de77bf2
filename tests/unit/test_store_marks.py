"""Whether a write-ahead log is the database's own, by the marks in the file alone and in both together."""

from __future__ import annotations

import pytest

from jobsvc.store.marks import LOG_STARTS_MAX, Marks, own_log

NUMBER = 5_000_000
OURS = Marks(in_use=1, identity=1, life=2, log=NUMBER, whole=0)


@pytest.mark.parametrize(
    ("file", "both", "own"),
    [
        (OURS, OURS, True),
        (OURS._replace(log=NUMBER - LOG_STARTS_MAX + 1), OURS, True),  # begun anew as often as it may be
        (OURS._replace(log=7), OURS._replace(life=3), True),  # killed just after it was opened
        (OURS._replace(log=None), OURS, True),  # the power went while the page with its number was written
        (OURS._replace(log=7), OURS._replace(log=7), False),  # another log of the same life
        (OURS._replace(log=7), OURS._replace(identity=9, life=8), False),  # of another database
        (Marks(), OURS, True),  # written by a program that knew no marks
    ],
)
def test_own_log(file: Marks, both: Marks, *, own: bool) -> None:
    assert own_log(NUMBER, file, both) is own


def test_no_log_is_nobodys() -> None:
    assert own_log(None, OURS, OURS)
