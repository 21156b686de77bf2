"""The nemesis: carries out the deeds of the plan on the daemon, one after the other, and heals what it broke."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from time import monotonic_ns, time_ns
from typing import Final

from tests.torture.plan import DeedKind, DeedSpec
from tests.torture.processes import everyone, guard_of, send, workers_of
from tests.torture.records import Deed
from tests.torture.report import NOT_REACHED
from tests.torture.sut import Sut

CRASH_WAIT_S: Final = 6.0
"""How long a daemon that is armed with a crash point may live before it is killed all the same."""
FROZEN_S: Final = 0.8
"""How long a worker is stopped by SIGSTOP: shorter than the silence after which it is given up."""
SECOND_DAEMON_S: Final = 20.0
"""A second daemon on the same directory must have given up by then."""


class Nemesis:
    """See the module. `deeds` grows as they are done."""

    def __init__(self, sut: Sut, plan: Sequence[DeedSpec]) -> None:
        self.deeds: list[Deed] = []
        self.trouble: list[str] = []
        """A daemon that could not be started again: the run ends there."""
        self._sut = sut
        self._plan = plan
        self._nobody = threading.Event()
        self._do: dict[DeedKind, Callable[[DeedSpec], tuple[bool, str]]] = {
            "kill_daemon": self._kill_daemon,
            "kill_everything": self._kill_everything,
            "crash_point": self._crash_point,
            "kill_worker": self._kill_worker,
            "stop_worker": self._stop_worker,
            "drain": self._drain,
            "double_start": self._double_start,
            "kill_guard": self._kill_guard,
        }

    def run(self) -> None:
        """All deeds; returns when the daemon is ready after the last one, or does not become ready any more."""
        for spec in self._plan:
            self._nobody.wait(spec.after_s)
            at, wall = monotonic_ns(), time_ns() // 1000
            hit, detail = self._do[spec.kind](spec)
            self.deeds.append(Deed(spec.kind, at, monotonic_ns(), hit, wall, detail))
            if self._sut.life.ready is None or self._sut.life.ended is not None:
                self.trouble.append(
                    f"after {spec.kind} the daemon was not ready again: {self._sut.log_tail()}"
                )
                return

    # -- each: whether it hit as planned, and what it did

    def _kill_daemon(self, spec: DeedSpec) -> tuple[bool, str]:
        self._sut.kill()
        self._sut.start()
        return True, ""

    def _crash_point(self, spec: DeedSpec) -> tuple[bool, str]:
        """Kill it, let it die again at the point, start it once more."""
        self._sut.kill()
        hit = True
        if self._sut.start(spec.wish):
            if spec.wish in ("CP15", "CP16"):
                self._sut.terminate()
            hit = self._sut.died(CRASH_WAIT_S)
            if not hit:
                self._sut.kill()
        self._sut.start()
        return True, spec.wish if hit else f"{spec.wish}: {NOT_REACHED}"

    def _kill_worker(self, spec: DeedSpec) -> tuple[bool, str]:
        workers = workers_of(self._sut.pid, self._sut.life.name)
        if not workers:
            return False, "no worker"
        victim = workers[spec.number % len(workers)]
        return send(victim.pid, signal.SIGKILL), victim.command[:80]

    def _stop_worker(self, spec: DeedSpec) -> tuple[bool, str]:
        workers = workers_of(self._sut.pid, self._sut.life.name)
        if not workers:
            return False, "no worker"
        victim = workers[spec.number % len(workers)]
        hit = send(victim.pid, signal.SIGSTOP)
        self._nobody.wait(FROZEN_S)
        send(victim.pid, signal.SIGCONT)
        return hit, victim.command[:80]

    def _drain(self, spec: DeedSpec) -> tuple[bool, str]:
        status = self._sut.stop()
        self._sut.start()
        return True, f"status {status}"

    def _double_start(self, spec: DeedSpec) -> tuple[bool, str]:
        """The second one must end by itself, and say that it cannot."""
        second = self._sut.popen(f"{self._sut.run}.second.")
        try:
            status = second.wait(SECOND_DAEMON_S)
        except subprocess.TimeoutExpired:
            second.kill()
            return False, "the second daemon runs on"
        return status not in (0, None), f"status {status}"

    def _kill_guard(self, spec: DeedSpec) -> tuple[bool, str]:
        """Another one must take its place: what is left behind after that is seen like everything else."""
        guard = guard_of(self._sut.pid)
        return guard is not None and send(guard, signal.SIGKILL), f"guard {guard}"

    def _kill_everything(self, spec: DeedSpec) -> tuple[bool, str]:
        """The daemon and all it has started, in one go, as by the kernel's hand: nobody is left to clean up."""
        daemon = self._sut.pid
        victims = [guard_of(daemon), *(p.pid for p in everyone(self._sut.life.name) if p.pid != daemon)]
        for pid in (daemon, *victims):
            if pid is not None:
                send(pid, signal.SIGKILL)
        self._sut.kill()
        self._sut.start()
        return True, f"{len(victims)} processes"
