"""F3: how the daemon is: named checks, each one line, asked when somebody asks. Every room may add its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from twisted.logger import Logger

from jobsvc.ports import WorkerKind

Answer = tuple[bool, str]
"""Whether it is well, and one line for people."""

KINDS: Final[tuple[WorkerKind, ...]] = ("io", "cpu", "command")
HOSTS: Final = frozenset[str](("io", "cpu"))
"""Kinds that run a task module's own code: while none of them is there, nothing is."""


class Check(NamedTuple):
    """One answer. `decides`: without it the daemon is not ready."""

    name: str
    ok: bool
    detail: str
    decides: bool


class Checks:
    """The checks of one daemon, in the order in which they were added."""

    _log = Logger()

    def __init__(self) -> None:
        self._checks: dict[str, tuple[Callable[[], Answer], bool]] = {}

    def add(self, name: str, look: Callable[[], Answer], *, decides: bool = True) -> None:
        """One more; a second of the same name takes the place of the first.

        Args:
            look: runs on the reactor, within a millisecond.
            decides: whether the daemon is not ready while it is not well; else it is only told.
        """
        self._checks[name] = (look, decides)

    def ask(self, *, decides: bool | None = None) -> list[Check]:
        """Ask each, or only those that decide, or only the others. One that raises is not well."""
        return [
            Check(name, *self._asked(name, look), of_weight)
            for name, (look, of_weight) in self._checks.items()
            if decides is None or of_weight == decides
        ]

    def passes(self, name: str) -> bool:
        """Whether this one is well, or has not been added."""
        found = self._checks.get(name)
        return found is None or self._asked(name, found[0])[0]

    def _asked(self, name: str, look: Callable[[], Answer]) -> Answer:
        try:
            return look()
        except Exception as error:  # noqa: BLE001 - whatever it is, the others are to be told
            self._log.failure("the check {name} failed", name=name, action="check_failed")
            return False, f"cannot be told: {type(error).__name__}"


def workers_at_all(workers: Iterable[tuple[str, str]], trouble: str | None) -> Answer:
    """Well while any worker takes attempts: one that is being replaced, or cannot be, leaves the others at work.

    Args:
        workers: (kind, state) of each.
    """
    states = [state for kind, state in workers if kind in HOSTS]
    up = states.count("ready")
    return bool(up), f"{up} of {len(states)} ready" + (f"; {trouble}" if trouble else "")


def workers_of(kind: WorkerKind, workers: Iterable[tuple[str, str]], trouble: str | None) -> Answer:
    """The workers of one kind: well while one of them takes attempts; else why one that should be there is not.

    Args:
        workers: (kind, state) of each.
    """
    states = [state for of, state in workers if of == kind]
    up = states.count("ready")
    words = f"{up} of {len(states)} ready"
    return bool(up), words + (f"; {trouble}" if trouble and up < len(states) and kind != "command" else "")
