"""Fixtures for tests of the contract: a daemon in memory, and a real one for each module that asks for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.http.conftest import house
from tests.integration.daemon import Daemon, WheelEnv, running

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["house"]

TASKS = """
import asyncio
from collections.abc import Iterator
from typing import Any

from jobsvc import task


@task(executor="process")
def echo(x: Any = None) -> Any:
    return x


@task(executor="process")
def words(x: Any = None) -> Iterator[str]:
    for word in str(x).split():
        yield word


@task
def fail(x: Any = None) -> None:
    raise ValueError(f"no {x}")


@task
async def wait(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "waited"
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A real daemon, from the checkout: what is tested here is what it says, not how it is packed."""
    env = WheelEnv(Path(sys.prefix), Path())
    folder = tmp_path_factory.mktemp("daemon")
    with running(Daemon(env, folder, ("--cpu-workers", "1")), TASKS) as started:
        yield started
