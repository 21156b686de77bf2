"""The checks, each a pure function of the evidence. C14 comes with webhooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.torture.checks.answers import availability
from tests.torture.checks.attempts import attempts, cancels, epochs, overlap
from tests.torture.checks.finding import Finding
from tests.torture.checks.kept import idempotency, lost, recovered, unexpected
from tests.torture.checks.outcomes import legal_path, single_result
from tests.torture.checks.service import drains, hygiene, recovery
from tests.torture.checks.streams import streams
from tests.torture.evidence import Evidence

CHECKS: Final[tuple[Callable[[Evidence], Finding], ...]] = (
    lost, unexpected, idempotency, recovered, single_result, legal_path, epochs, overlap, attempts, cancels,
    drains, recovery, streams, hygiene, availability,
)  # fmt: skip


def check(evidence: Evidence) -> list[Finding]:
    """The word of every check."""
    return [each(evidence) for each in CHECKS]
