"""F2: the store of `durability=memory` and of unit tests: the same SQL on `:memory:`, run at once where it is called.

Nothing leaves the calling thread, and each call is a transaction of its own. All ends with the process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, execute

from jobsvc.ports import Durability
from jobsvc.store.face import StoreFace
from jobsvc.store.sqlite import Call, SqliteStore


class InlineStore(StoreFace):
    """The `Store` with answers that have already fired."""

    durability: Durability = "memory"

    def __init__(self) -> None:
        super().__init__()
        self._store = SqliteStore()

    def open(self) -> Deferred[None]:
        """Create the database."""
        self.figures.opened = True
        return execute(self._store.open)

    def close(self) -> Deferred[None]:
        """Forget everything."""
        return execute(self._store.close)

    def _write(self, kind: str, *args: Any) -> Deferred[Any]:
        return execute(self._group, Call(kind, args))

    def _group(self, call: Call) -> Any:
        (answer,) = self._store.group((call,))
        self._count(self._store.take_refused())
        return answer

    def _read(self, kind: str, *args: Any, **options: Any) -> Deferred[Any]:
        read: Callable[..., Any] = getattr(self._store.reads, kind)
        return execute(read, *args, **options)
