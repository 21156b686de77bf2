"""How exceptions become errors of a job."""

from __future__ import annotations

import errno
import weakref
from typing import TypeVar

import pytest

from jobsvc.model.limits import MESSAGE_MAX_CHARS, TRACEBACK_MAX_CHARS
from jobsvc.worker.blame import exit_status, task_error

E = TypeVar("E", bound=Exception)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raised(error: E) -> E:
    """The same with a traceback."""
    try:
        raise error  # noqa: TRY301 - to give it a traceback
    except Exception:  # noqa: BLE001 - and to give it back
        return error


def test_type_and_message() -> None:
    """Builtins without their module, others with it; lone surrogates made printable."""
    error = task_error(raised(ValueError("bad \udc80")))
    assert (error.kind, error.type, error.message) == ("task_error", "ValueError", "bad \\udc80")
    assert task_error(raised(Unprintable())).type == f"{__name__}.Unprintable"


def test_exception_that_cannot_be_printed() -> None:
    """Its type is told all the same."""
    assert "Unprintable" in task_error(raised(Unprintable())).message


def test_long_texts_are_cut() -> None:
    """The message at its start, the traceback at its end."""
    error = task_error(raised(ValueError("m" * 100_000 + "END")))
    assert error.message == "m" * MESSAGE_MAX_CHARS
    assert error.traceback is not None
    assert len(error.traceback) == TRACEBACK_MAX_CHARS
    assert error.traceback.endswith("END\n")


def test_groups_are_shown_with_their_parts() -> None:
    """What a TaskGroup raises shows each of its errors."""
    group = ExceptionGroup("two", [raised(KeyError("a")), raised(ValueError("b"))])
    text = task_error(raised(group)).traceback
    assert text is not None
    assert "KeyError: 'a'" in text
    assert "ValueError: b" in text


def test_exit_counts_as_a_crash() -> None:
    """With the status that Python would end with."""
    assert [exit_status(SystemExit(code)) for code in (None, 0, 3, 256 + 7, "words")] == [0, 0, 3, 7, 1]
    error = task_error(SystemExit("words"))
    assert error.exit is not None
    assert (error.kind, error.exit.code) == ("crashed", 1)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "no descriptor")])
def test_what_a_job_holds_is_let_go_before_its_error_is_told(error: Exception) -> None:
    """To tell that memory or descriptors are used up takes some of either."""

    class Held:
        pass

    left: list[weakref.ref[Held]] = []

    def use_up() -> None:
        held = Held()
        left.append(weakref.ref(held))
        raise error

    try:
        use_up()
    except Exception as caught:  # noqa: BLE001 - any of them
        told = task_error(caught)
        assert left[0]() is None
        assert told.traceback is not None
        assert "in use_up" in told.traceback
