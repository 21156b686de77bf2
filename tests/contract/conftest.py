"""The stores that have to keep the contract, each under the same tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.python.failure import Failure

from jobsvc.store.face import StoreFace
from jobsvc.store.memory import InlineStore
from jobsvc.store.threaded import ThreadedStore
from tests.contract.store_harness import Held, PumpedReactor


@pytest.fixture(params=["inline", "threaded"])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Held]:
    """An open store, closed afterwards; a write that fails for good fails the test."""
    fatal: list[Failure] = []
    reactor = PumpedReactor()
    store: StoreFace
    if request.param == "inline":
        store = InlineStore()
    else:
        store = ThreadedStore(str(tmp_path / "jobs.db"), "process", reactor.provided, fatal.append)
    held = Held(store, reactor)
    held(store.open())
    yield held
    held(store.close())
    assert not fatal
