"""The client in JavaScript that was written from the OpenAPI document alone, against a real daemon."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.needed import program

if TYPE_CHECKING:
    from tests.integration.daemon import Daemon

ROOT = Path(__file__).parents[2]
CHECKS = Path(__file__).with_name("client_check.mjs")
TIMEOUT_S = 100


@pytest.fixture(scope="module")
def node() -> str:
    """The program; 18 or newer, as Debian has it."""
    return program("node")


def run(node: str, script: Path, daemon: Daemon, *args: str) -> str:
    """What it printed; it must end well."""
    done = subprocess.run(
        [node, script, *args],
        env={"PATH": os.environ["PATH"], "JOBSVC_URL": daemon.url, "JOBSVC_TOKEN": daemon.token},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + daemon.log[-2000:]
    return done.stdout


def test_the_client_does_what_the_document_says(node: str, daemon: Daemon) -> None:
    """Every check of the script, against node's own fetch."""
    told = run(node, CHECKS, daemon)
    wanted = re.findall(r'^  async "(.*)"\(\)', CHECKS.read_text(), re.MULTILINE)
    assert len(wanted) > 10
    assert told.splitlines() == [f"ok {name}" for name in wanted]


def test_the_client_is_a_program(node: str, daemon: Daemon) -> None:
    """Submits, shows what comes, prints the result; lists the tasks when asked for nothing."""
    script = ROOT / "examples" / "client.mjs"
    told = run(node, script, daemon, "words", '{"x": "to be"}').splitlines()
    assert told[-1] == "result: null"
    assert [line.strip() for line in told if " out " in line] == ['out 1: "to"', 'out 2: "be"']
    assert "  echo  " in run(node, script, daemon)


def test_the_client_finds_the_daemon_in_its_folder(node: str, daemon: Daemon) -> None:
    """By endpoint.json and token, as on the daemon's own machine."""
    done = subprocess.run(
        [node, ROOT / "examples" / "client.mjs"],
        env={"PATH": os.environ["PATH"], "JOBSVC_DATA_DIR": str(daemon.data_dir)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    assert "  echo  " in done.stdout
