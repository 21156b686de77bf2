"""What SQLite does to its files, recorded call by call, and what of it a power cut would leave.

`FileLog` is a file system of SQLite's (a VFS) that passes every call on and writes it down. `Disk` plays such a log
again up to any operation and tells what a disk may hold when the power goes there. Its model of a disk:

- what was written to a file and then synced is kept;
- of what was written since, any part may be there in any order, in whole sectors of 512 bytes (SQLite trusts a disk
  that far too: "powersafe overwrite");
- a file created or deleted is so for good once its folder was synced; before that, either may be found.

SQLite's own file system for Unix syncs the folder with the first sync of a new journal or log: so does this one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Final, Literal, NamedTuple

import apsw

SECTOR_BYTES: Final = 512
"""What a disk writes whole or not at all."""
RECORDED: Final = (apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL)  # fmt: skip
"""Files that must outlive the process. The index of the log is none of them: SQLite builds it anew."""
SYNCS_FOLDER: Final = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL

Image = dict[str, bytes]
"""The files of a folder: contents by name."""

_names = count(1)


class Operation(NamedTuple):
    """One change. `offset` is where `data` goes, for `truncate` the new size."""

    kind: Literal["create", "write", "truncate", "sync", "delete", "sync_folder"]
    file: str = ""
    offset: int = 0
    data: bytes = b""


class FileLog(apsw.VFS):
    """Records what is done to databases opened with `vfs=log.name`; one folder to a log. `close` when done."""

    def __init__(self) -> None:
        self.name: Final = f"filelog-{next(_names)}"
        self.operations: list[Operation] = []
        super().__init__(self.name, base="")

    def close(self) -> None:
        """Forget the file system; its databases are closed."""
        self.unregister()

    def record(self, operation: Operation) -> None:
        """Add to the log."""
        self.operations.append(operation)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        if name is None or not flags[0] & RECORDED:
            return apsw.VFSFile("", name, flags)
        path = name if isinstance(name, str) else name.filename()
        return _RecordedFile(self.record, path, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - SQLite's own face
        super().xDelete(filename, syncdir)
        self.record(Operation("delete", Path(filename).name))
        if syncdir:
            self.record(Operation("sync_folder"))


class _RecordedFile(apsw.VFSFile):
    def __init__(
        self,
        record: Callable[[Operation], None],
        path: str,
        name: str | apsw.URIFilename,
        flags: list[int],
    ) -> None:
        self._record = record
        self._file = Path(path).name
        creates = bool(flags[0] & apsw.SQLITE_OPEN_CREATE)
        self._syncs_folder = creates and bool(flags[0] & SYNCS_FOLDER)
        new = creates and not Path(path).exists()
        super().__init__("", name, flags)
        if new:
            record(Operation("create", self._file))

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        self._record(Operation("write", self._file, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._record(Operation("truncate", self._file, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self._record(Operation("sync", self._file))
        if self._syncs_folder:
            self._syncs_folder = False
            self._record(Operation("sync_folder"))


class _Inode:
    """A file whatever its name: what is safe of it, and what came since, in order."""

    def __init__(self, safe: bytes = b"") -> None:
        self.safe = bytearray(safe)
        self.later: list[Operation] = []

    def sync(self) -> None:
        for operation in self.later:
            _change(self.safe, operation)
        self.later = []

    def now(self) -> bytes:
        content = bytearray(self.safe)
        for operation in self.later:
            _change(content, operation)
        return bytes(content)

    def torn(self, rng: random.Random) -> bytes:
        content = bytearray(self.safe)
        for operation in self.later:
            for part in _fate(operation, rng):
                _change(content, part)
        return bytes(content)


def _change(content: bytearray, operation: Operation) -> None:
    start, data = operation.offset, operation.data
    if operation.kind == "truncate":
        del content[start:]
        return
    if start > len(content):
        content.extend(bytes(start - len(content)))
    content[start : start + len(data)] = data


def _fate(operation: Operation, rng: random.Random) -> Iterator[Operation]:
    """What becomes of an operation that was not synced: all of it, nothing, or (of a write) some of its sectors."""
    fate = rng.choice(("kept", "lost", "torn"))
    if fate == "kept" or (fate == "torn" and operation.kind == "truncate" and rng.random() < 0.5):
        yield operation
    elif fate == "torn" and operation.kind == "write":
        start, end = operation.offset, operation.offset + len(operation.data)
        while start < end:
            next_sector = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
            if rng.random() < 0.5:
                data = operation.data[start - operation.offset : next_sector - operation.offset]
                yield Operation("write", operation.file, start, data)
            start = next_sector


class Disk:
    """A folder as the operations applied so far have left it.

    Args:
        before: what it holds for certain at the beginning.
    """

    def __init__(self, before: Image | None = None) -> None:
        self._now = {name: _Inode(data) for name, data in (before or {}).items()}
        self._safe = dict(self._now)
        self._later: list[tuple[str, _Inode | None]] = []

    def apply(self, operation: Operation) -> None:
        """Do the next operation."""
        file = operation.file
        if operation.kind == "sync_folder":
            self._safe = dict(self._now)
            self._later = []
        elif operation.kind == "create":
            self._now[file] = _Inode()
            self._later.append((file, self._now[file]))
        elif operation.kind == "delete":
            del self._now[file]
            self._later.append((file, None))
        elif operation.kind == "sync":
            self._now[file].sync()
        else:
            self._now[file].later.append(operation)

    @property
    def folder_safe(self) -> bool:
        """Whether every file created or deleted so far is so for good."""
        return not self._later

    def whole(self) -> Image:
        """Everything: what is found after the death of the process alone."""
        return {name: inode.now() for name, inode in self._now.items()}

    def clean(self) -> list[Image]:
        """Every file up to its last sync; once with the folder as it was synced, once as it is now."""
        folders = [self._safe, self._now] if self._later else [self._now]
        return [{name: bytes(inode.safe) for name, inode in folder.items()} for folder in folders]

    def torn(self, rng: random.Random) -> Image:
        """The same with some of what came later."""
        folder = dict(self._safe)
        for name, inode in self._later:
            if rng.random() < 0.5:
                if inode is None:
                    folder.pop(name, None)
                else:
                    folder[name] = inode
        return {name: inode.torn(rng) for name, inode in folder.items()}
