"""The checker is checked: every seeded bug turns its check red, and the true product is green in the same scenarios."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.torture import late_results, scenarios
from tests.torture.checks import check
from tests.torture.checks.finding import Finding
from tests.torture.mutants import MUTANTS, mutated
from tests.torture.sut import ROOT

TRUE_PRODUCT = "true-product"
AT_ONCE = len(os.sched_getaffinity(0))
"""A scenario waits half of its time: for a start, for a moment, for what must not happen."""
PATIENCE_S = 600
"""Of a test, which may wait for those before it; each moment of a scenario has a limit of its own."""

Played = Callable[[str], list[Finding]]


def _play(name: str, folder: Path) -> list[Finding]:
    if name == TRUE_PRODUCT:
        return scenarios.played(*scenarios.ACTS)(folder, ROOT)
    mutant = MUTANTS[name]
    return mutant.scenario(folder, mutated(mutant, folder))


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """What the checks said of a scenario: all that this session asks for are played side by side."""
    names: list[str] = [
        str(item.callspec.params["name"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path and "name" in item.fixturenames
    ]
    with ThreadPoolExecutor(AT_ONCE) as players:
        plays: dict[str, Future[list[Finding]]] = {
            name: players.submit(_play, name, tmp_path_factory.mktemp(name)) for name in names
        }
        yield lambda name: plays[name].result()
        players.shutdown(cancel_futures=True)


@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize("name", [TRUE_PRODUCT])
def test_true_product_is_green(played: Played, name: str) -> None:
    """F05, F63: in the very moments in which the bugs show, the product keeps its promise."""
    red = [found for found in played(name) if not found.green]
    assert not red, [(found.id, found.examples) for found in red]


@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize("name", MUTANTS)
def test_seeded_bug_turns_the_report_red(played: Played, name: str) -> None:
    """A bug that no check sees is a hole in the checker."""
    findings = played(name)
    red = {found.id for found in findings if not found.green}
    assert MUTANTS[name].red <= red, [(found.id, found.examples) for found in findings if not found.green]


def test_every_late_result_is_refused(tmp_path: Path) -> None:
    """A thousand results of older epochs and a thousand of another owner: each is refused by the store, and every
    check is green.
    """  # fmt: skip
    played = late_results.run(tmp_path, ROOT, late_results.JOBS)
    assert sum(job.refused for job in played) == 2 * late_results.JOBS
    red = [found for found in check(late_results.evidence(played)) if not found.green]
    assert not red, [(found.id, found.examples) for found in red]
