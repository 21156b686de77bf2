"""F2: workers that are started together and must hold the same tasks: the first ones, or those of a reload.

All or nothing: the first that is no use ends the others, and its words are the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.internet.defer import Deferred

from jobsvc.pool.breaker import ModuleFault
from jobsvc.pool.modules import Code, Modules, differences
from jobsvc.pool.slot import Slot


class ModuleLoadError(Exception):
    """The task modules cannot be used; the text says why: a traceback, two tasks of one name, a worker that died.

    Args:
        faults: the modules that are to blame, where it can be told.
    """

    def __init__(self, why: str, faults: Sequence[ModuleFault] = ()) -> None:
        super().__init__(why)
        self.faults = faults


class Generation:
    """See the module; the `Trial` of its slots.

    Args:
        modules: what is served now: what later workers of these slots must hold.
        without: the modules that its first workers do not import.
        on_stale: a later worker holds other tasks: the files have changed.
        on_gone: told of each slot that has come to its end.
    """

    def __init__(
        self,
        modules: Modules,
        without: frozenset[str],
        on_stale: Callable[[], None],
        on_gone: Callable[[Slot], None],
    ) -> None:
        self._modules = modules
        self._without = without
        self._on_stale = on_stale
        self._on_gone = on_gone
        self._missing: set[Slot] = set()
        self._slots: list[Slot] = []
        self._code: Code | None = None
        self._answer: Deferred[Code] = Deferred(lambda _: self.dismiss())

    def load(self, slots: Iterable[Slot]) -> Deferred[Code]:
        """Start them; the code that all of them have loaded. Cancel it to give up.

        Raises:
            ModuleLoadError: see there.
        """
        self._slots = list(slots)
        self._missing = set(self._slots)
        for slot in self._slots:
            slot.start()
        return self._answer

    def serve(self) -> None:
        """Offer them to the engine."""
        for slot in self._slots:
            slot.serve()

    def dismiss(self) -> None:
        """They are not wanted."""
        for slot in self._slots:
            slot.quit()

    def _fail(self, why: str, faults: Sequence[ModuleFault] = ()) -> None:
        if not self._answer.called:
            self.dismiss()
            self._answer.errback(ModuleLoadError(why, faults))

    # -- Trial

    def slot_loaded(self, slot: Slot, code: Code) -> None:
        """See `Trial`."""
        if self._answer.called:
            return  # another one has failed, or nobody wants them any more
        if self._code is None:
            self._code = code
        elif self._code.tasks != code.tasks:
            names = ", ".join(name for group in differences(self._code.tasks, code.tasks) for name in group)
            self._fail(
                f"the workers do not agree on these tasks: {names}; a module must declare the same in every process"
            )
            return
        self._missing.discard(slot)
        if not self._missing:
            self._answer.callback(code)

    def slot_failed(self, slot: Slot, why: str, faults: Sequence[ModuleFault]) -> None:
        """See `Trial`."""
        self._fail(why, faults)

    def slot_gone(self, slot: Slot) -> None:
        """See `Trial`."""
        self._on_gone(slot)

    def without(self, *, first: bool) -> frozenset[str]:
        """See `Trial`."""
        return self._without if first else self._modules.without_broken()

    def blame(self, faults: Sequence[ModuleFault]) -> None:
        """See `Trial`."""
        self._modules.blame(faults)

    def unfit(self, code: Code) -> str | None:
        """See `Trial`."""
        why = self._modules.unfit(code)
        if why is not None and self._modules.changed(code):
            self._on_stale()
        return why

    def lacking(self, code: Code) -> frozenset[str]:
        """See `Trial`."""
        return self._modules.lacking(code)
