"""`Retry` and `Snooze`: what they take, what they refuse, how they read; and which errors are worth another try."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobsvc
from jobsvc import Context, Retry, Snooze, command, task
from jobsvc.authoring.again import declare_worth
from jobsvc.authoring.task import Task
from jobsvc.model.limits import DURATION_MAX_S
from jobsvc.testing import run

YEAR_S = DURATION_MAX_S


@given(st.floats(0, YEAR_S))
def test_seconds_and_timedeltas_are_the_same(seconds: float) -> None:
    assert Retry(seconds).after_s == Snooze(seconds).after_s == seconds
    span = timedelta(seconds=int(seconds))
    assert Retry(after=span).after_s == Snooze(until=span).after_s == int(seconds)


def test_a_retry_may_leave_the_moment_to_the_policy() -> None:
    assert (Retry().after_s, Retry(0).after_s) == (None, 0)


def test_a_snooze_until_a_moment_keeps_it_exactly() -> None:
    """In whatever zone; one that has passed is no error, as it may have been ahead a moment ago."""
    for moment in (
        datetime(2020, 1, 1, tzinfo=UTC),
        datetime.now(timezone(timedelta(hours=-9))) + timedelta(days=300, microseconds=1),
    ):
        assert (Snooze(moment).at, Snooze(moment).after_s) == (moment, None)


@pytest.mark.parametrize("value", ["5", b"5", True, Decimal(5), date(2026, 1, 1), [5], object()])
def test_values_of_a_wrong_type_are_refused_where_they_are_written(value: Any) -> None:
    with pytest.raises(TypeError, match="Retry: after must be a number of seconds or a timedelta, not "):
        Retry(value)
    with pytest.raises(
        TypeError, match="Snooze: until must be an aware datetime, a number of seconds or a timedelta"
    ):
        Snooze(value)


@pytest.mark.parametrize("value", [-0.001, -1, inf, nan, YEAR_S + 1, timedelta(-1), timedelta.max])
def test_values_out_of_range_are_refused(value: Any) -> None:
    """More than a year is a typing error in milliseconds."""
    for refuses, name in ((Retry, "Retry: after"), (Snooze, "Snooze: until")):
        with pytest.raises(ValueError, match=f"{name} must be from 0 up to 31622400 seconds, not "):
            refuses(value)


def test_a_snooze_needs_a_moment_that_is_one_everywhere() -> None:
    with pytest.raises(
        ValueError, match=r"until is 2030-01-01T00:00:00 without a time zone: .* datetime.now\(UTC\)"
    ):
        Snooze(datetime(2030, 1, 1))  # noqa: DTZ001 - the mistake
    with pytest.raises(ValueError, match="until must be at most 31622400 seconds ahead"):
        Snooze(datetime.now(UTC) + timedelta(days=400))
    with pytest.raises(ValueError, match="at most"):
        Snooze(datetime.max.replace(tzinfo=UTC))
    with pytest.raises(TypeError, match="until"):
        Snooze()  # type: ignore[call-arg]


def on_fire() -> None:
    raise OSError("disk on fire")


def test_the_words_of_a_retry_are_its_own_or_those_of_what_led_to_it() -> None:
    @task
    def told(how: str) -> None:
        try:
            on_fire()
        except OSError as error:
            if how == "own":
                raise Retry(5, "busy") from error
            if how == "led":
                raise Retry(5)  # noqa: B904 - people forget it
            if how == "cause":
                raise Retry(5) from KeyError("x")
            raise Retry from None

    said = {how: str(run(told, how).again) for how in ("own", "led", "cause", "none")}
    assert said == {
        "own": "busy",
        "led": "OSError: disk on fire",
        "cause": "KeyError: 'x'",
        "none": "to be tried again",
    }
    assert str(Retry()) == "to be tried again"
    with pytest.raises(TypeError, match="message must be a str"):
        Retry(1, 2)  # type: ignore[arg-type]


def test_they_read_well_and_survive_a_pool_of_processes() -> None:
    """The author's own multiprocessing takes them apart and makes them again, as a copy does."""
    moment = datetime(2026, 11, 26, 12, tzinfo=UTC)
    assert str(Snooze(90)) == "snoozed for 90 s"
    assert str(Snooze(moment)) == "snoozed until 2026-11-26T12:00:00+00:00"
    assert repr(Retry) == "<class 'jobsvc.Retry'>"
    assert copy.copy(Snooze(until=moment)).at == moment
    again = copy.copy(Retry(after=3, message="busy"))
    assert (again.after_s, str(again)) == (3, "busy")


def test_they_are_public_names() -> None:
    assert {"Retry", "Snooze"} <= set(jobsvc.__all__)


# -- errors worth another try ----------------------------------------------------------------------------------------


class Busy(OSError):
    """One of the author's own."""


def worth(retry_on: Any = None, give_up_on: Any = ()) -> set[str]:
    rule = declare_worth(retry_on, give_up_on)
    tried = (OSError(), Busy(), ConnectionError(), ValueError(), KeyError())
    return {type(error).__name__ for error in tried if rule.allows(error)}


def test_by_class_as_except_does() -> None:
    """Subclasses are included; `give_up_on` goes first; a single class needs no tuple."""
    everything = {"OSError", "Busy", "ConnectionError", "ValueError", "KeyError"}
    assert worth() == everything
    assert worth(retry_on=OSError) == worth(retry_on=(OSError,)) == {"OSError", "Busy", "ConnectionError"}
    assert worth(retry_on=[Busy, KeyError]) == {"Busy", "KeyError"}
    assert worth(retry_on=OSError, give_up_on=Busy) == {"OSError", "ConnectionError"}
    assert worth(give_up_on=(OSError, LookupError)) == {"ValueError"}
    assert worth(retry_on=()) == set()


@pytest.mark.parametrize("name", ["retry_on", "give_up_on"])
@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ("OSError", "must be a class of exceptions or several"),
        (7, "must be a class of exceptions or several"),
        ({OSError}, "must be a class of exceptions or several"),
        (OSError(), "must be a class of exceptions or several"),
        (int, "must hold subclasses of Exception, not <class 'int'>"),
        ((OSError, "ValueError"), "must hold subclasses of Exception, not 'ValueError'"),
        ((OSError, ValueError()), "must hold subclasses of Exception, not ValueError"),
        (BaseException, "must hold subclasses of Exception, not <class 'BaseException'>"),
        ((KeyboardInterrupt,), "must hold subclasses of Exception"),
    ],
)
def test_what_is_no_class_of_exceptions_is_refused(name: str, given_: Any, says: str) -> None:
    options: Any = {name: given_}
    with pytest.raises(TypeError, match=f"task 'one': {name} {says}"):

        @task(**options)
        def one() -> None: ...


def test_a_class_that_could_never_be_tried_again_is_refused() -> None:
    says = "task 'one': retry_on: Busy is never tried again, because give_up_on has OSError and goes first"
    with pytest.raises(ValueError, match=says):

        @task(retry_on=(ValueError, Busy), give_up_on=OSError)
        def one() -> None: ...


def test_exit_codes_worth_another_try_reach_the_daemon() -> None:
    def codes(**options: Any) -> tuple[int, ...] | None:
        spec = command("c", ["c"], **options).spec().command
        assert spec is not None
        return spec.retry_codes

    assert codes() is None
    assert codes(retry_codes=[75, 69]) == (75, 69)
    assert codes(retry_codes=()) == ()


@pytest.mark.parametrize(
    ("codes", "kind", "says"),
    [
        (75, TypeError, "retry_codes must be a sequence of integers, not 75"),
        ("75", TypeError, "retry_codes must be a sequence of integers"),
        ([True], TypeError, "retry_codes must hold integers, not True"),
        ([256], ValueError, "retry_codes must be from 0 to 255, not 256"),
        ([75, 3], ValueError, "retry_codes holds 3, which by ok_codes is no error"),
    ],
)
def test_wrong_exit_codes_are_refused(codes: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=f"command 'c': {says}"):
        command("c", ["c"], ok_codes=(0, 3), retry_codes=codes)


# -- in the authors' harness -----------------------------------------------------------------------------------------


@task
def by_function(error: bool) -> None:
    raise Retry(3) if error else Snooze(4)


@task(executor="process")
def by_generator(error: bool) -> Iterator[int]:
    yield 1
    raise Retry(3) if error else Snooze(4)


@task
async def by_coroutine(error: bool) -> None:
    raise Retry(3) if error else Snooze(4)


@task
async def by_async_generator(error: bool) -> AsyncIterator[int]:
    yield 1
    raise Retry(3) if error else Snooze(4)


@pytest.mark.parametrize("each", [by_function, by_generator, by_coroutine, by_async_generator])
def test_a_unit_test_sees_what_was_asked_for(each: Task[..., Any]) -> None:
    """And the items that came before."""
    retry, snooze = run(each, True), run(each, False)
    assert isinstance(retry.again, Retry)
    assert isinstance(snooze.again, Snooze)
    assert (retry.again.after_s, snooze.again.after_s) == (3, 4)
    assert retry.items == snooze.items == ([1] if each.streams else [])
    assert not retry.cancelled


def test_a_unit_test_that_cancels_sees_the_cancel() -> None:
    @task
    def polite(ctx: Context) -> None:
        if ctx.cancelled:
            raise Snooze(60)

    done = run(polite, cancel_after_items=0)
    assert (done.cancelled, done.again) == (True, None)
    assert run(polite).again is None
