"""The checker is checked: every seeded bug turns its check red, and the true product is green in the same scenarios."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture import late_results
from tests.torture.mutants import MUTANTS, Scenario, mutated
from tests.torture.sut import ROOT

SCENARIOS = {mutant.scenario.__name__: mutant.scenario for mutant in MUTANTS.values()}
del SCENARIOS["forgotten_while_running"]  # the same as killed_while_running, with less patience


@pytest.mark.parametrize("name", MUTANTS)
def test_seeded_bug_turns_the_report_red(tmp_path: Path, name: str) -> None:
    """A bug that no check sees is a hole in the checker."""
    mutant = MUTANTS[name]
    findings = mutant.scenario(tmp_path, mutated(mutant, tmp_path))
    red = {found.id for found in findings if not found.green}
    assert mutant.red <= red, [(found.id, found.examples) for found in findings if not found.green]


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_true_product_is_green(tmp_path: Path, scenario: Scenario) -> None:
    """F05, F63: in the very moments in which the bugs show, the product keeps its promise."""
    red = [found for found in scenario(tmp_path, ROOT) if not found.green]
    assert not red, [(found.id, found.examples) for found in red]


def test_every_late_result_is_refused(tmp_path: Path) -> None:
    """A thousand results of older epochs and a thousand of another owner: each is refused by the store."""
    assert late_results.refused(tmp_path, ROOT, late_results.JOBS) == 2 * late_results.JOBS
