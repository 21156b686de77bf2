"""Errors of the kernel for a running daemon: strace makes its system calls fail from a moment on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.integration.daemon import Daemon

ATTACH_DEADLINE_S: Final = 30.0
DETACH_DEADLINE_S: Final = 30.0


@contextmanager
def failing(daemon: Daemon, calls: str, error: str, *, when: str = "1+") -> Iterator[None]:
    """While inside, these system calls of the daemon fail with this error.

    Args:
        calls: their names, with commas.
        error: as in errno.
        when: the first one that fails, `+` for all after it too.
    """
    words = ["strace", "-f", "-q", "-o", "/dev/null", "-p", str(daemon.pid), "-e", f"trace={calls}"]
    inject = ["-e", f"inject={calls}:error={error}:when={when}"]
    tracer = subprocess.Popen([*words, *inject], stderr=subprocess.PIPE, text=True)
    try:
        daemon.wait_for("strace to attach", lambda: _traced(daemon.pid) or tracer.poll(), ATTACH_DEADLINE_S)
        assert tracer.poll() is None, tracer.stderr.read() if tracer.stderr else ""
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=DETACH_DEADLINE_S)


def _traced(pid: int) -> bool:
    """Whether every thread has a tracer."""
    statuses = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/status")]
    return all("TracerPid:\t0\n" not in status for status in statuses)
