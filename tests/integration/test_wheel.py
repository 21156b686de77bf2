"""The built wheel: what is inside, what is not, and what an empty environment has after installing it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import ROOT
from tests.integration.daemon import WheelEnv, clean_environ

if TYPE_CHECKING:
    from pathlib import Path


LEFTOVERS = ("__pycache__", ".")
"""How the names begin that tools leave in a source folder."""


@pytest.fixture(scope="module")
def names(wheel_file: Path) -> set[str]:
    """The paths inside the wheel."""
    with zipfile.ZipFile(wheel_file) as archive:
        return set(archive.namelist())


def test_plugin_is_inside_and_nothing_that_shadows_twisted(names: set[str]) -> None:
    """Of twisted/ the wheel holds our plugin alone: no __init__.py, no cache."""
    assert {name for name in names if name.startswith("twisted/")} == {"twisted/plugins/jobsvc_plugin.py"}


def test_package_is_whole_and_nothing_else_is_inside(names: set[str]) -> None:
    """Every file of jobsvc/ that is not a leftover, py.typed among them; no tests, no tools."""
    source = ROOT / "jobsvc"
    files = {
        str(path.relative_to(ROOT))
        for path in source.rglob("*")
        if path.is_file() and not any(part.startswith(LEFTOVERS) for part in path.relative_to(source).parts)
    }
    assert "jobsvc/py.typed" in files
    assert {name for name in names if name.startswith("jobsvc/")} == files
    roots = {name.split("/")[0] for name in names}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"jobsvc", "twisted"}


def test_metadata_asks_for_all_it_needs(wheel_env: WheelEnv) -> None:
    """`pip check` finds no missing and no clashing dependency in the environment made from the wheel."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", wheel_env.program("python"), "check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("launcher", ["twistd", "twist"])
def test_launchers_offer_jobsvc(wheel_env: WheelEnv, launcher: str, tmp_path: Path) -> None:
    """Both launchers list the command in an environment that holds only the wheel."""
    done = subprocess.run(
        [wheel_env.program(launcher), "--help"],
        cwd=tmp_path,
        env=clean_environ(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines() if "job daemon" in line.lower()] == [
        "jobsvc"
    ]


def test_command_says_its_version(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """`jobsvc --version` runs in that environment, from any folder."""
    done = subprocess.run(
        [wheel_env.program("jobsvc"), "--version"],
        cwd=tmp_path,
        env=clean_environ(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    version = wheel_env.wheel.name.split("-")[1]
    assert (done.returncode, done.stderr) == (0, "")
    assert version in done.stdout
