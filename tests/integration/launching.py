"""What the tests of starts share: a small task module, and the two launchers."""

from __future__ import annotations

import pytest

TASKS = """
from pathlib import Path
from jobsvc import Context, task

@task
def greet(name: str = "you") -> str:
    return f"hello {name}"

@task(executor="process")
def square(n: int) -> int:
    return n * n

@task
async def soon() -> str:
    return "now"
"""
TWISTD = ("twistd", "-n", "--pidfile=")
TWIST = ("twist",)
BOTH = pytest.mark.parametrize("launcher", [TWISTD, TWIST], ids=["twistd", "twist"])
