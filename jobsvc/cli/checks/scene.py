"""F5: what the checks look at: settings, files, kernel, packages, the running daemon. Tests put others in its place."""

from __future__ import annotations

import http.client
import os
import socket
import sqlite3
import stat
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from jobsvc.cli.checks.started import started
from jobsvc.client.discovery import Target, find_target
from jobsvc.client.errors import Unreachable
from jobsvc.config import Config, Settings
from jobsvc.model.places import CREDENTIALS_VARIABLE
from jobsvc.store.folder import DATABASE_FILE, daemon_in

PROBE_S: Final = 5.0
"""For one answer of a daemon on this machine."""


class Answer(NamedTuple):
    """A reply of the daemon; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PROBE_S)
        self._path = path

    def connect(self) -> None:
        """See http.client."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PROBE_S)
        self.sock.connect(self._path)


class Scene:
    """The surroundings of one run. What may be replaced are the attributes that the constructor sets.

    Attributes:
        settings, config: of the daemon; of one that was started here, until `look_at_daemon` finds those of the one
            that runs.
        environ: of who asks. `daemon_environ`: of the daemon, in the same way.
        lock_trouble: why it cannot be seen who has the data directory.
        whose: whose settings they are, for people.
        uid: who asks.
        proc: where the kernel tells about processes.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self.settings = settings
        self.config: Config = settings.config
        self.environ = environ
        self.daemon_environ = environ
        self.whose = "of a daemon started here"
        self.uid = os.geteuid()
        self.proc = Path("/proc")
        self.now: Callable[[], float] = time.time
        self.elapsed: Callable[[], float] = time.perf_counter
        self.fsync: Callable[[int], None] = os.fsync
        self.statvfs: Callable[[Path], os.statvfs_result] = os.statvfs
        self.pidfd_open: Callable[[int], int] | None = getattr(os, "pidfd_open", None)
        self.installed: Callable[[str], str | None] = _installed
        self.importable: Callable[[str], bool] = lambda name: find_spec(name) is not None
        self.lock_trouble: str | None = None
        self.sqlite_version = sqlite3.sqlite_version_info
        self.sqlite_threads = sqlite3.threadsafety

    def look_at_daemon(self) -> None:
        """Judge the settings of the daemon that runs, when there is one and it may be looked at."""
        if not self.daemon_pid:
            return
        try:
            found = started(self.proc, self.daemon_pid, self.folder)
        except OSError as error:
            self.whose += f"; those of pid {self.daemon_pid} are not to be seen ({error.strerror})"
            return
        if found is not None:
            self.settings, self.daemon_environ = found
            self.config = self.settings.config
            self.whose = f"of the running daemon, pid {self.daemon_pid}"

    @property
    def folder(self) -> Path:
        """The data directory."""
        return self.config.data_dir

    @property
    def database(self) -> Path:
        """The database file, there or not."""
        return self.folder / DATABASE_FILE

    @cached_property
    def daemon_pid(self) -> int | None:
        """The process that holds the data directory; 0: it is not known which; None: nobody does."""
        try:
            return daemon_in(self.folder)
        except OSError as error:
            self.lock_trouble = error.strerror
            return None

    @cached_property
    def owner(self) -> int:
        """Whose everything should be: the running daemon's user, or who asks; root looks at the folder of another."""
        try:
            if self.daemon_pid:
                return (self.proc / str(self.daemon_pid)).stat().st_uid or self.folder.stat().st_uid
            return self.folder.stat().st_uid if self.uid == 0 else self.uid
        except OSError:
            return self.uid

    def daemon_facts(self, name: str) -> dict[str, str]:
        """Lines `name: value` of `/proc/PID/NAME` of the running daemon. Raises OSError."""
        lines = (self.proc / str(self.daemon_pid) / name).read_text().splitlines()
        return {head: tail.strip() for head, _, tail in (line.partition(":") for line in lines)}

    # -- the running daemon

    @cached_property
    def target(self) -> Target | str:
        """Where the daemon answers; a text: why it cannot be asked."""
        environ = dict(self.environ)
        if CREDENTIALS_VARIABLE in self.daemon_environ:
            environ[CREDENTIALS_VARIABLE] = self.daemon_environ[CREDENTIALS_VARIABLE]
        try:
            return find_target(data_dir=self.folder, environ=environ)
        except (Unreachable, ValueError) as error:
            return str(error)

    def ask(self, method: str, path: str, headers: Mapping[str, str] = {}, *, token: bool = False) -> Answer:
        """One request to the running daemon. `headers` may name another Host.

        Raises:
            OSError: it does not answer.
        """
        target = self.target
        if isinstance(target, str):
            raise ConnectionError(target)
        parts = urlsplit(target.base)
        connection: http.client.HTTPConnection
        if target.unix is not None:
            connection = _UnixConnection(target.unix)
        elif parts.scheme == "https":
            connection = http.client.HTTPSConnection(parts.netloc, timeout=PROBE_S)
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=PROBE_S)
        sent = dict(headers)
        if token and target.token is not None:
            sent["Authorization"] = f"Bearer {target.token}"
        try:
            connection.request(method, parts.path + path, headers=sent)
            reply = connection.getresponse()
            heads = {name.lower(): value for name, value in reply.getheaders()}
            return Answer(reply.status, heads, reply.read())
        except http.client.HTTPException as error:
            raise ConnectionError(f"no HTTP comes from there ({error!r})") from None
        finally:
            connection.close()


def mode_of(info: os.stat_result) -> str:
    """Permission bits as people write them: 0640."""
    return f"{stat.S_IMODE(info.st_mode):04o}"
