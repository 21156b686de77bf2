"""F2: the data directory: one daemon at a time, its token, and where programs on the same machine find it.

Blocking, but small: used at start and stop, before the reactor has anything else to do; in between only by the thread
of `token_file`.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from jobsvc.model.places import ENDPOINT_FILE, TOKEN_FILE
from jobsvc.model.tokens import mint, taken_apart
from jobsvc.store.files import remove, write_whole

LOCK_FILE = "lock"
DATABASE_FILE = "jobsvc.db"


class FolderRefused(Exception):
    """The directory cannot be used; the text names it and says what to do."""


@contextmanager
def holding(folder: Path) -> Iterator[int | None]:
    """Keep daemons out of a data directory meanwhile. Gives None, or the pid of the one that is in it (0: not known).

    A folder without a lock is no data directory: nobody need be kept out.
    """
    try:
        lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    folder_lock: int | None = None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder_lock = _locked(folder)
        except BlockingIOError:
            yield _holder(lock)
        else:
            # Whoever is kept out meanwhile is told by whom.
            os.ftruncate(lock, 0)
            os.write(lock, f"{os.getpid()}\n".encode())
            yield None
    finally:
        os.close(lock)
        if folder_lock is not None:
            os.close(folder_lock)


def _locked(folder: Path) -> int:
    """Lock the folder itself, too: its lock file can be removed, and the next daemon would make and lock another.

    Raises:
        BlockingIOError: somebody has it.
    """
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def daemon_in(folder: Path) -> int | None:
    """The pid of who has a data directory (0: not known), None when nobody has; who asks keeps nobody out.

    The lock is taken for the moment of the question only, shared, and nothing is written.
    """
    try:
        lock = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(lock)
    finally:
        os.close(lock)
    return None


def _holder(lock: int) -> int:
    """The pid in the lock file; 0 when there is none."""
    words = os.read(lock, 200).split()
    return int(words[0]) if words and words[0].isdigit() else 0


class DataFolder:
    """One data directory, held by one daemon.

    Args:
        path: made with mode 0700 when it is not there; may be a link.
        boot: this start's id, written into the lock for people who look.
        token_bytes: `token_bytes(n)` gives n secret random bytes.
        token_given: a file with the admin token that others have provided, in place of the directory's own; not there
            or None: nobody has. It is never written to, nor is its text put anywhere else.
    """

    def __init__(
        self,
        path: Path,
        boot: str,
        token_bytes: Callable[[int], bytes],
        token_given: Path | None = None,
    ) -> None:
        self.path = path
        self.token_is_given = token_given is not None and token_given.exists()
        self.token_place = token_given if token_given and self.token_is_given else path / TOKEN_FILE
        self.database = path / DATABASE_FILE
        self._boot = boot
        self._token_bytes = token_bytes
        self._lock: int | None = None
        self._folder_lock: int | None = None

    def take(self) -> None:
        """Make it, check it, lock it. The kernel drops the lock with the process, however that ends.

        Raises:
            FolderRefused: no directory, not ours, open to others, or in use by another daemon.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            info = self.path.stat()
        except OSError as error:
            raise FolderRefused(
                f"data directory {self.path}: {error.strerror}; name another with --data-dir"
            ) from None
        if info.st_uid != os.geteuid():
            raise FolderRefused(f"data directory {self.path} belongs to another user (uid {info.st_uid})")
        if info.st_mode & stat.S_IWOTH:
            raise FolderRefused(f"data directory {self.path} is writable by everyone: chmod 700 {self.path}")
        try:
            self.path.chmod(0o700)
            lock = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FolderRefused(
                f"data directory {self.path} cannot be written ({error.strerror}); "
                "make its file system writable, or name another with --data-dir"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._folder_lock = _locked(self.path)
        except BlockingIOError:
            holder = os.read(lock, 200).decode(errors="replace").split()
            os.close(lock)
            who = f" (pid {holder[0]})" if holder else ""
            raise FolderRefused(
                f"data directory {self.path} is in use by another jobsvc{who}; stop it or name another with --data-dir"
            ) from None
        try:
            os.ftruncate(lock, 0)
            os.write(lock, f"{os.getpid()} {self._boot}\n".encode())
        except OSError as error:
            os.close(lock)
            self._unlock_folder()
            raise self._unwritable(LOCK_FILE, error) from None
        self._lock = lock

    def identity(self) -> str:
        """One word that names this very directory on this machine, however it is reached. Once it is taken."""
        info = self.path.stat()
        return f"{info.st_dev:x}-{info.st_ino:x}"

    def token(self) -> str:
        """The admin token; the first start makes it. Raises `FolderRefused`: no token in it, not to be read or made."""
        file = self.token_place
        what_then = (
            "give it another content" if self.token_is_given else "remove it, the next start makes one"
        )
        try:
            text = file.read_text().strip()
        except FileNotFoundError:
            text = mint(self._token_bytes).text
            self.put_token(text)
        except (OSError, UnicodeDecodeError) as error:
            raise FolderRefused(f"{file} cannot be read ({error}); {what_then}") from None
        if taken_apart(text) is None:
            raise FolderRefused(f"{file} holds no token (jobsvc_<id>.<secret>): {what_then}")
        return text

    def token_made_at(self) -> int:
        """When the token's file was written, in microseconds."""
        return (self.path / TOKEN_FILE).stat().st_mtime_ns // 1000

    def put_token(self, text: str) -> None:
        """Make it the token of this directory, in place of the one before. Raises `FolderRefused`."""
        self._write(TOKEN_FILE, text + "\n")

    def drop_token(self) -> None:
        """No token any more; the next start makes one. Raises `FolderRefused`."""
        try:
            remove(self.path / TOKEN_FILE)
        except OSError as error:
            raise self._unwritable(TOKEN_FILE, error) from None

    def publish(self, url: str | None, unix: str | None) -> None:
        """Say where the daemon listens. Raises `FolderRefused` when that cannot be written."""
        body = {"url": url, "unix": unix, "pid": os.getpid(), "boot": self._boot}
        self._write(ENDPOINT_FILE, msgspec.json.encode(body).decode() + "\n")

    def release(self) -> None:
        """A clean stop: nobody is to be found here any more."""
        if self._lock is None:
            return
        endpoint = self.path / ENDPOINT_FILE
        if (
            endpoint.is_file() and f'"boot":"{self._boot}"'.encode() in endpoint.read_bytes()
        ):  # else it is not ours
            endpoint.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None
        self._unlock_folder()

    def _unlock_folder(self) -> None:
        if self._folder_lock is not None:
            os.close(self._folder_lock)
            self._folder_lock = None

    def _write(self, name: str, text: str) -> None:
        """Whole or not at all, readable by the owner alone."""
        try:
            write_whole(self.path / name, text)
        except OSError as error:
            raise self._unwritable(name, error) from None

    def _unwritable(self, name: str, error: OSError) -> FolderRefused:
        return FolderRefused(
            f"{self.path / name} cannot be written ({error.strerror}); free some space or make the folder writable, "
            "or name another with --data-dir"
        )
