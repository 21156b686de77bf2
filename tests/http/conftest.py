"""Fixtures of the HTTP tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.http.house import House


@pytest.fixture
def house() -> Iterator[House]:
    """A daemon in memory."""
    # Imported late: Klein brings a reactor, and this file is read before the one asked for is installed.
    from tests.http.house import House

    built = House()
    yield built
    built.close()
