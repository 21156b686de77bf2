"""Fixtures for tests against the built wheel and a real daemon."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.integration.daemon import Daemon, WheelEnv, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]


class StartDaemon(Protocol):
    """Start a daemon with the text of a task module; stopped after the test.

    Positional ``options`` follow ``jobsvc`` on the command line; keywords are fields of ``Daemon``.
    """

    def __call__(self, tasks: str, *options: str, **fields: Any) -> Daemon: ...


def pip(*args: str) -> None:
    """Run the pip of the environment that runs the tests; its output is shown only if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *args],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder for all processes of one test run: the first that asks has it made, the others wait for it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # each of these processes has a folder of its own in that of the run
    folder = base / name
    with (base / f"{name}.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        if not lock.read():
            make(folder)
            lock.write("made")
    return folder


@pytest.fixture(scope="session")
def wheel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout as a release would be."""

    def build(folder: Path) -> None:
        pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), ".")

    (wheel,) = made_once(tmp_path_factory, "wheel", build).glob("jobsvc-*.whl")
    return wheel


@pytest.fixture(scope="session")
def wheel_env(wheel_file: Path, tmp_path_factory: pytest.TempPathFactory) -> WheelEnv:
    """An empty virtual environment in which only the wheel was asked for.

    pip brings the dependencies (from its cache, about 8 s). Borrowing the test environment's packages by a
    .pth file would take no time, but would hide a dependency that our metadata forgot.
    """

    def install(prefix: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(prefix)], check=True)
        python = str(prefix / "bin" / "python")
        pins = str(ROOT / "requirements" / "runtime.txt")
        # Not compiled: each module is when it is first used, and most never are.
        pip("--python", python, "install", "--quiet", "--no-compile", "-c", pins, str(wheel_file))

    return WheelEnv(made_once(tmp_path_factory, "env", install), wheel_file)


@pytest.fixture
def start_daemon(wheel_env: WheelEnv, tmp_path: Path) -> Iterator[StartDaemon]:
    """Start daemons for one test, each in a folder of its own.

    For one daemon shared by a module's tests, write a module fixture with ``running(Daemon(...), tasks)``.
    """
    with ExitStack() as stack:
        started = 0

        def start(tasks: str, *options: str, **fields: Any) -> Daemon:
            nonlocal started
            folder = tmp_path / f"daemon{started}"
            started += 1
            folder.mkdir()
            return stack.enter_context(running(Daemon(wheel_env, folder, options, **fields), tasks))

        yield start
