"""F2: files that are there whole or not at all, also after a power cut. Blocking."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Put a file with this text, for its owner's eyes, in the place of the one before; it is on the disk then.

    Raises:
        OSError: the one before is still there; or, on a disk that fails at the very last step, one of the two.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    flush(path.parent)


def remove(path: Path) -> None:
    """Take a file away, if it is there; a power cut does not bring it back. Raises OSError."""
    path.unlink(missing_ok=True)
    flush(path.parent)


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
