"""F2: workers that take the place of others: a reload, one worker for another, a broken module that loads again.

The new ones have loaded before the old ones are told to go, so nothing waits for them and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger

from jobsvc.model.errors import JobsvcError
from jobsvc.model.task import TaskSpec
from jobsvc.pool.config import KINDS
from jobsvc.pool.generation import Generation, ModuleLoadError
from jobsvc.pool.modules import Code, Modules, differences
from jobsvc.pool.plan import HostKind
from jobsvc.pool.roster import Roster
from jobsvc.pool.slot import Slot
from jobsvc.runtime.waiting import Background, Waiters


class ReloadReport(msgspec.Struct):
    """What a reload has changed: how many tasks there are now, the names of those whose declaration differs."""

    tasks: int
    added: list[str]
    removed: list[str]
    changed: list[str]


class Renewal:
    """See the module.

    Args:
        kinds: one for each worker there is to be.
        adopt: puts this code in force; returns all the tasks there are then.
    """

    _log = Logger()

    def __init__(
        self,
        roster: Roster,
        modules: Modules,
        kinds: Sequence[HostKind],
        adopt: Callable[[Code], Mapping[str, TaskSpec]],
    ) -> None:
        self._roster = roster
        self._modules = modules
        self._kinds = list(kinds)
        self._adopt = adopt
        self._background = Background()
        self._reloads: Waiters[ReloadReport | Exception] = Waiters()
        self._reloading = False
        self._renewing = False
        self._replacing: set[Slot] = set()

    async def drained(self) -> None:
        """Returns when nothing of it is under way."""
        await self._background.drained()

    def reload(self) -> Deferred[ReloadReport]:
        """New code without losing a job: start new workers beside the old ones, change over when all have loaded.

        Who asks while a reload runs gets its answer.

        Raises:
            ModuleLoadError: the new code does not load; nothing has changed, the old workers serve on.
            JobsvcError: `draining`, the daemon is stopping.
        """
        answer = self._reloads.wait().addCallback(_raised)
        if not self._reloading:
            self._reloading = True
            self._background.run("reload", self._reload())
        return answer

    async def _reload(self) -> None:
        outcome: ReloadReport | Exception
        try:
            generation, code = await self._roster.load(self._kinds)
        except CancelledError:
            outcome = JobsvcError("draining", "The daemon is stopping.")
        except ModuleLoadError as error:
            self._log.error(
                "reload failed, the old code serves on: {error}", error=str(error), action="reload_failed"
            )
            self._modules.hurry()  # what was mended beside this module need not wait for its turn
            outcome = error
        else:
            outcome = self._change_over(generation, code)
        self._reloading = False
        self._reloads.fire(outcome)

    def _change_over(self, generation: Generation, code: Code) -> ReloadReport:
        """These workers take the place of all that serve now."""
        old = [slot for slot in self._roster.slots if not slot.on_trial]
        before = self._modules.code.tasks
        report = ReloadReport(0, *differences(before, self._adopt(code)))
        report.tasks = len(self._modules.code.tasks)
        generation.serve()
        for slot in old:
            slot.retire()
        self._log.info(
            "reloaded: {report.tasks} tasks; added {report.added}, removed {report.removed}, changed {report.changed}",
            report=report, action="reloaded")  # fmt: skip
        return report

    def replace(self, worker_id: str, *, whole: bool = False) -> Deferred[None]:
        """Start another worker beside this one and retire this one when the other is ready; fires then.

        One that is not there, or not ready, or being replaced already is left alone. A failure is logged: the old
        worker serves on.

        Args:
            whole: the old one is better than one that lacks a module.
        """
        slot = self._roster.of(worker_id)
        if slot is None or slot.state != "ready" or slot in self._replacing or self._roster.stopping:
            return succeed(None)
        self._replacing.add(slot)
        return Deferred.fromCoroutine(self._replace(slot, whole=whole))

    async def _replace(self, slot: Slot, *, whole: bool) -> None:
        try:
            generation, code = await self._roster.load_sound([slot.kind], whole=whole)
            if slot.state != "ready":  # it went by itself meanwhile, or by a reload
                generation.dismiss()
            elif self._modules.unfit(code) is None:
                generation.serve()
                slot.retire()
            else:  # the files have changed: all go, this one with them
                generation.dismiss()
                await self._renew()
        except CancelledError:
            return  # the daemon is stopping
        except (ModuleLoadError, JobsvcError) as error:
            self._log.error("no replacement for a worker: {error}", error=str(error), action="replace_failed")
        finally:
            self._replacing.discard(slot)

    async def _renew(self) -> None:
        """New workers for all, without what is broken: the files have changed. Raises as `_load`."""
        if not self._modules.broken:
            await self.reload()
            return
        try:
            generation, code = await self._roster.load_sound(self._kinds)
        except ModuleLoadError as error:
            self._log.error(
                "no workers for the changed code: {error}", error=str(error), action="renew_failed"
            )
            raise
        self._change_over(generation, code)

    def try_again(self, module: str) -> None:
        """A broken module is due: see whether it loads again."""
        self._background.run(f"another try of module {module}", self._try(module))

    async def _try(self, module: str) -> None:
        """See whether a broken module loads again, in one worker of each kind; if so, all get it."""
        without = self._modules.without_broken() - {module}
        try:
            trial, _ = await self._roster.load(list(KINDS), without)
            trial.dismiss()
            generation, code = await self._roster.load(self._kinds, without)
            if self._modules.missing(code) or module not in self._modules.broken:
                generation.dismiss()  # a reload or another try has been faster
            else:
                self._change_over(generation, code)
        except CancelledError:
            return  # the daemon is stopping
        except ModuleLoadError as error:
            self._modules.blame(error.faults)
        finally:
            self._modules.rested(module)

    def stale(self) -> None:
        """A worker that was started again has found other tasks on disk."""
        if not self._renewing:
            self._renewing = True
            Deferred.fromCoroutine(self._renew()).addErrback(
                lambda failure: failure.trap(ModuleLoadError, JobsvcError, CancelledError)
            ).addBoth(self._renewed)  # logged there

    def _renewed(self, _: object) -> None:
        self._renewing = False


def _raised(outcome: ReloadReport | Exception) -> ReloadReport:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
