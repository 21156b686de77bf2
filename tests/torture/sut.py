"""The system under test: one daemon on one data directory, through all its lives."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic, monotonic_ns, time_ns
from typing import Final, Literal
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from jobsvc.model.crashpoints import VARIABLE
from tests.torture.processes import LIFE, descriptors_of, everyone, send
from tests.torture.records import Life

ROOT: Final = Path(__file__).parents[2]
WORK: Final = Path(__file__).parent / "work"
START_S: Final = 70.0
"""Far longer than any start takes; what is not ready then never will be."""
STOP_S: Final = 60.0
LOOK_S: Final = 0.005
ORPHANS_S: Final = 5.0
"""The promise: no process of a dead daemon is left after so long."""
ORPHANS_LOOK_S: Final = 0.05

DAY_S: Final = 86_400.0
RUN_MAX_S: Final = 20 * 3600
"""Moments of a longer run could not be told from those of a clock that is off."""
STEPPED: Final = Path(__file__).parent / "stepped"

_direct = build_opener(ProxyHandler({}))


class Sut:
    """See the module.

    Args:
        folder: an existing, empty folder: `data`, `daemon.log` and `effects` are made in it.
        source: the checkout, or the copy of it, whose `jobsvc` is to run.
        options: further options of `twistd jobsvc`.
        environ: further variables; `PYTHONPATH` goes before the source.
    """

    def __init__(
        self,
        folder: Path,
        source: Path,
        options: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        work: Path = WORK,
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.log_file = folder / "daemon.log"
        self.effects_file = folder / "effects"
        self.temporary = folder / "tmp"
        """Where its processes put what is for a moment only."""
        self.temporary.mkdir(exist_ok=True)
        self.wal_bytes = 0
        """The longest log that was found at the end of a life."""
        self.lives: list[Life] = []
        self.descriptors_ready = 0
        """How many the newest life had open when it was ready."""
        self.run = f"torture-{os.getpid()}-{folder.name}"
        self._began_wall = _wall()
        self._clock_file = folder / "clock"
        self._clock_file.write_bytes(struct.pack("d", 0.0))
        self._log_from = 0
        self._source = source
        self._environ = {
            "PYTHONPATH": str(STEPPED),
            "TORTURE_CLOCK": str(self._clock_file),
            **(environ or {}),
        }
        self._command = [
            str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "jobsvc",
            "--tasks", "torture_tasks", "--path", str(work), "--data-dir", str(self.data_dir),
            "--listen", "tcp:0:interface=127.0.0.1", *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._address: tuple[str, int] | None = None
        self._changed = threading.Condition()
        self._watches: list[threading.Thread] = []

    # -- for clients

    def address(self, wait_s: float) -> tuple[str, int] | None:
        """Where the daemon listens; waits for it to be ready. None when it is not in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._address is not None, wait_s)
            return self._address

    @property
    def token(self) -> str:
        """The admin token."""
        return (self.data_dir / "token").read_text().strip()

    # -- for the nemesis

    @property
    def life(self) -> Life:
        """The newest."""
        return self.lives[-1]

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """Of the newest life."""
        assert self._process is not None, "start() first"
        return self._process

    @property
    def pid(self) -> int:
        """Of the daemon."""
        return self.process.pid

    def popen(self, life: str, wish: str = "") -> subprocess.Popen[bytes]:
        """A daemon process on this directory, not waited for."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("JOBSVC_")}
        before = self._environ.get("PYTHONPATH")
        environ = kept | self._environ
        environ |= {
            "PYTHONPATH": f"{before}:{self._source}" if before else str(self._source),
            LIFE: life,
            "TORTURE_EFFECTS": str(self.effects_file),
            "TMPDIR": str(self.temporary),
        }
        if wish:
            environ[VARIABLE] = wish
        with self.log_file.open("ab") as log:
            self._log_from = log.tell()
            return subprocess.Popen(
                self._command,
                cwd=self.folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    # -- its clock

    def set_clock(self, off_s: float) -> None:
        """What the daemon takes for the time of day is off by so much from now on; a day or nothing."""
        with self._clock_file.open("r+b") as file:
            file.write(struct.pack("d", off_s))

    def true_wall(self, at: int) -> int:
        """The true moment of one that the daemon has stamped: the clock is off by whole days, a run is shorter."""
        return at + round((self._began_wall + RUN_MAX_S * 500_000 - at) / (DAY_S * 1e6)) * int(DAY_S * 1e6)

    def start(self, wish: str = "") -> bool:
        """A new life. True once it is ready; False when it has died before, as one with a `wish` may."""
        life = Life(f"{self.run}.{len(self.lives)}.", monotonic_ns(), _wall(), point=wish.partition(":")[0])
        self.lives.append(life)
        self._process = self.popen(life.name, wish)
        give_up_at = monotonic() + START_S
        while (found := self._ready()) is None:
            if self._waited(LOOK_S):
                self._over("crashed" if wish else "failed")
                return False
            if monotonic() > give_up_at:
                self.kill()
                life.how = "failed"
                return False
        life.ready, life.ready_wall = monotonic_ns(), _wall()
        self.descriptors_ready = descriptors_of(self.pid)
        self._publish(found)
        return True

    def _ready(self) -> tuple[str, int] | None:
        try:
            endpoint = json.loads((self.data_dir / "endpoint.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        if endpoint["pid"] != self.pid:  # left by one that was killed
            return None
        try:
            with _direct.open(f"{endpoint['url']}/readyz", timeout=START_S) as reply:
                if reply.status != 200:
                    return None
        except (URLError, ConnectionError):
            return None
        url = urlsplit(endpoint["url"])
        return str(url.hostname), int(url.port or 0)

    def kill(self, *, unguarded: bool = False) -> None:
        """SIGKILL, as by a crash; `unguarded`: the guard is dead as well."""
        self.life.unguarded = unguarded
        self.process.kill()
        self.process.wait()
        self._over("killed")

    def terminate(self) -> None:
        """SIGTERM; does not wait."""
        self.life.asked, self.life.asked_wall = monotonic_ns(), _wall()
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """SIGTERM and the exit status; one that hangs is killed."""
        self.terminate()
        return self.ended()

    def ended(self) -> int:
        """The exit status of one that was told to stop; one that hangs is killed."""
        if not self._waited(STOP_S):
            self.kill()
            return -signal.SIGKILL
        self._over("terminated")
        return self.process.returncode

    def died(self, within_s: float) -> bool:
        """Wait so long for it to end by itself."""
        if not self._waited(within_s):
            return False
        self._over("crashed")
        return True

    def close(self) -> list[str]:
        """Nothing of it runs any more, whatever has happened. What had to be killed now, in words."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        for watch in self._watches:
            watch.join()
        left = list(everyone(f"{self.run}."))
        for process in left:
            send(process.pid, signal.SIGKILL)
        return [f"{process.pid}: {process.command}" for process in left]

    def logged(self, word: bytes) -> int:
        """How often a word stands in the log of the newest life."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_from)
            return log.read().count(word)

    def log_tail(self, lines: int = 20) -> str:
        """The last words of the daemon."""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    # -- inside

    def _waited(self, seconds: float) -> bool:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _over(self, how: Literal["killed", "crashed", "terminated", "failed"]) -> None:
        life = self.life
        if life.ended is not None:
            return
        life.ended, life.status = monotonic_ns(), self.process.returncode
        wal = self.data_dir / "jobsvc.db-wal"
        self.wal_bytes = max(self.wal_bytes, wal.stat().st_size if wal.exists() else 0)
        life.how = "failed" if how == "crashed" and life.status != -signal.SIGKILL else how
        self._publish(None)
        watch = threading.Thread(
            target=self._watch, args=(life,), name=f"orphans of {life.name}", daemon=True
        )
        watch.start()
        self._watches.append(watch)

    def _publish(self, address: tuple[str, int] | None) -> None:
        with self._changed:
            self._address = address
            self._changed.notify_all()

    def _watch(self, life: Life) -> None:
        """See how long what it had started outlives it."""
        assert life.ended is not None
        nobody = threading.Event()
        while True:
            passed_s = (monotonic_ns() - life.ended) / 1e9
            over = self._swept_after(life, passed_s) if life.unguarded else passed_s > ORPHANS_S
            left = list(everyone(life.name))
            if not left:
                life.orphans_gone_s = passed_s
                return
            if over:
                life.orphans = [f"{p.pid}: {p.command}" for p in left]
                return
            nobody.wait(ORPHANS_LOOK_S)

    def _swept_after(self, life: Life, passed_s: float) -> bool:
        """Whether a later life is ready, or there will be none."""
        later = self.lives[self.lives.index(life) + 1 :]
        return any(each.ready is not None for each in later) or passed_s > START_S + ORPHANS_S


def _wall() -> int:
    return time_ns() // 1000
