"""F2: where the keys of secret arguments are kept: a file of the data directory, or a credential of systemd.

Never in the database, never in `backup/`: who has a copy of these has no secret. Blocking; used at the start only.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from jobsvc.model.places import SECRET_KEYS_FILE
from jobsvc.model.sealing import KeyRing, key_line, read_keys
from jobsvc.store.files import write_whole
from jobsvc.store.folder import FolderRefused


def key_ring(folder: Path, file: Path | None, random_bytes: Callable[[int], bytes]) -> KeyRing:
    """The keys in force.

    The file of the data directory is made by the first start, so that no submit ever waits for it. A further line is a
    further key: the first encrypts, all decrypt.

    Args:
        folder: the data directory.
        file: where the operator keeps them; None = in the data directory.

    Raises:
        FolderRefused: no keys in it, open to others, or not to be read or made; names the file.
    """
    own = folder / SECRET_KEYS_FILE
    file = file or own
    if file == own and not file.exists():
        try:
            write_whole(file, key_line(random_bytes))  # on the disk before any secret is encrypted with it
        except OSError as error:
            raise FolderRefused(f"{file} cannot be made ({error.strerror})") from None
    try:
        info = file.stat()
    except OSError as error:
        raise FolderRefused(
            f"{file}: {error.strerror}; the keys of secret arguments are expected there"
        ) from None
    # systemd gives a credential to root's group at times, and nobody is in that.
    others = stat.S_IRWXG | stat.S_IRWXO if file == own else stat.S_IRWXO
    if info.st_mode & others:
        raise FolderRefused(f"{file} holds keys and is open to others: chmod 600 {file}")
    return _ring(file, random_bytes)


def _ring(file: Path, random_bytes: Callable[[int], bytes]) -> KeyRing:
    try:
        return KeyRing(read_keys(file.read_text()), random_bytes)
    except (OSError, ValueError) as error:
        raise FolderRefused(
            f"{file}: {error}; put the right file back: without its keys the secret arguments of stored jobs are lost"
        ) from None
