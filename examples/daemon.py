"""A daemon of one's own, started by a program: what a demo, a test suite or a benchmark needs.

It runs `twistd jobsvc` as a child, in a folder and on a port of its own, waits until it is ready, and stops it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

ROOT = Path(__file__).resolve().parent.parent
"""Where task modules are found from: the folder that holds `examples`."""
START_S = 60.0
"""A cold start on a small busy machine takes a few seconds; this is for the machine that is worse."""
STOP_S = 60.0
"""The daemon's own drain (30 s), its margin, and a reserve."""
HURRY_S = 0.2
"""Before a second SIGTERM, which the daemon takes as: now. The first must have been noticed."""
LOOK_S = 0.01
"""Between two looks at whether it is ready."""
LOG_TAIL_LINES = 30

# This machine is reached without a proxy, whatever the environment says.
_direct = build_opener(ProxyHandler({}))


class DaemonFailed(Exception):
    """The daemon did not start, or ended by itself; the text holds the end of its log."""


class Daemon:
    """One daemon with its folder: `data` and `daemon.log` are made in it. May be started again after it ended.

    Args:
        folder: an existing folder.
        tasks: modules with tasks.
        options: further options of `twistd jobsvc`.
        start_folder: where it is started: task modules are found from there.
    """

    def __init__(
        self, folder: Path, tasks: Iterable[str], *, options: Sequence[str] = (), start_folder: Path = ROOT
    ) -> None:
        self.data_dir = folder / "data"
        self.token_file = self.data_dir / "token"
        self.log_file = folder / "daemon.log"
        self._endpoint_file = self.data_dir / "endpoint.json"
        self._start_folder = start_folder
        self._command = [_twistd(), "-n", "--pidfile=", "jobsvc"]
        for module in tasks:
            self._command += ["--tasks", module]
        self._command += ["--data-dir", str(self.data_dir), "--listen", "tcp:0:interface=127.0.0.1", *options]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.running:
            self.stop(hurry=kind is not None)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that was started last."""
        assert self._process is not None, "start() first"
        return self._process

    @property
    def running(self) -> bool:
        """Whether there is a process that has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def token(self) -> str:
        """The admin token."""
        return self.token_file.read_text().strip()

    def start(self) -> None:
        """Start it; returns when it is ready.

        Raises:
            DaemonFailed: it ended, or was not ready in time.
        """
        assert not self.running, "it runs already"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("JOBSVC_")}
        with self.log_file.open("ab") as log:
            # A group of its own: Ctrl-C reaches the program that started it, and that stops it in good order.
            self._process = subprocess.Popen(
                self._command,
                cwd=self._start_folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        try:
            self._wait_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self, *, hurry: bool = False) -> int:
        """SIGTERM, wait for the end, and give the exit status. `hurry`: do not wait for running jobs.

        Raises:
            DaemonFailed: it had to be killed.
        """
        self.process.send_signal(signal.SIGTERM)
        if hurry and not self.pause(HURRY_S):
            self.process.send_signal(signal.SIGTERM)
        if not self.pause(STOP_S):
            self.kill()
            raise DaemonFailed(f"the daemon did not stop within {STOP_S:g} s:\n{self.log_tail()}")
        return self.process.returncode

    def kill(self) -> None:
        """SIGKILL, as by a crash."""
        self.process.kill()
        self.process.wait()

    def pause(self, seconds: float) -> bool:
        """Wait, or shorter when the process ends meanwhile. Whether it has ended."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def log_tail(self) -> str:
        """The end of what the daemon has printed."""
        lines = self.log_file.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def _wait_ready(self) -> None:
        give_up_at = monotonic() + START_S
        while not self._is_ready():
            if self.pause(LOOK_S):
                status = self.process.returncode
                raise DaemonFailed(f"the daemon ended with {status} before it was ready:\n{self.log_tail()}")
            if monotonic() > give_up_at:
                raise DaemonFailed(f"the daemon is not ready after {START_S:g} s:\n{self.log_tail()}")

    def _is_ready(self) -> bool:
        try:
            endpoint = json.loads(self._endpoint_file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        if endpoint["pid"] != self.process.pid:  # left by one that was killed
            return False
        self.url = endpoint["url"]
        try:
            with _direct.open(f"{self.url}/readyz", timeout=START_S) as reply:
                return bool(reply.status == HTTPStatus.OK)
        except (URLError, ConnectionError):
            return False


def _twistd() -> str:
    """The `twistd` beside the Python that runs this."""
    path = Path(sys.executable).parent / "twistd"
    if not path.exists():
        raise DaemonFailed(f"there is no {path}: run `make setup`, then use the Python in .venv")
    return str(path)
