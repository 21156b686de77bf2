"""A daemon in memory, as in `tests.http.house`, with an audit log on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, execute

from jobsvc.http.api import Api, build_site
from jobsvc.http.auditing import GATHER_S, AuditTrail
from jobsvc.store.audit_file import AuditFile
from tests.http.house import House
from tests.http.wire import TOKEN


class Audited(House):
    """A daemon in memory whose audit log is real."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.file = AuditFile(folder, self.boot, self.now_us)
        self.trail = AuditTrail(self.clock, self.now_us, execute, self.file, self.store)
        self.site = build_site(self.engine, self, self.clock, execute, token=TOKEN, trail=self.trail)
        assert isinstance(self.site.application, Api)
        self.api = self.site.application
        self.run(self.trail.begin())
        self.run(self.api.edge.registry.load())

    def run(self, coroutine: Any) -> None:
        done: list[object] = []
        Deferred.fromCoroutine(coroutine).addBoth(done.append)
        assert done == [None]

    def records(self) -> list[dict[str, Any]]:
        self.after(GATHER_S)
        return [msgspec.json.decode(line) for line in (self.folder / "audit.log").read_bytes().splitlines()]

    def last(self) -> dict[str, Any]:
        return self.records()[-1]
