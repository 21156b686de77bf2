"""What the tests of tasks share: a context that leads nowhere, a call as a worker makes it, a refusal by both sides."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobsvc import Context
from jobsvc.authoring.task import Task
from jobsvc.model.types import ArgsError, checker


class NoPort:
    """A way out that must not be used."""

    def item(self, stream: str, body: bytes) -> None:
        raise AssertionError

    log = progress = is_cancelled = deadline = item


CONTEXT = Context(NoPort(), job_id="j", attempt=1, epoch=1)  # type: ignore[arg-type]


def call(of: Task[..., Any], args: Any) -> Any:
    """As a worker does it."""
    positional, named = of.bind(json.dumps(args).encode())
    return of.invoke(CONTEXT, positional, named)


def refusal(of: Task[..., Any], raw: bytes) -> tuple[str, str]:
    """What the worker says; and the daemon must say the same."""
    with pytest.raises(ArgsError) as on_worker:
        of.bind(raw)
    with pytest.raises(ArgsError) as in_daemon:
        checker(of.spec().args_tree)(raw)
    assert (in_daemon.value.pointer, in_daemon.value.detail) == (
        on_worker.value.pointer,
        on_worker.value.detail,
    )
    return on_worker.value.pointer, on_worker.value.detail
