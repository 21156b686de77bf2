"""What a check hands in: what it counted, what it found broken, and the first examples."""

from __future__ import annotations

from typing import Any, Final

import msgspec

EXAMPLES_MAX: Final = 20


class Finding(msgspec.Struct):
    """The word of one check. It is green when nothing is broken."""

    id: str
    invariant: str
    counts: dict[str, int | float | None] = {}
    broken: int = 0
    examples: list[dict[str, Any]] = []

    @property
    def green(self) -> bool:
        """Whether the invariant holds."""
        return self.broken == 0

    def breaks(self, **example: Any) -> None:
        """One more case in which the invariant does not hold."""
        self.broken += 1
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(example)

    def count(self, name: str, by: int = 1) -> None:
        """Count something worth telling."""
        self.counts[name] = (self.counts.get(name) or 0) + by


def percentiles(values: list[float], name: str) -> dict[str, int | float | None]:
    """Median, 99th percentile and maximum, in the unit of the values; None when there are none."""
    if not values:
        return {f"{name}_p50": None, f"{name}_p99": None, f"{name}_max": None}
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4)

    return {f"{name}_p50": at(0.5), f"{name}_p99": at(0.99), f"{name}_max": at(1.0)}
