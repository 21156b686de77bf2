"""Another start of a daemon on the same store, with the file of its first token."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from jobsvc.http.api import build_site
from jobsvc.model.errors import CannotWrite
from tests.http.house import House
from tests.http.wire import TOKEN, Wire


class Drawer:
    """Holds the first token's file, in memory."""

    def __init__(self, clock: Clock) -> None:
        self.made_at = 1_790_000_000_000_000
        self.text: str | None = TOKEN
        self.full = False

    def write(self, text: str) -> Deferred[None]:
        if self.full:
            raise CannotWrite("disk_full", "The token was not changed: the disk is full.")
        self.text = text
        return succeed(None)

    def remove(self) -> Deferred[None]:
        self.text = None
        return succeed(None)


class Again:
    """Another start of the daemon on the same store, with the file of the first token."""

    def __init__(self, house: House, *, load: bool = True, store: Any = None) -> None:
        self.drawer = Drawer(house.clock)
        self.site = build_site(
            house.engine,
            house,
            house.clock,
            lambda make: succeed(make()),
            token=TOKEN,
            token_file=self.drawer,
        )
        self.registry = self.site.application.edge.registry  # type: ignore[attr-defined]
        if load:
            Deferred.fromCoroutine(self.registry.load())

    def ask(self, method: str, target: str, token: str) -> Any:
        wire = Wire(self.site)
        wire.request(method, target, token=token)
        self.site.stopFactory()
        return wire.reply()

    def status(self, token: str) -> int:
        status: int = self.ask("GET", "/v1/info", token).status
        return status
