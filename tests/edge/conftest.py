"""Fixtures of the edge on real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import pytest_twisted

if TYPE_CHECKING:
    from tests.edge.talk import Front
    from tests.http.house import House


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """One server for all tests of a module: each of them must leave it as good as it was."""
    # Imported late: Klein brings a reactor, and this file is read before the one asked for is installed.
    from twisted.internet.defer import Deferred

    from tests.edge.talk import Front

    built = Front(tmp_path_factory.mktemp("edge"))
    yield built
    pytest_twisted.blockon(Deferred.fromCoroutine(built.close()))


@pytest.fixture
def house() -> Iterator[House]:
    """A daemon in memory."""
    from tests.http.house import House

    built = House()
    yield built
    built.close()
