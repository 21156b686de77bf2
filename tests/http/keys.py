"""Tokens for the HTTP tests: made through the API as an operator would, and used by clients of their own."""

from __future__ import annotations

from typing import Any

from tests.http.house import House
from tests.http.wire import Reply, Wire


def bearer(text: str) -> dict[str, str]:
    """The header that brings a token."""
    return {"Authorization": f"Bearer {text}"}


class Key:
    """A token and the client that brings it. `secret` is its whole text."""

    def __init__(self, house: House, view: dict[str, Any]) -> None:
        self.house = house
        self.view = view
        self.secret: str = view["token"]
        self.id: str = view["id"]

    def start(
        self, method: str, target: str, value: Any = None, headers: dict[str, str] | None = None, **more: Any
    ) -> Wire:
        given = {"Authorization": f"Bearer {self.secret}", **(headers or {})}
        return self.house.start(method, target, value, given, **more)

    def ask(
        self, method: str, target: str, value: Any = None, headers: dict[str, str] | None = None, **more: Any
    ) -> Reply:
        return self.start(method, target, value, headers, **more).reply()

    def code(self, method: str, target: str, value: Any = None) -> tuple[int, str]:
        """Status and code of a refusal."""
        reply = self.ask(method, target, value)
        return reply.status, reply.json()["code"]

    def submit(self, task: str = "echo", **fields: Any) -> dict[str, Any]:
        reply = self.ask("POST", "/v1/jobs", {"task": task, **fields})
        assert reply.status == 201, reply
        job: dict[str, Any] = reply.json()
        return job


def key(house: House, *scopes: str, name: str = "test", **fields: Any) -> Key:
    """A new token with these scopes."""
    reply = house.ask("POST", "/v1/tokens", {"name": name, "scopes": list(scopes), **fields})
    assert reply.status == 201, reply
    return Key(house, reply.json())
