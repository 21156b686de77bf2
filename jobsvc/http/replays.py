"""F3: what became of idempotency keys earlier. A replay adds no job, so no limit on new ones may refuse it."""

from __future__ import annotations

from collections.abc import Sequence

from jobsvc.http.edge import Edge
from jobsvc.model.job import Job
from jobsvc.ports import Submitted

NOT_ADMITTED = frozenset(("queue_full", "rate_limited", "overloaded"))
"""Refusals of new jobs for want of room."""


async def known(edge: Edge, job: Job) -> Submitted | None:
    """The answer to a submit whose key is stored already; None for a new one."""
    earlier = None if job.key is None else await edge.engine.store.by_key(job.tenant, job.key)
    return None if earlier is None else _answer(earlier, job)


async def known_ones(edge: Edge, jobs: Sequence[Job]) -> list[Submitted | None]:
    """The same for many jobs of one tenant; earlier ones come without arguments and results."""
    keys = {job.key for job in jobs if job.key is not None}
    found = await edge.engine.store.by_keys(jobs[0].tenant, sorted(keys)) if keys else {}
    return [None if job.key is None or job.key not in found else _answer(found[job.key], job) for job in jobs]


def _answer(earlier: Job, job: Job) -> Submitted:
    return Submitted(earlier, replayed=True) if earlier.key_hash == job.key_hash else Submitted(None)
