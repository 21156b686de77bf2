"""F2: all places for workers that there are, and how new ones are filled: together, with the same code, or not at all.

Which of them serve, and when others take their place, is decided by `renewal`.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred

from jobsvc.pool.generation import Generation, ModuleLoadError
from jobsvc.pool.modules import Code, Modules
from jobsvc.pool.plan import HostKind
from jobsvc.pool.slot import Slot
from jobsvc.runtime.waiting import Waiters


class Roster:
    """See the module.

    Args:
        new_slot: makes a place for a worker of this kind, of this generation.
        on_stale: told that a worker which was started again has found other tasks on disk.
    """

    def __init__(
        self,
        modules: Modules,
        new_slot: Callable[[HostKind, Generation], Slot],
        on_stale: Callable[[], None],
    ) -> None:
        self.slots: list[Slot] = []
        self.stopping = False
        self._modules = modules
        self._new_slot = new_slot
        self._on_stale = on_stale
        self._gone: Waiters[None] = Waiters()
        self._loading: set[Deferred[Code]] = set()

    def of(self, worker_id: str) -> Slot | None:
        """The place of this worker."""
        there = (slot for slot in self.slots if slot.worker is not None)
        return next((slot for slot in there if slot.worker and slot.worker.id == worker_id), None)

    async def load(
        self, kinds: list[HostKind], without: frozenset[str] = frozenset()
    ) -> tuple[Generation, Code]:
        """New workers of these kinds, all of which have loaded the same tasks of all modules but these.

        Raises:
            ModuleLoadError: a module does not load, or the workers do not agree; they are being killed.
            CancelledError: the daemon is stopping.
        """
        if self.stopping:
            raise CancelledError
        generation = Generation(self._modules, without, self._stale, self._slot_gone)
        slots = [self._new_slot(kind, generation) for kind in kinds]
        self.slots += slots
        loading = generation.load(slots)
        self._loading.add(loading)
        try:
            return generation, await loading
        finally:
            self._loading.discard(loading)

    async def load_sound(self, kinds: list[HostKind], *, whole: bool = False) -> tuple[Generation, Code]:
        """As `load`, without the modules that are broken; one that proves to be broken now is left out in its turn.

        Args:
            whole: rather fail than leave out another one.
        """
        while True:
            try:
                generation, code = await self.load(kinds, self._modules.without_broken())
            except ModuleLoadError as error:
                if not self._modules.blame(error.faults) or whole:
                    raise
            else:
                if not self._modules.missing(code):
                    return generation, code
                generation.dismiss()  # what was left out works again

    def stop(self, *, kill: bool) -> None:
        """No more workers: those that are there are let go, or killed, those that are being started given up."""
        self.stopping = True
        for loading in list(self._loading):
            loading.cancel()
        for slot in list(self.slots):
            slot.quit()
            if kill and slot.worker is not None:
                slot.worker.destroy("quit")

    async def empty(self) -> None:
        """Returns when no worker is left."""
        while self.slots:
            await self._gone.wait()

    def _stale(self) -> None:
        if not self.stopping:
            self._on_stale()

    def _slot_gone(self, slot: Slot) -> None:
        self.slots.remove(slot)
        self._gone.fire(None)
