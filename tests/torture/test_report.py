"""The verdict of a run, its exit status, and what is kept of it; and the plan that a seed draws."""

from __future__ import annotations

import signal
from io import StringIO
from pathlib import Path
from threading import Event
from typing import Any, get_args

import pytest

from tests.torture.__main__ import ended_early
from tests.torture.checks import check
from tests.torture.checks.finding import Finding
from tests.torture.evidence import Evidence
from tests.torture.plan import DeedKind, DeedSpec, Plan, draw
from tests.torture.progress import Progress, estimate
from tests.torture.records import Deed
from tests.torture.report import GREEN, KEPT, VIOLATED, VOID, Report, keep, report_of
from tests.torture.run import Run
from tests.torture.sut import ROOT
from tests.torture.test_checks import good

MANY = 1_500


def judged(evidence: Evidence, findings: list[Finding] | None = None, trouble: Any = ()) -> Report:
    """The report of a run of one job and one kill."""
    plan = Plan(7, (evidence.specs["a"],), (DeedSpec("kill_daemon", 1.0),))
    return report_of(plan, evidence, findings or check(evidence), list(trouble), {}, {})


def test_green_run() -> None:
    """All holds and all that was planned was done: 0."""
    assert (judged(good()).verdict, judged(good()).status) == ("green", GREEN)


def test_broken_invariant() -> None:
    """One is enough: 1, whatever else may be said of the run; the page shows the example."""
    broken = Finding("C1", "kept")
    broken.breaks(job="job-a", what="gone")
    report = judged(good(), [broken], ["something else"])
    assert report.status == VIOLATED
    assert "**broken 1 times**" in report.page()
    assert '"what":"gone"' in report.page()


@pytest.mark.parametrize("case", ["no kill", "no load", "no effects", "nemesis failed", "client failed"])
def test_run_that_tested_too_little_is_void(case: str) -> None:
    """It is not green: 2, and it says why."""
    evidence = good()
    findings = check(evidence)
    if case == "no kill":
        evidence.deeds.clear()
    elif case == "no load":
        del evidence.ops[1]
    elif case == "no effects":
        evidence.effects.clear()
    elif case == "nemesis failed":
        evidence.deeds.append(Deed("double_start", 1, 2, hit=False, detail="the second daemon runs on"))
    report = judged(evidence, findings, ["client 3: gone"] if case == "client failed" else [])
    assert (report.verdict, report.status, len(report.void)) == ("void", VOID, 1)
    assert f"- void: {report.void[0]}" in report.page()


def test_the_last_reports_are_kept(tmp_path: Path) -> None:
    """Fifty, each as JSON and as a page."""
    report = judged(good())
    for seed in range(KEPT + 5):
        report.seed = seed
        assert keep(report, tmp_path).read_text().startswith(f"# Torture run, seed {seed}: green")
    assert len(list(tmp_path.glob("*.json"))) == len(list(tmp_path.glob("*.md"))) == KEPT


def test_a_seed_draws_one_plan() -> None:
    """The same jobs and deeds for the same seed, others for another; as many kills as asked for."""
    assert draw(1, MANY, 50) == draw(1, MANY, 50)
    assert draw(1, MANY, 50).deeds != draw(2, MANY, 50).deeds
    plan = draw(3, MANY, 50)
    more: list[DeedKind] = ["full_disk", "few_descriptors"]
    assert (len(plan.jobs), plan.planned_kills) == (MANY, 50)
    assert len({job.mark for job in plan.jobs}) == MANY
    assert {deed.kind for deed in plan.deeds} == set(get_args(DeedKind)) - set(more)
    assert {deed.kind for deed in draw(3, MANY, 50, more).deeds} == set(get_args(DeedKind))
    tasks = {job.task for job in plan.jobs}
    assert tasks == {
        "on_process", "on_thread", "on_loop", "program", "once", "flaky", "leaver", "deaf", "deaf_thread", "crash",
        "flood", "hog", "secretive",
    }  # fmt: skip
    assert {job.upload for job in plan.jobs} == {None, "bulk", "atomic"}
    assert {job.cancel for job in plan.jobs} == {None, "polite", "deadline", "now"}


def test_what_a_run_takes_is_said_before_it_begins() -> None:
    """Of a night: hours, disk, memory; and its seed."""
    words = estimate(draw(7, 10_000, 3_000))
    assert "seed 7: 10000 jobs, 4500 deeds, 3000 of them kills; about 2:46:40" in words
    assert "MiB of disk" in words


def test_progress_is_told_every_so_often() -> None:
    """With the time that has passed, until the run is over."""
    out, told = StringIO(), Event()

    def words() -> str:
        told.set()
        return "3 of 20 deeds"

    with Progress(words, out, every_s=0.001):
        assert told.wait(60)
    assert out.getvalue().startswith("0:00:00 3 of 20 deeds\n")


def test_asked_to_end_early_it_ends_early(tmp_path: Path) -> None:
    """The first Ctrl-C is handed on to the run, the second is one as usual; afterwards both mean what they meant."""
    run = Run(draw(7, 1, 1), tmp_path, ROOT)
    before = signal.getsignal(signal.SIGINT)
    with ended_early(run):
        signal.raise_signal(signal.SIGINT)
        assert run.broken_off
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
