"""One random run: a daemon, its clients and its nemesis, by a plan; then the checks and the report."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any, Final

from tests.torture.checks import check
from tests.torture.clients import Crowd
from tests.torture.gather import gather, quiet
from tests.torture.nemesis import Nemesis
from tests.torture.plan import KILLS, Plan
from tests.torture.progress import clock
from tests.torture.records import History
from tests.torture.report import Report, report_of
from tests.torture.sut import Sut

CLIENTS: Final = 8
CPU_WORKERS: Final = 3
DRAIN_S: Final = 5
DEEDS: Final = "deeds"
LOAD_WAIT_S: Final = 60.0
"""After the last deed: until the last job has been acknowledged, beyond the time planned for it."""
QUIET_S: Final = 120.0
QUIET_PER_JOB_S: Final = 0.02
"""After the last submit: until no job is left to do; the longer, the more can have piled up."""


class Run:
    """See the module.

    Args:
        folder: an empty folder for data, history and effects.
        source: the checkout, or a copy of it, whose `jobsvc` is to be tortured.
    """

    def __init__(self, plan: Plan, folder: Path, source: Path, clients: int = CLIENTS) -> None:
        self._plan = plan
        self._began = monotonic()
        self._phase = DEEDS
        self.broken_off = self._impatient = False
        self._nemesis: Nemesis | None = None
        self._crowd: Crowd | None = None
        self._clients = clients
        self._history_file = folder / "history"
        self._history = History(self._history_file)
        options = ("--cpu-workers", str(CPU_WORKERS), "--drain-s", str(DRAIN_S))
        self._sut = Sut(folder, source, options)
        self._settings: dict[str, Any] = {
            "clients": clients, "cpu_workers": CPU_WORKERS, "drain_s": DRAIN_S, "durability": "power",
        }  # fmt: skip

    def break_off(self) -> None:
        """No more deeds and submits; what was done is looked at and reported, as a run that is void."""
        self.broken_off = True
        self._impatient = self._phase != DEEDS  # whoever asks while all is waited for does not want to wait
        if self._nemesis is not None and self._crowd is not None:
            self._nemesis.enough.set()
            self._crowd.enough()

    def words(self) -> str:
        """How far it is."""
        if self._nemesis is None or self._crowd is None:
            return "it starts"
        plan, deeds = self._plan, self._nemesis.deeds
        kills = sum(deed.hit and deed.kind in KILLS for deed in deeds)
        said = (
            f"{self._phase}: {len(deeds)} of {len(plan.deeds)} deeds, {kills} kills, {len(self._sut.lives)} starts,"
            f" {self._crowd.acknowledged_jobs} of {len(plan.jobs)} jobs acknowledged"
        )
        if deeds and self._phase == DEEDS:
            left_s = (monotonic() - self._began) / len(deeds) * (len(plan.deeds) - len(deeds))
            said += f", about {clock(left_s)} of deeds left"
        return said

    def carry_out(self) -> Report:
        """Do it all. Whatever happens, no process is left."""
        try:
            return self._carry_out()
        finally:
            self._sut.close()

    def _carry_out(self) -> Report:
        plan, sut = self._plan, self._sut
        began = monotonic()
        if not sut.start():
            raise RuntimeError(f"the daemon does not start: {sut.log_tail()}")
        nemesis = self._nemesis = Nemesis(sut, plan.deeds)
        crowd = self._crowd = Crowd(
            sut, self._history, plan.jobs, self._clients, plan.load_s, plan.seed, nemesis.progress
        )
        crowd.start()
        if self.broken_off:
            self.break_off()
        nemesis.run()
        trouble = list(nemesis.trouble)
        if trouble:
            sut.start()  # for the readings; that it had to be tried again is on record
        deeds_done = monotonic()
        self._phase = "until all is quiet"
        if not crowd.submitted.wait(plan.load_s + LOAD_WAIT_S):
            trouble.append("not all jobs could be submitted in time")
        most_s = QUIET_S + QUIET_PER_JOB_S * len(plan.jobs)
        is_quiet = quiet(sut, self._history, most_s, lambda: crowd.left, lambda: self._impatient)
        if self.broken_off:
            trouble.append(f"broken off by hand in the {len(nemesis.deeds) + 1}th of {len(plan.deeds)} deeds")
        crowd.stop()
        trouble += crowd.trouble
        quiet_at = monotonic()
        self._phase = "reading and checking"
        evidence = gather(sut, self._history_file, self._history, plan.jobs, nemesis.deeds)
        gathered = monotonic()
        findings = check(evidence)
        seconds = {
            "deeds": deeds_done - began,
            "until_quiet": quiet_at - deeds_done,
            "gather": gathered - quiet_at,
            "checks": monotonic() - gathered,
        }
        settings = self._settings | {"quiet": is_quiet}
        return report_of(plan, evidence, findings, trouble, settings, seconds)
