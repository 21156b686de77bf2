"""F2: whether a request is sent again, and after how long. Pure: chance comes in as an argument, nothing waits here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jobsvc.client.shapes import Problem

LOAD = frozenset((429, 503))
"""Statuses by which a server says: not now."""
_GATEWAY = frozenset((502, 503, 504))
"""The same from a proxy, which does not know whether the request got through."""


@dataclass(frozen=True)
class Retry:
    """How often and how patiently a request is tried.

    Args:
        uniform: `uniform(a, b)` gives a random number between the two, against thundering herds.
        tries: in all, the first included.
        base_s: delay before the second try; doubles with each further one.
        max_s: longest delay of our own choosing.
        patience_s: longest delay that a `Retry-After` may ask for; a longer one is reported instead of waited for.
    """

    uniform: Callable[[float, float], float]
    tries: int = 4
    base_s: float = 0.1
    max_s: float = 2.0
    patience_s: float = 30.0

    def after_break(self, tried: int, *, sent: bool, repeatable: bool) -> float | None:
        """Seconds to wait after a broken connection; None: give up. Unsent requests may always be sent again."""
        if sent and not repeatable:
            return None
        return self._backoff(tried)

    def after_problem(
        self, tried: int, problem: Problem, retry_after: str | None, *, repeatable: bool
    ) -> float | None:
        """Seconds to wait after a refusal; None: give up.

        Refused for load means not carried out, if the daemon itself says so (`retry_safe`); a proxy's word counts
        only for requests that may be repeated.
        """
        asked_s = problem.retry_after_s if problem.retry_after_s is not None else seconds_of(retry_after)
        ours = problem.code != "unknown"
        if ours and not (problem.status in LOAD and (problem.retry_safe or repeatable)):
            return None
        if not ours and not (problem.status in LOAD | _GATEWAY and repeatable):
            return None
        delay_s = self._backoff(tried)
        if delay_s is None or asked_s is None:
            return delay_s
        # Spread a little: all who were refused together were told the same number.
        return None if asked_s > self.patience_s else asked_s + self.uniform(0.0, self.base_s)

    def reconnect(self, tried: int, asked_s: float | None) -> float:
        """Seconds before a broken stream is opened again; `asked_s` is what the server asked for."""
        delay_s = min(self.max_s, self.base_s * 2.0 ** min(tried, 16))
        return max(asked_s or 0.0, self.uniform(delay_s / 2, delay_s))

    def _backoff(self, tried: int) -> float | None:
        if tried >= self.tries:
            return None
        delay_s = min(self.max_s, self.base_s * 2.0 ** (tried - 1))
        return self.uniform(delay_s / 2, delay_s)


def busy_for_now(problem: Problem) -> bool:
    """Whether one line of a bulk submit was refused for load alone, so that it may be sent again."""
    return problem.retry_safe and problem.status in LOAD


def seconds_of(retry_after: str | None) -> float | None:
    """A `Retry-After` in seconds; dates (which the daemon never sends) count as not given."""
    text = (retry_after or "").strip()
    return float(text) if text.isascii() and text.isdigit() else None
