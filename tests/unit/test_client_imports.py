"""What an import of the client brings along: programs pay for the face they use."""

from __future__ import annotations

import subprocess
import sys

import pytest

import jobsvc.client

HELP = """
from jobsvc.cli.root import run
sys.stdout = sys.stderr
assert run(["--help"]) == 0
sys.stdout = sys.__stdout__
"""


def loaded(code: str) -> set[str]:
    """Top-level names of the modules that are there after `code` ran in an interpreter of its own."""
    script = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("from jobsvc.client import Client, JobFailed", {"twisted", "treq", "rich", "click"}),
        ("from jobsvc.client import AsyncClient, JobExecutor", {"twisted", "treq", "rich", "click"}),
        ("from jobsvc.client import TwistedClient", {"httpx2", "rich", "click"}),
        ("from jobsvc.client import JobFailed, Job", {"twisted", "httpx2", "treq"}),
        (HELP, {"twisted", "httpx2", "rich", "asyncio", "ssl"}),
    ],
)
def test_imports_stay_light(code: str, absent: set[str]) -> None:
    """No Twisted for blocking programs, no httpx2 for Twisted ones, neither for `jobsvc --help`."""
    assert not loaded(code) & absent


def test_every_public_name_is_there() -> None:
    """What the package promises can be imported from it."""
    for name in jobsvc.client.__all__:
        assert getattr(jobsvc.client, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = jobsvc.client.nonsense
