"""F1: a stop of many steps: each is done, in its order, whatever has become of those before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from twisted.internet.defer import maybeDeferred
from twisted.python.failure import Failure

Step: TypeAlias = tuple[str, Callable[[], object]]
"""What it ends, for people; and how: a Deferred or a coroutine that comes of it is waited for."""


async def in_turn(steps: Iterable[Step], on_failure: Callable[[str, Failure], None]) -> None:
    """Do all of them. The next one is asked for when the one before it is done, so each may go by what that has left.

    Args:
        on_failure: told of a step that raised: a later one, which brings the data into safety, is done all the same.
    """
    for what, step in steps:
        try:
            await maybeDeferred(step)
        except Exception:  # noqa: BLE001 - of whatever room; a cancelled wait inside a step is a failure of it as well
            on_failure(what, Failure())
