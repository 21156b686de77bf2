"""F2: the token of the data directory while the daemon runs: written and removed in a thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from jobsvc.model.errors import CannotWrite
from jobsvc.store.folder import DataFolder, FolderRefused

InThread = Callable[..., Deferred[Any]]
"""`in_thread(function, *arguments)`: runs it in a thread of a bounded pool (`NamedPool.run`)."""


class TokenFile:
    """See the module.

    Attributes:
        made_at: when its token was made, in microseconds.
    """

    def __init__(self, folder: DataFolder, in_thread: InThread) -> None:
        self._folder = folder
        self._in_thread = in_thread
        self.made_at = folder.token_made_at()

    def write(self, text: str) -> Deferred[None]:
        """Put this token in the place of the one before: whole or not at all. Raises `CannotWrite`."""
        return self._in_thread(self._refusing, self._folder.put_token, text)

    def remove(self) -> Deferred[None]:
        """Take the file away. Raises `CannotWrite`."""
        return self._in_thread(self._refusing, self._folder.drop_token)

    @staticmethod
    def _refusing(change: Callable[..., None], *arguments: str) -> None:
        try:
            change(*arguments)
        except FolderRefused as refused:
            raise CannotWrite("disk_full", f"The token was not changed: {refused}.") from refused
