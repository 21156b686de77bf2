"""F5: checks of where the jobs are kept: SQLite, the file system, the database."""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
from pathlib import Path
from typing import Final

from jobsvc.cli.checks.findings import Finding, absent, bad, good, odd
from jobsvc.cli.checks.scene import Scene
from jobsvc.model.limits import MIB
from jobsvc.model.sizes import size_text
from jobsvc.store.connection import StoreRefused
from jobsvc.store.opening import SQLITE_MIN, exists, inspect, refusal
from jobsvc.store.schema import MIGRATIONS

WAL_RESET_FIXED: Final = (3, 51, 3)
"""Before it, two connections that write or checkpoint at once can damage a database (the WAL-reset race)."""
NETWORK: Final = re.compile(
    r"nfs|cifs|smb|9p|afs|ceph|gluster|lustre|gpfs|beegfs|fuse\.(sshfs|s3fs|rclone|gcsfuse)"
)
"""Whose locks and shared memory SQLite's log cannot rely on."""
MEMORY: Final = ("tmpfs", "ramfs")
FREE_LEAST_BYTES: Final = 64 * MIB
"""One write-ahead log of the size that is kept, and no room for anything else."""
FREE_LOW_BYTES: Final = 1024 * MIB
"""A few days of a quiet service; or an hour of a busy one."""
INODES_LEAST: Final = 1_000
FSYNCS: Final = 5
FSYNC_SLOW_S: Final = 0.1
"""A submit waits for one: slower than this is felt by everyone."""


def sqlite(scene: Scene) -> Finding:
    """Version and threads; and whether the WAL-reset race can touch us."""
    number = ".".join(map(str, scene.sqlite_version))
    if scene.sqlite_version < SQLITE_MIN:
        return bad(f"SQLite {number}", f"{'.'.join(map(str, SQLITE_MIN))} or later is needed: another Python")
    if not scene.sqlite_threads:
        return bad(f"SQLite {number} was built without threads", "another Python")
    if scene.sqlite_version < WAL_RESET_FIXED:
        fixed = ".".join(map(str, WAL_RESET_FIXED))
        return good(
            f"SQLite {number}: older than {fixed}, whose WAL-reset race needs two writers; jobsvc has one"
        )
    return good(f"SQLite {number}, threads {scene.sqlite_threads}")


def file_system(scene: Scene) -> Finding:
    """The data directory lies on a disk of this machine."""
    if scene.config.durability == "memory":
        return absent("durability is memory: nothing is kept")
    place = _nearest(scene.folder)
    mount, kind = _mounted(scene, place)
    if NETWORK.match(kind):
        return odd(
            f"{scene.folder} is on {kind} ({mount})", "use a local disk: a network's locks lose databases"
        )
    if kind in MEMORY:
        return odd(
            f"{scene.folder} is on {kind} ({mount})", "use a disk: all jobs are gone with the machine's power"
        )
    return good(f"{kind} ({mount})")


def durability(scene: Scene) -> Finding:
    """Accepted jobs survive a power cut."""
    level = scene.config.durability
    if level == "power":
        return good("power: accepted jobs survive a power cut")
    return odd(
        f"{level}: accepted jobs can be lost", 'set durability = "power", unless that is what you want'
    )


def free_space(scene: Scene) -> Finding:
    """There is room for more jobs."""
    found = scene.statvfs(_nearest(scene.folder))
    free = found.f_bavail * found.f_frsize
    if free < FREE_LEAST_BYTES:
        return bad(f"{size_text(free)} free", "make room: submits are refused with disk_full (507)")
    if found.f_files and found.f_favail < INODES_LEAST:
        return bad(
            f"room for {found.f_favail} more files only", "remove files: the file system has no inodes left"
        )
    if free < FREE_LOW_BYTES:
        return odd(f"{size_text(free)} free", "make room, or keep finished jobs for less time (keep_s)")
    return good(f"{size_text(free)} free")


def fsync(scene: Scene) -> Finding:
    """Writing through to the disk works, and how long it takes; in a file without a name, gone at once."""
    if not scene.folder.is_dir():
        return absent("there is no data directory yet")
    took = []
    try:
        with tempfile.TemporaryFile(dir=scene.folder) as file:
            for _ in range(FSYNCS):
                file.write(bytes(4096))
                file.flush()
                began = scene.elapsed()
                scene.fsync(file.fileno())
                took.append(scene.elapsed() - began)
    except OSError as error:
        return bad(
            f"{scene.folder}: {error.strerror}", "nothing can be kept there: look at the disk, or use another"
        )
    middle = sorted(took)[FSYNCS // 2]
    if middle > FSYNC_SLOW_S:
        return odd(f"{middle * 1000:.0f} ms", "a faster disk; every submit waits for one of these")
    return good(f"{middle * 1000:.2g} ms")


def database(scene: Scene) -> Finding:
    """A daemon would take it. Looked through when none has it; a large one only if it was not closed."""
    if scene.config.durability == "memory":
        return absent("durability is memory: there is none")
    if scene.daemon_pid is not None:
        return absent("in use by the daemon, which has looked at it; jobsvc db check looks again")
    path = str(scene.database)
    try:
        return _looked_at(path) if exists(path) else absent(f"{path} is not there; the first start makes it")
    except (StoreRefused, sqlite3.Error) as error:
        words = str(error) if isinstance(error, StoreRefused) else str(refusal(path, error))
        return bad(words, f"jobsvc db check {path} says more")


def _looked_at(path: str) -> Finding:
    found, opened = inspect(path)
    words = f"schema {found.version} of {len(MIGRATIONS)}" + ("" if opened.checked_s is None else ", whole")
    return good(f"{words}; it was not closed, the next start puts that right" if found.unclean else words)


def lock(scene: Scene) -> Finding:
    """Who has the data directory."""
    if scene.daemon_pid is None and scene.lock_trouble is not None:
        return bad(f"{scene.folder}/lock: {scene.lock_trouble}", "ask as the daemon's user, or as root")
    if scene.daemon_pid is None:
        return good("nobody has the data directory")
    if scene.daemon_pid == 0:
        return odd(
            "somebody has the data directory, and does not say who", f"fuser {scene.folder}/lock names it"
        )
    if not (scene.proc / str(scene.daemon_pid)).exists():
        return odd(
            f"pid {scene.daemon_pid} has the data directory, which is no process here",
            "it may run in a container; ask there",
        )
    return good(f"the daemon with pid {scene.daemon_pid} has the data directory")


def _nearest(folder: Path) -> Path:
    """The folder itself, or the one in which it would be made."""
    whole = folder.resolve()
    return next(place for place in (whole, *whole.parents) if place.exists())


def _mounted(scene: Scene, place: Path) -> tuple[str, str]:
    """Mount point and kind of the file system of a folder. Raises OSError."""
    best = ("", "unknown")
    for line in (scene.proc / "self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        # Blanks and the like are written as \040.
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), left.split()[4])
        inside = os.path.commonpath((point, place)) == point
        if inside and len(point) >= len(best[0]):
            best = (point, right.split()[0])
    return best
