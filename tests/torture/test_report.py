"""The verdict of a run, its exit status, and what is kept of it; and the plan that a seed draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from tests.torture.checks import check
from tests.torture.checks.finding import Finding
from tests.torture.evidence import Evidence
from tests.torture.plan import DeedKind, DeedSpec, Plan, draw
from tests.torture.records import Deed
from tests.torture.report import GREEN, KEPT, VIOLATED, VOID, Report, keep, report_of
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
    assert (len(plan.jobs), plan.planned_kills) == (MANY, 50)
    assert len({job.mark for job in plan.jobs}) == MANY
    assert {deed.kind for deed in plan.deeds} == set(get_args(DeedKind)) - {"full_disk"}
    assert {deed.kind for deed in draw(3, MANY, 50, small_disk=True).deeds} == set(get_args(DeedKind))
    tasks = {job.task for job in plan.jobs}
    assert tasks == {
        "on_process", "on_thread", "on_loop", "program", "once", "flaky", "leaver", "deaf", "deaf_thread", "crash",
        "flood", "hog", "secretive",
    }  # fmt: skip
    assert {job.upload for job in plan.jobs} == {None, "bulk", "atomic"}
    assert {job.cancel for job in plan.jobs} == {None, "polite", "deadline", "now"}
