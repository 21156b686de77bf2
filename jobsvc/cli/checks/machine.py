"""F5: checks of the machine: kernel, limits, clock, Python and its packages."""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import sys
from typing import Final

from jobsvc.cli.checks.findings import Finding, absent, bad, good, odd
from jobsvc.cli.checks.scene import Scene
from jobsvc.http.limits import CONNECTIONS_MAX, OPEN_FILES_SHARE

TWISTED_LEAST: Final = (26, 10)
"""Before it, a bare CR or LF inside a header's value smuggles a request past a proxy (twisted issue 12754)."""
OPEN_FILES_LEAST: Final = 1024
"""Below the usual soft limit even a quiet daemon runs out."""
EARLIEST_S: Final = 1_767_225_600.0
"""2026-01-01: a clock before that is wrong, since this program is younger."""
CLOCK_STEP_S: Final = 60.0


def kernel(_scene: Scene) -> Finding:
    """Linux, with what supervision needs."""
    if not sys.platform.startswith("linux") or not hasattr(select, "epoll"):
        return bad(f"{sys.platform} without epoll", "jobsvc runs on Linux only")
    return good(f"Linux {os.uname().release}, epoll")


def guard(scene: Scene) -> Finding:
    """The guard can find and end what a daemon leaves behind."""
    if scene.pidfd_open is None or not hasattr(signal, "pidfd_send_signal"):
        return bad("this Python knows no pidfd", "use a Python that was built on Linux 5.3 or later")
    try:
        os.close(scene.pidfd_open(os.getpid()))
    except OSError as error:
        return bad(f"pidfd_open: {error.strerror}", "Linux 5.3 or later, and a sandbox that allows the call")
    try:
        (scene.proc / "self/environ").read_bytes()
    except OSError as error:
        return bad(f"{scene.proc}: {error.strerror}", "mount /proc: orphaned processes are found there")
    return good("pidfd and /proc work")


def open_files(scene: Scene) -> Finding:
    """Room for the connections."""
    if scene.daemon_pid:
        text = (scene.proc / str(scene.daemon_pid) / "limits").read_text()
        found = re.search(r"^Max open files\s+(\d+|unlimited)", text, re.MULTILINE)
        soft = int(found[1]) if found is not None and found[1].isdigit() else CONNECTIONS_MAX * 2
    else:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    room = int(soft * OPEN_FILES_SHARE)
    if soft < OPEN_FILES_LEAST:
        return bad(f"{soft} open files", f"ulimit -n {OPEN_FILES_LEAST} or more (LimitNOFILE= of the unit)")
    if room < CONNECTIONS_MAX:
        return odd(
            f"{soft} open files: {room} connections at once instead of {CONNECTIONS_MAX}",
            f"ulimit -n {int(CONNECTIONS_MAX / OPEN_FILES_SHARE)} (LimitNOFILE= of the unit), if you expect so many",
        )
    return good(f"{soft} open files: {CONNECTIONS_MAX} connections at once")


def job_limits(scene: Scene) -> Finding:
    """A job that runs wild is stopped before it takes the machine down."""
    if scene.config.max_rss is None:
        return odd("a job may use all memory there is", "set max_rss, or limits= of the tasks that need it")
    return good(f"max_rss {scene.config.max_rss} bytes")


def queue_limits(scene: Scene) -> Finding:
    """A client that runs wild is stopped before it fills the disk."""
    if scene.config.queue_max == 0:
        return odd("any number of jobs may wait", "set queue_max")
    return good(f"{scene.config.queue_max} waiting jobs of a tenant")


def clock(scene: Scene) -> Finding:
    """The clock is not far off: times of jobs are kept by it."""
    now = scene.now()
    if now < EARLIEST_S:
        return bad("the clock is years behind", "set it, and keep it by NTP")
    try:
        ahead = scene.database.stat().st_mtime - now
    except OSError:
        return good("plausible")
    if ahead > CLOCK_STEP_S:
        return odd(
            f"the database was last written {ahead:.0f} s from now",
            "the clock was stepped back: keep it by NTP",
        )
    return good("plausible, and not before the last write of the database")


def python(_scene: Scene) -> Finding:
    """New enough."""
    words = f"{sys.implementation.name} {'.'.join(map(str, sys.version_info[:3]))}"
    if sys.implementation.name != "cpython":
        return odd(words, "jobsvc is tested on CPython")
    return good(words)


def twisted(scene: Scene) -> Finding:
    """With the holes closed that this service would have had."""
    found = scene.installed("twisted")
    least = ".".join(map(str, TWISTED_LEAST))
    if found is None:
        return bad("Twisted is not installed", f"pip install 'twisted[tls]>={least}'")
    numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
    if numbers < TWISTED_LEAST:
        return bad(
            f"Twisted {found}", f"pip install 'twisted[tls]>={least}': older ones let requests be smuggled"
        )
    return good(f"Twisted {found}")


def http2(scene: Scene) -> Finding:
    """HTTP/2, with its floods, is not spoken: twisted.web speaks it over TLS as soon as its two libraries are there."""
    if scene.importable("h2") and scene.importable("priority"):
        return bad(
            "h2 and priority are installed: twisted.web speaks HTTP/2 with them", "pip uninstall h2 priority"
        )
    return good("not installed")


def reactor(scene: Scene) -> Finding:
    """Another reactor than the default was asked for by nobody."""
    if not scene.daemon_pid:
        return absent("no daemon is found")
    words = (scene.proc / str(scene.daemon_pid) / "cmdline").read_bytes().split(b"\0")
    if named := [word.decode(errors="replace") for word in words if word.startswith((b"--reactor", b"-r"))]:
        return odd(f"started with {named[0]}", "the default, epoll, is the one that is tested")
    return good("the default, epoll")
