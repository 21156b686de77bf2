"""F3: why lines of one upload are refused, kept until the reply: the same words once, however many lines they are for.

An exception holds the frames it went through, two kilobytes and the line itself: a million bad lines of two bytes
each must not cost gigabytes.
"""

from __future__ import annotations

from typing import Final

from jobsvc.model.errors import Code, JobsvcError

DISTINCT_MAX: Final = 1_000
"""Refusals of one upload that are told apart, about a kilobyte each; more differ only in the words of the client."""


class Refusals:
    """Those of one upload."""

    def __init__(self) -> None:
        self._known: dict[tuple[Code, str], JobsvcError] = {}
        self._others: dict[Code, JobsvcError] = {}

    def kept(self, error: JobsvcError) -> JobsvcError:
        """What says the same and holds nothing else."""
        known = self._known.get((error.code, error.detail))
        if known is not None:
            return known
        if len(self._known) >= DISTINCT_MAX:
            words = (
                "Refused with this code; the lines of this upload are wrong in too many ways to tell each."
            )
            return self._others.setdefault(error.code, JobsvcError(error.code, words))
        known = self._known[error.code, error.detail] = JobsvcError(error.code, error.detail, **error.context)
        return known
