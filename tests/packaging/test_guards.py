"""The suite's own guards: a test that hides a failure or leaves a timer does fail."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parents[1] / "conftest.py"


def run(pytester: pytest.Pytester, test: str) -> pytest.RunResult:
    """Run one test text under our conftest, in a process of its own: a reactor is global."""
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makepyfile(test)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider")


def test_lost_error_of_a_deferred_fails_its_test(pytester: pytest.Pytester) -> None:
    """A Deferred whose error nobody handles is reported, even inside a reference cycle."""
    result = run(
        pytester,
        """
        from twisted.internet.defer import Deferred

        def test_loses_an_error():
            d = Deferred()
            d.myself = d
            d.errback(ValueError("unseen"))

        def test_is_innocent():
            pass
        """,
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_loses_an_error*", "*ValueError: unseen*"])


def test_flushed_failures_are_forgiven_by_type(pytester: pytest.Pytester) -> None:
    """Only what a test takes is forgiven: another type still fails it."""
    result = run(
        pytester,
        """
        from twisted.logger import Logger

        def boom(error):
            try:
                raise error
            except Exception:
                Logger("x").failure("seen")

        def test_takes_it(flush_failures):
            boom(ValueError("expected"))
            assert [str(f.value) for f in flush_failures(ValueError)] == ["expected"]

        def test_takes_another(flush_failures):
            boom(KeyError("other"))
            assert flush_failures(ValueError) == []
        """,
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_takes_another*", "*KeyError: 'other'*"])


def test_timer_left_behind_fails_its_test_and_is_cancelled(pytester: pytest.Pytester) -> None:
    """A timer of the global reactor does not reach the next test."""
    result = run(
        pytester,
        """
        def test_leaves_a_timer():
            from twisted.internet import reactor
            reactor.callLater(3600, print, "late")

        def test_starts_clean():
            from twisted.internet import reactor
            assert reactor.getDelayedCalls() == []
        """,
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_leaves_a_timer*", "*timer left behind: *print*"])
