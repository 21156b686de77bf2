"""F2: workers that are started together and must hold the same tasks: the first ones, or those of a reload.

All or nothing: the first that is no use ends the others, and its words are the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from twisted.internet.defer import Deferred

from jobsvc.model.frames import Manifest
from jobsvc.model.task import TaskSpec
from jobsvc.pool.slot import Slot


class ModuleLoadError(Exception):
    """The task modules cannot be used; the text says why: a traceback, two tasks of one name, a worker that died."""


def tasks_of(manifest: Manifest) -> dict[str, TaskSpec]:
    """By name."""
    return {spec.name: spec for spec in manifest.tasks}


def differences(
    old: Mapping[str, TaskSpec], new: Mapping[str, TaskSpec]
) -> tuple[list[str], list[str], list[str]]:
    """Names that are new, that are gone, that mean something else."""
    added = sorted(new.keys() - old.keys())
    removed = sorted(old.keys() - new.keys())
    changed = sorted(name for name in old.keys() & new.keys() if old[name] != new[name])
    return added, removed, changed


class Generation:
    """See the module; the `Trial` of its slots.

    Args:
        in_force: the tasks that are served now: what later workers of these slots must hold.
        on_stale: a later worker holds others: the files have changed.
        on_gone: told of each slot that has come to its end.
    """

    def __init__(
        self,
        in_force: Callable[[], Mapping[str, TaskSpec]],
        on_stale: Callable[[], None],
        on_gone: Callable[[Slot], None],
    ) -> None:
        self._in_force = in_force
        self._on_stale = on_stale
        self._on_gone = on_gone
        self._missing: set[Slot] = set()
        self._slots: list[Slot] = []
        self._tasks: dict[str, TaskSpec] | None = None
        self._answer: Deferred[dict[str, TaskSpec]] = Deferred(lambda _: self.dismiss())

    def load(self, slots: Iterable[Slot]) -> Deferred[dict[str, TaskSpec]]:
        """Start them; the tasks that all of them have loaded. Cancel it to give up.

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

    def _fail(self, why: str) -> None:
        if not self._answer.called:
            self.dismiss()
            self._answer.errback(ModuleLoadError(why))

    # -- Trial

    def slot_loaded(self, slot: Slot, manifest: Manifest) -> None:
        """See `Trial`."""
        if self._answer.called:
            return  # another one has failed, or nobody wants them any more
        tasks = tasks_of(manifest)
        if self._tasks is None:
            self._tasks = tasks
        elif self._tasks != tasks:
            names = ", ".join(name for group in differences(self._tasks, tasks) for name in group)
            self._fail(
                f"the workers do not agree on these tasks: {names}; a module must declare the same in every process"
            )
            return
        self._missing.discard(slot)
        if not self._missing:
            self._answer.callback(tasks)

    def slot_failed(self, slot: Slot, why: str) -> None:
        """See `Trial`."""
        self._fail(why)

    def slot_gone(self, slot: Slot) -> None:
        """See `Trial`."""
        self._on_gone(slot)

    def fits(self, manifest: Manifest) -> str | None:
        """See `Trial`."""
        names = [name for group in differences(self._in_force(), tasks_of(manifest)) for name in group]
        if not names:
            return None
        self._on_stale()
        return f"the task modules have changed on disk ({', '.join(names)}): reloading"
