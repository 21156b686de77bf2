"""F2: the code in force: the tasks by module, which modules are broken, and what follows for a worker that has loaded.

It decides and remembers; starting and exchanging workers is the pool's matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from jobsvc.model.frames import Manifest
from jobsvc.model.task import TaskSpec
from jobsvc.pool.breaker import Breaker, BrokenModule, ModuleFault


class Code(NamedTuple):
    """What workers have loaded: the tasks by name, and for each module the names of those it holds."""

    tasks: Mapping[str, TaskSpec]
    modules: Mapping[str, frozenset[str]]

    def part(self, modules: Iterable[str]) -> dict[str, TaskSpec]:
        """The tasks that these modules hold."""
        names = {name for module in modules for name in self.modules.get(module, ())}
        return {name: spec for name, spec in self.tasks.items() if name in names}


def code_of(manifest: Manifest) -> Code:
    """What this worker has loaded."""
    return Code(
        {spec.name: spec for spec in manifest.tasks},
        {module: frozenset(names) for module, names in manifest.modules.items()},
    )


def differences(
    old: Mapping[str, TaskSpec], new: Mapping[str, TaskSpec]
) -> tuple[list[str], list[str], list[str]]:
    """Names that are new, that are gone, that mean something else."""
    added = sorted(new.keys() - old.keys())
    removed = sorted(old.keys() - new.keys())
    changed = sorted(name for name in old.keys() & new.keys() if old[name] != new[name])
    return added, removed, changed


class Modules:
    """See the module.

    Args:
        names: the modules that were asked for.
        on_due: told of a broken module that is to be tried again now; `rested` ends the try.
    """

    _log = Logger()

    def __init__(
        self,
        names: Sequence[str],
        clock: IReactorTime,
        now_us: Callable[[], int],
        on_due: Callable[[str], None],
    ) -> None:
        self.names = names
        self.code = Code({}, {})
        self._breaker = Breaker(clock, now_us, on_due)
        self.rested = self._breaker.rest
        self.hurry = self._breaker.hurry
        self.stop = self._breaker.stop

    # -- which modules

    @property
    def broken(self) -> Mapping[str, BrokenModule]:
        """Those that new workers are started without."""
        return self._breaker.open

    def without_broken(self) -> frozenset[str]:
        """Their names as they are now."""
        return frozenset(self._breaker.open)

    def blame(self, faults: Iterable[ModuleFault]) -> bool:
        """Count these; whether there were any, so that another start may turn out otherwise."""
        blamed = False
        for fault in faults:
            blamed = True
            if self._breaker.failed(fault):
                self._log.error(
                    "module {module} is broken: new workers are started without it, its jobs wait where no worker "
                    "holds it: {why}",
                    module=fault.module, why=fault.why, action="module_broken",
                )  # fmt: skip
        return blamed

    # -- what has been loaded

    def adopt(self, code: Code) -> Code:
        """Workers with this code take over everywhere. What it says nothing of is broken: its tasks stay known.

        Returns: all that is in force now.
        """
        kept = self.code.part(module for module in self.broken if module not in code.modules)
        held = {module: names for module, names in self.code.modules.items() if module in self.broken}
        self.code = Code({**kept, **code.tasks}, {**held, **code.modules})
        for broken in self._breaker.close(code.modules):
            self._log.info("module {module} works again", module=broken.name, action="module_mended")
        return self.code

    def unfit(self, code: Code) -> str | None:
        """Why a worker with this code may not serve beside the others; None = it may.

        Its tasks must be those in force, but for the modules that are broken.
        """
        if missing := self.missing(code):
            return f"it was started without {', '.join(missing)}, which works again"
        self._breaker.loaded(code.modules)
        names = self.changed(code)
        return f"the task modules have changed on disk ({', '.join(names)}): reloading" if names else None

    def missing(self, code: Code) -> list[str]:
        """Modules that a worker with this code should hold and does not: they were broken when it was started."""
        return [name for name in self.names if name not in code.modules and name not in self.broken]

    def changed(self, code: Code) -> list[str]:
        """Names of the tasks that mean something else in these modules than in force."""
        return [name for group in differences(self.code.part(code.modules), code.tasks) for name in group]

    def lacking(self, code: Code) -> frozenset[str]:
        """Names of the tasks in force that a worker with this code cannot run."""
        return frozenset(self.code.tasks.keys() - code.tasks.keys())
