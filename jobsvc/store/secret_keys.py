"""F2: where the keys of secret arguments are kept: a file of the data directory, or a credential of systemd.

Never in the database, never in `backup/`: who has a copy of these has no secret. Blocking; used at the start only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from jobsvc.model.sealing import KeyRing, key_line, read_keys
from jobsvc.store.folder import FolderRefused

KEYS_FILE: Final = "secret-keys"
CREDENTIAL: Final = "jobsvc-secret-keys"
"""Name of the systemd credential (`LoadCredential=`); it comes before the file."""


def key_ring(folder: Path, environ: Mapping[str, str], random_bytes: Callable[[int], bytes]) -> KeyRing:
    """The keys in force; the first start makes the file, so that no submit ever waits for it.

    A further line is a further key: the first encrypts, all decrypt.

    Raises:
        FolderRefused: no keys in it, open to others, or not to be read or made; names the file.
    """
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    credential = Path(credentials) / CREDENTIAL if credentials else None
    if credential is not None and credential.exists():
        return _ring(credential, random_bytes)
    file = folder / KEYS_FILE
    if not file.exists():
        _make(file, key_line(random_bytes))
    info = file.lstat()
    if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
        raise FolderRefused(f"{file} is no file of this user")
    if info.st_mode & 0o077:
        raise FolderRefused(f"{file} holds keys and is open to others: chmod 600 {file}")
    return _ring(file, random_bytes)


def _ring(file: Path, random_bytes: Callable[[int], bytes]) -> KeyRing:
    try:
        return KeyRing(read_keys(file.read_text()), random_bytes)
    except (OSError, ValueError) as error:
        raise FolderRefused(
            f"{file}: {error}; put the right file back: without its keys the secret arguments of stored jobs are lost"
        ) from None


def _make(file: Path, text: str) -> None:
    """Whole or not at all, and on the disk before any secret is encrypted with it."""
    new = file.with_name(f"{file.name}.new")
    try:
        new.unlink(missing_ok=True)
        with os.fdopen(
            os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w"
        ) as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        new.rename(file)
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise FolderRefused(f"{file} cannot be made ({error.strerror})") from None
