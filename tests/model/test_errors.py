"""Errors as values: refusals with a code, and what ended a job."""

from __future__ import annotations

import msgspec

from jobsvc.model.errors import CODES, KINDS, Exit, JobError, JobsvcError, Where, invalid_args, invalid_field
from jobsvc.model.states import REASONS


def test_the_lists_are_closed_and_without_doubles() -> None:
    for names in (CODES, KINDS, REASONS):
        assert len(set(names)) == len(names)
        assert all(name == name.lower() and " " not in name for name in names)
    assert len(KINDS) == 13


def test_a_refusal_carries_what_the_edge_shows() -> None:
    error = JobsvcError("draining", "The daemon is stopping.", retry_after_s=5)
    assert (error.code, error.detail, str(error), error.context) == (
        "draining", "The daemon is stopping.", "The daemon is stopping.", {"retry_after_s": 5},
    )  # fmt: skip


def test_refusals_of_a_field_name_it() -> None:
    field, args = invalid_field("/labels/x", "too long"), invalid_args("/args/n", "not an int")
    assert (field.code, args.code) == ("invalid_field", "invalid_args")
    assert field.context == {"errors": [{"pointer": "/labels/x", "detail": "too long"}]}
    assert args.detail == "/args/n: not an int"


def test_an_error_is_stored_with_every_field_and_read_back() -> None:
    error = JobError("crashed", message="gone", exit=Exit(code=3), where=Where("process", "w1", 2, 3))
    text = msgspec.json.encode(error)
    assert msgspec.json.decode(text) == {
        "kind": "crashed", "type": None, "message": "gone", "retryable": False, "traceback": None, "exit": {"code": 3},
        "where": {"executor": "process", "worker": "w1", "attempt": 2, "epoch": 3},
    }  # fmt: skip
    assert msgspec.json.decode(text, type=JobError) == error


def test_errors_do_not_share_their_place() -> None:
    first, second = JobError("lost"), JobError("lost")
    first.where.worker = "w1"
    assert second.where == Where()
