"""Scenes for the doctor: a data directory, a /proc and settings of one's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from jobsvc.cli.checks.findings import Finding
from jobsvc.cli.checks.scene import Scene
from jobsvc.client.discovery import Target
from jobsvc.config import gather

ME = os.geteuid()


class House:
    """A data directory, a /proc and settings of one's own; makes scenes of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.proc = root / "proc"
        self.data.mkdir(mode=0o700)
        self.proc.mkdir()
        self.file(
            "self/mountinfo", f"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 / {root} rw - xfs /dev/sdb1 rw\n"
        )
        self.file("self/environ", "A=b\0")
        self.file("sys/kernel/yama/ptrace_scope", "1\n")

    def file(self, name: str, text: str) -> Path:
        """A file below its /proc."""
        path = self.proc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def scene(self, environ: Mapping[str, str] = {}, **options: str | list[str]) -> Scene:
        given: dict[str, str | list[str]] = {"tasks": ["t"], "data-dir": str(self.data)}
        given |= {name.replace("_", "-"): value for name, value in options.items()}
        scene = Scene(gather(given, environ, self.root / "none"), environ)
        scene.proc = self.proc
        scene.owner = ME
        return scene

    def with_daemon(self) -> Scene:
        """A scene in which pid 77 has the directory and answers nowhere."""
        scene = self.scene()
        scene.daemon_pid = 77
        scene.target = Target("http://127.0.0.1:8787", None, "jobsvc_1.x")
        self.file("77/environ", "")
        self.file("77/status", "Name:\ttwistd\nUmask:\t0077\n")
        self.file(
            "77/limits", "Limit      Soft Limit  Hard Limit  Units\nMax open files  65536  65536  files\n"
        )
        self.file("77/cmdline", "python\0twistd\0-n\0jobsvc\0")
        return scene

    def private(self, name: str, mode: int = 0o600) -> Path:
        """A file of the data directory."""
        path = self.data / name
        path.write_text("x")
        path.chmod(mode)
        return path


def told(finding: Finding, status: str, *words: str) -> None:
    """It has this status and says these words; whatever is not well says what to do."""
    assert finding.status == status, finding
    assert "\n" not in finding.detail + finding.advice
    for word in words:
        assert word in f"{finding.detail}. {finding.advice}"
    assert bool(finding.advice) == (status in ("warn", "fail"))
