"""F2: admission of new jobs: how many of a tenant may wait, how fast they come, how many are on their way to the disk.

Only submits ask here; reads, waits and cancels are never refused by it. What is over a tenant's own limit is 429, what
is over the daemon's is 503, and both say when to come again, by what was measured. The counts are kept with every
change of state, so that asking is a few look-ups; the store is counted once, at the start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from jobsvc.engine.rates import Bucket, Rate, bounded, time_for
from jobsvc.model.errors import JobsvcError
from jobsvc.model.job import Job

SUBMITS_IN_FLIGHT_MAX = 40_000
"""Jobs handed to the store and not yet committed: at 50,000 a second, what comes behind them waits about a second."""
CROWDED_SHARE = 2
"""With one in so many of those used, uploads go on only as fast as their own jobs are committed."""
SUBMIT_BURST_S = 10
"""A tenant may use the submits of so many seconds at once: the window of its rate."""
TENANTS_IDLE_MAX = 1_000
"""Tenants remembered while nothing of them moves, about a kilobyte each: tenants come and go with tokens, and a service
that makes one for each of its customers' runs has a million in a year."""
TELL_SHARE = 2
"""The RateLimit headers appear once one in so many of a limit is used: before that nobody needs them."""

_tenant = attrgetter("tenant")


class Limit(NamedTuple):
    """How a tenant stands with one limit: at most `quota` (in `window_s`, None: at a time), `left` of them.

    `reset_s`: until all of it is there again, None where that cannot be told.
    """

    name: str
    quota: int
    left: int
    window_s: int | None
    reset_s: float | None


class Sent(NamedTuple):
    """What went to the store in one call: how many, and how many of them to wait."""

    tenant: str
    jobs: int
    waiting: int


class Quotas:
    """See the module.

    Args:
        seconds: the steady clock.
        counters: refused jobs are counted here, by code.
        queue_max: jobs of one tenant that may wait; 0 = no limit.
        submit_rate: jobs that one tenant may submit in a second, on the average; 0 = no limit.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        counters: Counter[tuple[str, ...]],
        queue_max: int = 0,
        submit_rate: float = 0.0,
    ) -> None:
        self._seconds = seconds
        self._counters = counters
        self._queue_max = queue_max
        self._submit_rate = submit_rate
        self.waiting: Counter[str] = Counter()
        """Jobs that wait and are committed, by tenant."""
        self._coming: Counter[str] = Counter()  # on their way to the store to wait there
        self._in_flight = 0  # on their way to the store, whatever becomes of them
        self._left: dict[str, Rate] = {}  # how fast jobs of a tenant stop waiting
        self._stored = Rate(seconds)
        self._buckets: dict[str, Bucket] = {}
        self._forget_at = TENANTS_IDLE_MAX

    # -- asking

    @property
    def crowded(self) -> bool:
        """Whether so much is on its way to the store that uploads should hold back."""
        return self._in_flight * CROWDED_SHARE >= SUBMITS_IN_FLIGHT_MAX

    def room(self, tenant: str, wanted: int) -> tuple[int, JobsvcError | None]:
        """How many of `wanted` new jobs can be taken now, and why not the others."""
        granted, refusal = wanted, None
        free = SUBMITS_IN_FLIGHT_MAX - self._in_flight
        if granted > free and self._in_flight:  # what comes alone is taken, however much it is
            granted, refusal = max(0, free), self._overloaded(wanted - free)
        if self._queue_max:
            free = self._queue_max - self.waiting[tenant] - self._coming[tenant]
            if granted > free:
                granted, refusal = max(0, free), self._queue_full(tenant, wanted - free)
        if self._submit_rate:
            bucket = self._bucket(tenant)
            free = int(bucket.held())
            if granted > free:
                granted, refusal = free, self._rate_limited(bucket, wanted)
        if refusal is not None:
            self._counters["not_admitted", refusal.code] += wanted - granted
        return granted, refusal

    def check(self, tenant: str, wanted: int) -> None:
        """Raise unless all of these can be taken now.

        Raises:
            JobsvcError: queue_full, rate_limited, overloaded, with `retry_after_s`; too_large, they never can.
        """
        _, refusal = self.room(tenant, wanted)
        if refusal is None:
            return
        most = min(self._queue_max or wanted, int(self._bucket(tenant).room) if self._submit_rate else wanted)
        if wanted > most:
            raise JobsvcError(
                "too_large", f"{wanted} jobs at once; the limits of {tenant!r} have room for {most}"
            )
        raise refusal

    def limits(self, tenant: str) -> list[Limit]:
        """The limits of which the tenant has used enough to be told."""
        told: list[Limit] = []
        if self._queue_max:
            used = self.waiting[tenant] + self._coming[tenant]
            if used * TELL_SHARE >= self._queue_max:
                rate = self._left[tenant].per_s() if tenant in self._left else 0.0
                reset_s = used / rate if rate > 0 else None
                told.append(Limit("queue", self._queue_max, max(0, self._queue_max - used), None, reset_s))
        if self._submit_rate:
            bucket = self._bucket(tenant)
            left = int(bucket.held())
            if (bucket.room - left) * TELL_SHARE >= bucket.room:
                reset_s = bucket.wait_s(bucket.room)
                told.append(Limit("submit", int(bucket.room), left, SUBMIT_BURST_S, reset_s))
        return told

    def _bucket(self, tenant: str) -> Bucket:
        bucket = self._buckets.get(tenant)
        if bucket is None:
            room = max(1.0, self._submit_rate * SUBMIT_BURST_S)
            bucket = self._buckets[tenant] = Bucket(self._submit_rate, room, self._seconds)
        return bucket

    # -- refusals

    def _overloaded(self, over: int) -> JobsvcError:
        return JobsvcError(
            "overloaded",
            f"{self._in_flight} jobs are on their way to the disk already; send it again in a moment",
            retry_after_s=time_for(over, self._stored.per_s()),
        )

    def _queue_full(self, tenant: str, over: int) -> JobsvcError:
        rate = self._left[tenant].per_s() if tenant in self._left else 0.0
        return JobsvcError(
            "queue_full",
            f"{self.waiting[tenant] + self._coming[tenant]} jobs of tenant {tenant!r} wait already, of at most "
            f"{self._queue_max} (--queue-max); {rate:.3g} a second get their turn",
            retry_after_s=time_for(over, rate),
        )

    def _rate_limited(self, bucket: Bucket, wanted: int) -> JobsvcError:
        return JobsvcError(
            "rate_limited",
            f"more than {self._submit_rate:g} jobs a second (--submit-rate), {bucket.room:g} at once",
            retry_after_s=bounded(bucket.wait_s(min(wanted, bucket.room))),
        )

    # -- counting

    def seed(self, waiting: Mapping[str, int]) -> None:
        """What the store holds at the start, before anything changes."""
        self.waiting.update(waiting)

    def sent(self, jobs: Sequence[Job]) -> Sent:
        """These, all of one tenant, go to the store. The tenant's tokens are spent, whatever becomes of them."""
        if max(len(self.waiting), len(self._left), len(self._buckets)) >= self._forget_at:
            self._forget_idle()
        sent = Sent(jobs[0].tenant, len(jobs), _waiting(jobs))
        self._in_flight += sent.jobs
        if sent.waiting:
            self._coming[sent.tenant] += sent.waiting
        if self._submit_rate:
            self._bucket(sent.tenant).take(sent.jobs)
        return sent

    def answered(self, sent: Sent, accepted: Sequence[Job]) -> None:
        """The store has answered for what was sent: these of them are new rows."""
        self._in_flight -= sent.jobs
        self._stored.add(sent.jobs)
        if sent.waiting:
            self._coming[sent.tenant] -= sent.waiting
            # Nearly always all of them are new.
            new = sent.waiting if len(accepted) == sent.jobs else _waiting(accepted)
            self.waiting[sent.tenant] += new

    def _forget_idle(self) -> None:
        """Nothing is remembered that a tenant new to us would not have as well."""
        for counts in (self.waiting, self._coming):
            for tenant in [tenant for tenant, count in counts.items() if not count]:
                del counts[tenant]
        for tenant in [tenant for tenant, rate in self._left.items() if rate.over]:
            del self._left[tenant]
        for tenant in [tenant for tenant, bucket in self._buckets.items() if bucket.full]:
            del self._buckets[tenant]
        # Those that are left move: to look again before there are twice as many would be a look at all for each submit.
        busy = max(len(self.waiting), len(self._left), len(self._buckets))
        self._forget_at = max(TENANTS_IDLE_MAX, 2 * busy)

    def back(self, tenant: str) -> None:
        """A job waits again."""
        self.waiting[tenant] += 1

    def gone(self, jobs: Sequence[Job]) -> None:
        """These wait no longer: they were claimed, cancelled, or have expired."""
        if len(jobs) == 1:
            self._gone(jobs[0].tenant, 1)
            return
        for tenant, count in Counter(map(_tenant, jobs)).items():
            self._gone(tenant, count)

    def _gone(self, tenant: str, count: int) -> None:
        self.waiting[tenant] -= count
        rate = self._left.get(tenant)
        if rate is None:
            rate = self._left[tenant] = Rate(self._seconds)
        rate.add(count)


def _waiting(jobs: Sequence[Job]) -> int:
    """How many of these new jobs wait: all for which no slot was free."""
    if len(jobs) == 1:
        return int(jobs[0].state != "running")
    return len(jobs) - [job.state for job in jobs].count("running")
