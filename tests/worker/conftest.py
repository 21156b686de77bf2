"""Real workers for the tests; each ends with its test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.worker.harness import WorkerHarness

StartWorker = Callable[..., WorkerHarness]


@pytest.fixture
def start_worker() -> Iterator[StartWorker]:
    """Starts workers: `start_worker("cpu", ("computing",))`."""
    started: list[WorkerHarness] = []

    def start(kind: str, modules: tuple[str, ...], **options: Any) -> WorkerHarness:
        started.append(WorkerHarness(kind, modules, **options))
        return started[-1]

    yield start
    for worker in started:
        worker.close()


@pytest.fixture
def cpu(start_worker: StartWorker) -> WorkerHarness:
    """A cpu worker that has sent its manifest."""
    worker = start_worker("cpu", ("computing",))
    assert worker.ready().errors == {}
    return worker


@pytest.fixture
def io(start_worker: StartWorker) -> WorkerHarness:
    """An io worker that has sent its manifest."""
    worker = start_worker("io", ("looping",))
    assert worker.ready().errors == {}
    return worker
