"""F2: what the workers of a kind are told at their start, and the command line that tells them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Literal

import msgspec

from jobsvc.pool.launcher import PACKAGE_DIR

CHANNEL_FD = 3
MARK_FD = 4
"""Where a worker finds them; 0, 1 and 2 are what they always are."""

HostKind = Literal["io", "cpu"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What every worker of a kind is told at its start."""

    kind: HostKind
    boot: str
    modules: tuple[str, ...]
    path: tuple[str, ...]
    slots: Mapping[str, int]

    def less(self, without: frozenset[str]) -> Plan:
        """The same without these modules."""
        if not without:
            return self
        kept = tuple(module for module in self.modules if module not in without)
        return msgspec.structs.replace(self, modules=kept)

    def argv(self) -> list[str]:
        """The command line of the worker's program."""
        config = {
            "kind": self.kind,
            "boot": self.boot,
            "modules": self.modules,
            "path": self.path,
            "package_dir": str(PACKAGE_DIR),
            "channel": CHANNEL_FD,
            "mark": MARK_FD,
            "threads": self.slots.get("thread", 0),
        }
        return [
            sys.executable,
            "-m",
            f"jobsvc.worker.{self.kind}",
            "--config",
            msgspec.json.encode(config).decode(),
        ]
