"""An engine for each test; nothing of it may be left when the test ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.fakes import PumpedStore, Rig


@pytest.fixture
def rig() -> Iterator[Rig]:
    """An engine whose store answers at once."""
    made = Rig()
    yield made
    made.close()
    assert made.clock.getDelayedCalls() == []


@pytest.fixture
def slow() -> Iterator[tuple[Rig, PumpedStore]]:
    """An engine whose store answers when the test pumps."""
    store = PumpedStore()
    made = Rig(store)
    store.settle_down()
    yield made, store
    store.release()
    made.close()
    assert made.clock.getDelayedCalls() == []
