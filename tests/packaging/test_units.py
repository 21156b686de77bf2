"""The systemd units in deploy/: systemd finds nothing to say, and they fit the daemon and each other."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from jobsvc.model import limits
from tests.needed import program

DEPLOY = Path(__file__).parents[2] / "deploy"
INSTALLED = Path("/opt/jobsvc")


def directives(unit: str) -> dict[str, list[str]]:
    """Every directive of a unit with its values, in order."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / unit).read_text().splitlines():
        if match := re.fullmatch(r"(\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` prints nothing: no unknown key, no bad value, no missing unit."""
    analyze = program("systemd-analyze")
    # systemd looks whether the commands exist, so the units are checked as installed below tmp_path
    (tmp_path / "bin").mkdir()
    for unit in ("jobsvc.service", "jobsvc.socket"):
        text = (DEPLOY / unit).read_text()
        for command in re.findall(rf"^Exec\w+={INSTALLED}/bin/(\S+)", text, re.MULTILINE):
            (tmp_path / "bin" / command).touch(mode=0o755)
        (tmp_path / unit).write_text(text.replace(str(INSTALLED), str(tmp_path)))
    done = subprocess.run(
        [analyze, "verify", "--man=no", tmp_path / "jobsvc.service", tmp_path / "jobsvc.socket"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_service_takes_the_socket_by_its_name() -> None:
    """The endpoint string in the service asks for the descriptor that the socket unit names."""
    (start,) = directives("jobsvc.service")["ExecStart"]
    (name,) = directives("jobsvc.socket")["FileDescriptorName"]
    assert start.startswith(f"{INSTALLED}/bin/twistd --nodaemon --pidfile= ")
    assert start.endswith(f" jobsvc --listen systemd:domain=INET:name={name}")
    assert directives("jobsvc.socket")["ListenStream"] == ["127.0.0.1:8787"]


def test_systemd_waits_longer_than_the_drain() -> None:
    """A drain of the default length, and the end of the workers after it, fit into TimeoutStopSec."""
    (patience,) = directives("jobsvc.service")["TimeoutStopSec"]
    assert int(patience) >= limits.DRAIN_S + 20
