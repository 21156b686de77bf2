"""The random run of CI: a thousand jobs, twenty kills, every invariant. By hand it may be a hundred times as much."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.__main__ import REPORTS
from tests.torture.plan import draw
from tests.torture.report import keep
from tests.torture.run import Run
from tests.torture.sut import ROOT

SEED = 26
JOBS = 1_000
KILLS = 20


@pytest.mark.timeout(600)
def test_nothing_is_lost_and_nothing_runs_on(tmp_path: Path) -> None:
    """F05, F06, F11, F39: 20 kills of daemon and workers under 1,000 jobs break nothing, and the run is not void."""
    report = Run(draw(SEED, JOBS, KILLS), tmp_path, ROOT).carry_out()
    keep(report, REPORTS)
    assert report.verdict == "green", report.page()
    assert report.load["acknowledged"] == JOBS
    reruns = report.finding("C2").counts["reruns"] or 0
    assert report.finding("C1").counts["acknowledged"] == JOBS + reruns
    assert report.finding("C12").counts["daemon_kills"]
