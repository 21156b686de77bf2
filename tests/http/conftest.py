"""Fixtures of the HTTP tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.http.house import House


@pytest.fixture
def house() -> Iterator[House]:
    """A daemon in memory."""
    built = House()
    yield built
    built.close()
