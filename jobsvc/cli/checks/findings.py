"""F5: what a check has found."""

from __future__ import annotations

from typing import Literal

import msgspec

Status = Literal["pass", "warn", "fail", "n/a"]


class Finding(msgspec.Struct, frozen=True):
    """The outcome of one check.

    Attributes:
        status: `warn` is worth a look and fails nothing; `n/a`: there is nothing to look at here.
        detail: what was found, one line.
        advice: what to do, one line; empty when there is nothing to do.
    """

    status: Status
    detail: str
    advice: str = ""


def good(detail: str) -> Finding:
    """As it should be."""
    return Finding("pass", detail)


def bad(detail: str, advice: str) -> Finding:
    """Not as it should be."""
    return Finding("fail", detail, advice)


def odd(detail: str, advice: str) -> Finding:
    """To be looked at by a person."""
    return Finding("warn", detail, advice)


def absent(detail: str) -> Finding:
    """Nothing to look at."""
    return Finding("n/a", detail)
