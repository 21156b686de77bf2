"""F2: what a slot asks of those who started it, and tells them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from jobsvc.pool.breaker import ModuleFault
from jobsvc.pool.modules import Code

if TYPE_CHECKING:
    from jobsvc.pool.slot import Slot


class Trial(Protocol):
    """Who started the slot: hears once how its first worker came up, and when the slot is gone."""

    def slot_loaded(self, slot: Slot, code: Code) -> None:
        """Its first worker has imported the modules and waits for `serve`."""

    def slot_failed(self, slot: Slot, why: str, faults: Sequence[ModuleFault]) -> None:
        """Its first worker is no use, as these modules did not load; the slot is on its way out."""

    def slot_gone(self, slot: Slot) -> None:
        """It has no process and will never have one again."""

    def without(self, *, first: bool) -> frozenset[str]:
        """The modules that the next worker is not to import; `first`: of this slot."""

    def blame(self, faults: Sequence[ModuleFault]) -> None:
        """These modules did not load in a later worker."""

    def unfit(self, code: Code) -> str | None:
        """Why a later worker with this code may not serve beside the others; None = it may."""

    def lacking(self, code: Code) -> frozenset[str]:
        """The tasks in force that a worker with this code cannot run."""
