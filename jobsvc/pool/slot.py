"""F2: one place for a worker: starts it, offers it to the engine, replaces it when it dies, lets it go at the end.

The table at the end of this module is the whole of its life. The first start is a trial: whoever asked for it hears
how it ends. Later starts are the slot's own matter and are repeated. Which code is right is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from automat import TypeMachineBuilder
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from jobsvc.model.frames import Manifest, Message
from jobsvc.pool.backoff import Backoff
from jobsvc.pool.breaker import ModuleFault
from jobsvc.pool.exits import exit_words
from jobsvc.pool.modules import Code, code_of
from jobsvc.pool.plan import HostKind
from jobsvc.pool.process import Owner, WorkerProcess
from jobsvc.pool.recycle import Wear
from jobsvc.pool.trial import Trial
from jobsvc.ports import Death, WorkerListener


class Inputs(Protocol):
    """What may happen to a slot."""

    def start(self) -> None:
        """Start the first worker."""

    def loaded(self, manifest: Manifest) -> None:
        """The worker has imported the modules."""

    def broken(self, why: str, faults: Sequence[ModuleFault]) -> None:
        """The worker is no use, as these modules did not load."""

    def serve(self) -> None:
        """Offer the worker to the engine."""

    def died(self, death: Death) -> None:
        """The process is gone."""

    def again(self) -> None:
        """The time of waiting is over."""

    def retire(self) -> None:
        """No new attempts; those that run may finish."""

    def quit(self) -> None:
        """Nothing runs in it any more, or what runs does not count."""


class Core:
    """What a slot holds, and its single steps; the machine decides which."""

    log = Logger()

    def __init__(
        self,
        *,
        kind: HostKind,
        hire: Callable[[HostKind, Owner, frozenset[str]], WorkerProcess],
        listener: WorkerListener,
        trial: Trial,
        clock: IReactorTime,
        monotonic: Callable[[], float],
        backoff: Backoff,
        new_wear: Callable[[str, WorkerProcess], Wear],
    ) -> None:
        self.kind = kind
        self.worker: WorkerProcess | None = None
        self.slot: Slot | None = None
        self.state = "starting"  # as it is shown to people; the machine knows finer ones
        self.on_trial = True  # until it serves for the first time
        self.offered = False  # the engine knows the worker
        self.restarts = 0
        self.started = 0.0
        self.hire = hire
        self.listener = listener
        self.trial = trial
        self.clock = clock
        self.monotonic = monotonic
        self.backoff = backoff
        self.timer: IDelayedCall | None = None
        self.new_wear = new_wear
        self.wear: Wear | None = None  # of the worker that serves
        self.code = Code({}, {})  # of the worker it holds
        self.trouble: str | None = None  # why the last start came to nothing

    def launch(self, machine: Inputs) -> None:
        """Start a process; one that cannot be had counts as one that died."""
        assert self.slot is not None
        self.offered = False
        self.started = self.monotonic()
        self.worker = self.hire(self.kind, self.slot, self.trial.without(first=self.on_trial))
        try:
            self.worker.start()
        except OSError:
            self.log.failure("no process for a worker", action="spawn_failed")
            machine.died(Death("exit", None))

    def offer(self) -> None:
        """The engine may use it."""
        assert self.worker is not None
        self.offered = True
        self.trouble = None
        self.wear = self.new_wear(self.kind, self.worker)
        self.worker.lacks = self.trial.lacking(self.code)
        self.code = self.code._replace(tasks={})  # schemas of all tasks, needed no more
        self.worker.ready()
        self.listener.worker_ready(self.worker)

    def bury(self, death: Death) -> None:
        """It is dead: the engine hears of it, if it ever knew it."""
        if self.offered and self.worker is not None:
            self.offered = False
            self.listener.worker_died(self.worker, death)

    def destroy(self) -> None:
        """Kill it."""
        if self.worker is not None:
            self.worker.destroy("quit")

    def dismiss(self) -> None:
        """Let it exit."""
        if self.worker is not None:
            self.worker.dismiss()

    def wait(self, machine: Inputs, death: Death) -> None:
        """Start another one, now or later."""
        blameless = death.how in ("killed", "stalled") or death.running is not None
        delay_s = self.backoff.next_s(self.monotonic() - self.started, blameless=blameless)
        self.restarts += 1
        if delay_s:
            self.log.warn(
                "worker {kind}: started again in {delay_s:.2f} s",
                kind=self.kind, delay_s=delay_s, action="restart_waits",
            )  # fmt: skip
        self.timer = self.clock.callLater(delay_s, machine.again)

    def cancel_wait(self) -> None:
        """No other one is wanted."""
        if self.timer is not None and self.timer.active():
            self.timer.cancel()

    def fail(self, why: str, faults: Sequence[ModuleFault]) -> None:
        """The trial has failed."""
        assert self.slot is not None
        self.trial.slot_failed(self.slot, why, faults)

    def faults(self, why: str, *, certain: bool) -> list[ModuleFault]:
        """The module in whose import the worker hung or died, if it was in one."""
        module = self.worker.loading if self.worker is not None else None
        return [] if module is None else [ModuleFault(module, why, certain)]

    def gone(self) -> None:
        """The slot is at its end."""
        assert self.slot is not None
        self.trial.slot_gone(self.slot)

    def death_words(self, death: Death) -> str:
        """Why the first worker came to nothing, with its last words."""
        tail = self.worker.printed_tail() if self.worker is not None else ""
        words = f"the {self.kind} worker {exit_words(death.exit)} before it had loaded the tasks"
        return f"{words}:\n{tail}" if tail else words


class Slot:
    """A place for one worker; the owner of its processes and the face of the machine."""

    def __init__(self, core: Core) -> None:
        self._core = core
        core.slot = self
        self._machine = Machine(core)

    # -- what others see

    @property
    def kind(self) -> HostKind:
        """Of its worker."""
        return self._core.kind

    @property
    def state(self) -> str:
        """Its state in the table."""
        return self._core.state

    @property
    def worker(self) -> WorkerProcess | None:
        """The worker it holds now, or held last while it waits."""
        return self._core.worker

    @property
    def on_trial(self) -> bool:
        """Whether it has not served yet: who started it decides what becomes of it."""
        return self._core.on_trial

    @property
    def restarts(self) -> int:
        """How often its worker was started again after a death."""
        return self._core.restarts

    @property
    def modules(self) -> frozenset[str]:
        """The modules that the worker holds which serves; none while none does."""
        return frozenset(self._core.code.modules) if self._core.offered else frozenset()

    @property
    def trouble(self) -> str | None:
        """Why the last start of a worker came to nothing; None once one serves."""
        return self._core.trouble

    @property
    def wear(self) -> Wear | None:
        """What the worker has behind it that serves, or did last."""
        return self._core.wear

    # -- what its maker asks of it

    def start(self) -> None:
        """Start the first worker and tell the trial how it went."""
        self._machine.start()

    def serve(self) -> None:
        """Offer the loaded worker to the engine."""
        self._machine.serve()

    def retire(self) -> None:
        """No new attempts; `Worker.quit` will end it."""
        self._machine.retire()

    def quit(self) -> None:
        """Let it exit, by force if it does not."""
        self._machine.quit()

    # -- what its worker tells

    def loaded(self, manifest: Manifest) -> None:
        """See `Owner`."""
        core = self._core
        first = core.on_trial
        faults = [ModuleFault(module, why, certain=True) for module, why in manifest.errors.items()]
        core.code = code_of(manifest)
        if first and faults:
            self._broken("\n".join(manifest.errors.values()), faults)
            return
        if not first:
            # The first workers of a generation are compared with each other, later ones with what is in force.
            core.trial.blame(faults)
            if (why := core.trial.unfit(core.code)) is not None:
                self._broken(why, ())
                return
        self._machine.loaded(manifest)
        if first:
            # Outside the machine: what the trial does at once (`serve`) must not wait for the end of a transition.
            core.trial.slot_loaded(self, core.code)

    def _broken(self, why: str, faults: Sequence[ModuleFault]) -> None:
        self._core.trouble = why
        self._machine.broken(why, faults)

    def broken(self, why: str) -> None:
        """See `Owner`."""
        self._broken(why, self._core.faults(why, certain=True))

    def messages(self, messages: Sequence[Message]) -> None:
        """See `Owner`. Past the machine: this is the path of every job."""
        core = self._core
        if core.offered and core.worker is not None:
            core.listener.worker_messages(core.worker, messages)
            if core.wear is not None and core.wear.counts:
                core.wear.saw(messages)

    def asked_to_quit(self) -> None:
        """See `Owner`."""
        self._machine.quit()

    def ended(self, death: Death) -> None:
        """See `Owner`."""
        self._machine.died(death)


# == the table ====================================================================================================

builder = TypeMachineBuilder(Inputs, Core)

new = builder.state("new")
loading = builder.state("loading")  # first start: the modules are being imported
loaded = builder.state("loaded")  # waits for the other workers of its generation
ready = builder.state("ready")  # the engine uses it
waiting = builder.state("waiting")  # no process: backoff
starting = builder.state("starting")  # a later start
retiring = builder.state("retiring")  # finishes what runs
stopping = builder.state("stopping")  # told to exit, or killed
dead = builder.state("dead")


@new.upon(Inputs.start).to(loading)
def _begin(machine: Inputs, core: Core) -> None:
    core.launch(machine)


loading.upon(Inputs.loaded).to(loaded).returns(None)


@loading.upon(Inputs.broken).to(stopping)
def _useless(_: Inputs, core: Core, why: str, faults: Sequence[ModuleFault]) -> None:
    core.state = "stopping"
    core.destroy()
    core.fail(why, faults)


@loading.upon(Inputs.died).to(dead)
@loaded.upon(Inputs.died).to(dead)
def _died_on_trial(_: Inputs, core: Core, death: Death) -> None:
    core.state = "dead"
    why = core.death_words(death)
    core.fail(why, core.faults(why, certain=False))
    core.bury(death)
    core.gone()


@loaded.upon(Inputs.serve).to(ready)
def _serve(_: Inputs, core: Core) -> None:
    core.state = "ready"
    core.on_trial = False
    core.offer()


@ready.upon(Inputs.died).to(waiting)
def _replace(machine: Inputs, core: Core, death: Death) -> None:
    core.state = "waiting"
    core.bury(death)
    core.wait(machine, death)


@waiting.upon(Inputs.again).to(starting)
def _again(machine: Inputs, core: Core) -> None:
    core.state = "starting"
    core.launch(machine)


@starting.upon(Inputs.loaded).to(ready)
def _loaded_again(_: Inputs, core: Core, manifest: Manifest) -> None:  # noqa: ARG001 - the input has it
    core.state = "ready"
    core.offer()


@starting.upon(Inputs.broken).loop()
def _useless_again(_: Inputs, core: Core, why: str, faults: Sequence[ModuleFault]) -> None:
    core.log.error("a new {kind} worker is no use: {why}", kind=core.kind, why=why, action="worker_broken")
    core.destroy()
    core.trial.blame(faults)


@starting.upon(Inputs.died).to(waiting)
def _died_again(machine: Inputs, core: Core, death: Death) -> None:
    core.state = "waiting"
    if death.how != "quit":  # else we have ended it, and said why
        core.trouble = core.death_words(death)
        core.log.error("{words}", words=core.trouble, action="worker_start_failed")
        core.trial.blame(core.faults(core.trouble, certain=False))
    core.bury(death)
    core.wait(machine, death)


@ready.upon(Inputs.retire).to(retiring)
def _retire(_: Inputs, core: Core) -> None:
    core.state = "retiring"
    assert core.worker is not None
    core.listener.worker_retiring(core.worker)


@ready.upon(Inputs.quit).to(stopping)
@retiring.upon(Inputs.quit).to(stopping)
def _quit(_: Inputs, core: Core) -> None:
    core.state = "stopping"
    core.dismiss()


@loading.upon(Inputs.quit).to(stopping)
@loaded.upon(Inputs.quit).to(stopping)
@starting.upon(Inputs.quit).to(stopping)
@starting.upon(Inputs.retire).to(stopping)
def _abandon(_: Inputs, core: Core) -> None:
    core.state = "stopping"
    core.destroy()


@waiting.upon(Inputs.quit).to(dead)
@waiting.upon(Inputs.retire).to(dead)
def _never_again(_: Inputs, core: Core) -> None:
    core.state = "dead"
    core.cancel_wait()
    core.gone()


@retiring.upon(Inputs.died).to(dead)
@stopping.upon(Inputs.died).to(dead)
def _gone(_: Inputs, core: Core, death: Death) -> None:
    core.state = "dead"
    core.bury(death)
    core.gone()


# What changes nothing any more.
for _state in (stopping, dead):
    _state.upon(Inputs.retire).loop().returns(None)
    _state.upon(Inputs.quit).loop().returns(None)
    _state.upon(Inputs.broken).loop().returns(None)
    _state.upon(Inputs.loaded).loop().returns(None)
retiring.upon(Inputs.retire).loop().returns(None)
stopping.upon(Inputs.serve).loop().returns(None)
dead.upon(Inputs.serve).loop().returns(None)
dead.upon(Inputs.start).loop().returns(None)
new.upon(Inputs.quit).to(dead)(lambda _, core: core.gone())

Machine = builder.build()
