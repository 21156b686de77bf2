"""F3: how many bytes of request bodies are in memory at once, over all connections, and when there is room again."""

from __future__ import annotations

from collections.abc import Callable

from jobsvc.engine.rates import Rate, time_for
from jobsvc.model.errors import JobsvcError
from jobsvc.model.limits import KIB, MIB

BODIES_MAX_BYTES = 256 * MIB
"""Bodies being received, decoded or committed. Beyond it larger ones are refused, and uploads go on one by one."""
SMALL_BODY_BYTES = 4 * KIB
"""A body up to this is always taken: cancels, and whatever else an operator needs under load. All connections
together hold no more than 80 MiB of such."""
CROWDED_SHARE = 2
"""With one in so many bytes used, an upload takes more only as what it has sent before is committed."""


class Budget:
    """See the module.

    Args:
        seconds: the steady clock.
    """

    def __init__(self, seconds: Callable[[], float], max_bytes: int = BODIES_MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.used = 0
        self._freed = Rate(seconds)

    @property
    def crowded(self) -> bool:
        """Whether uploads should hold back."""
        return self.used * CROWDED_SHARE >= self.max_bytes

    def take(self, size: int) -> None:
        """So many more are held."""
        self.used += size

    def give(self, size: int) -> None:
        """So many are held no longer."""
        self.used -= size
        if size > SMALL_BODY_BYTES:
            self._freed.add(size)

    def refusal(self, size: int, *, held: int = 0) -> JobsvcError | None:
        """Why a body of this size is not taken now; None when it is. `held`: what of it is counted already."""
        over = self.used + size - held - self.max_bytes
        if over <= 0 or size <= SMALL_BODY_BYTES:
            return None
        return JobsvcError(
            "overloaded",
            f"{self.used // MIB} MiB of request bodies are in hand already; send it again in a moment",
            retry_after_s=time_for(over, self._freed.per_s()),
        )
