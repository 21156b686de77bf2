"""The nemesis: carries out the deeds of the plan on the daemon, one after the other, and heals what it broke."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic_ns, time_ns
from typing import Final

from tests.torture.plan import DeedKind, DeedSpec
from tests.torture.processes import descriptors_of, guard_of, send, workers_of
from tests.torture.records import Deed
from tests.torture.report import NOT_REACHED
from tests.torture.sut import DAY_S, Sut

CRASH_WAIT_S: Final = 6.0
"""How long a daemon that is armed with a crash point may live before it is killed all the same."""
FROZEN_S: Final = 0.8
"""How long a worker is stopped by SIGSTOP: shorter than the silence after which it is given up."""
FROZEN_DAEMON_S: Final = 1.5
SECOND_SIGTERM_S: Final = 0.1
FEW_S: Final = 1.0
FULL_S: Final = 1.0
PIECE_BYTES: Final = 4096
CLOCK_STEPPED: Final = b'"action":"clock_stepped"'
NOTICED_NS: Final = 4_000_000_000
LOOK_S: Final = 0.1
SECOND_DAEMON_S: Final = 20.0
"""A second daemon on the same directory must have given up by then."""


class Nemesis:
    """See the module. `deeds` grows as they are done."""

    def __init__(self, sut: Sut, plan: Sequence[DeedSpec]) -> None:
        self.deeds: list[Deed] = []
        self.enough = threading.Event()
        """Set by whoever wants no more deeds."""
        self.trouble: list[str] = []
        """A daemon that could not be started again: the run ends there."""
        self._sut = sut
        self._plan = plan
        self._nobody = threading.Event()
        self._clock_off_s = 0.0
        self._over = False
        self._do: dict[DeedKind, Callable[[DeedSpec], tuple[bool, str]]] = {
            "kill_daemon": self._kill_daemon,
            "kill_everything": self._kill_everything,
            "crash_point": self._crash_point,
            "kill_worker": self._kill_worker,
            "stop_worker": self._stop_worker,
            "drain": self._drain,
            "double_start": self._double_start,
            "kill_guard": self._kill_guard,
            "freeze_daemon": self._freeze_daemon,
            "drain_twice": self._drain_twice,
            "few_descriptors": self._few_descriptors,
            "step_clock": self._step_clock,
            "full_disk": self._full_disk,
        }

    def run(self) -> None:
        """All deeds; returns when the daemon is ready after the last one, or does not become ready any more.

        What lasts longer than a deed is healed at the end: the clock.
        """
        try:
            self._run()
        finally:
            self._over = True
            self._sut.set_clock(0)

    def progress(self) -> float:
        """How much of the plan is done, with the deed that is under way."""
        return 1.0 if self._over else (len(self.deeds) + 1) / (len(self._plan) + 1)

    def _run(self) -> None:
        for spec in self._plan:
            if self.enough.wait(spec.after_s):
                return
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

    def _drain_twice(self, spec: DeedSpec) -> tuple[bool, str]:
        """A second SIGTERM: it need not wait for what runs, and loses nothing all the same."""
        self._sut.terminate()
        self._nobody.wait(spec.number % 10 * SECOND_SIGTERM_S)
        again = send(self._sut.pid, signal.SIGTERM)
        status = self._sut.ended()
        self._sut.start()
        return True, f"status {status}" + ("" if again else ", before the second one")

    def _freeze_daemon(self, spec: DeedSpec) -> tuple[bool, str]:
        """It stands still, as on a machine that was suspended; nobody is to blame for what was late."""
        hit = send(self._sut.pid, signal.SIGSTOP)
        self._nobody.wait(FROZEN_DAEMON_S)
        send(self._sut.pid, signal.SIGCONT)
        return hit, f"{FROZEN_DAEMON_S:g} s"

    def _few_descriptors(self, spec: DeedSpec) -> tuple[bool, str]:
        """It cannot open anything for a while."""
        pid = self._sut.pid
        usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        few = descriptors_of(pid) + spec.number % 3
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, usual[1]))
        self._nobody.wait(FEW_S)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
        return True, f"{few} instead of {usual[0]}"

    def _step_clock(self, spec: DeedSpec) -> tuple[bool, str]:
        """A day back, and the next time forward again. Never ahead of the true one: jobs would wait for that day.

        The daemon is given the time to notice that it went back: one that dies before leaves its retries to wait for
        the old time, so a step that nobody has noticed is taken back.
        """
        back = self._clock_off_s == 0
        self._clock_off_s = -DAY_S if back else 0.0
        steps = self._sut.logged(CLOCK_STEPPED)
        self._sut.set_clock(self._clock_off_s)
        give_up_at = monotonic_ns() + NOTICED_NS
        while back and self._sut.logged(CLOCK_STEPPED) == steps:
            if monotonic_ns() > give_up_at:
                self._clock_off_s = 0.0
                self._sut.set_clock(0)
                return True, "a day back, and taken back unnoticed"
            self._nobody.wait(LOOK_S)
        return True, f"{self._clock_off_s:g} s"

    def _full_disk(self, spec: DeedSpec) -> tuple[bool, str]:
        """Nothing can be written for a while, and then again."""
        ballast = self._sut.data_dir / "ballast"
        taken = fill_up(ballast)
        self._nobody.wait(FULL_S)
        ballast.unlink()
        return taken > 0, f"{taken} bytes taken"

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
        killed = kill_everything(self._sut)
        self._sut.start()
        return True, f"{killed} processes"


def fill_up(ballast: Path) -> int:
    """Take what is left of a file system, while others write to it; how many bytes those were."""
    taken = 0
    with ballast.open("wb") as file:
        try:
            while True:
                os.posix_fallocate(file.fileno(), taken, PIECE_BYTES)
                taken += PIECE_BYTES
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return taken


def kill_everything(sut: Sut) -> int:
    """The daemon and all it has started, in one go, as by the kernel's hand: nobody is left to clean up.

    What has left its tree for a session of its own lives on; the guard is among the dead.
    """
    daemon = sut.pid
    workers = workers_of(daemon, sut.life.name)
    victims = [daemon, guard_of(daemon), *(worker.pid for worker in workers)]
    for pid in victims:
        if pid is not None:
            send(pid, signal.SIGKILL)
    sut.kill(unguarded=True)
    return len(victims)
