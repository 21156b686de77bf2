"""F2: the client of the daemon: `Client` (blocking), `AsyncClient` (asyncio) and `TwistedClient` (Deferreds).

All over one core without I/O. Names are loaded when first used: `Client` and `AsyncClient` bring no Twisted,
`TwistedClient` no httpx2.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobsvc.client.asyncio import AsyncClient
    from jobsvc.client.blocking import Client
    from jobsvc.client.core import Session
    from jobsvc.client.errors import (
        BulkRefused,
        ClientError,
        JobCancelled,
        JobFailed,
        JobLost,
        Refused,
        StreamBroken,
        Unreachable,
        WaitTimeout,
    )
    from jobsvc.client.executor import JobExecutor
    from jobsvc.client.followed import JobFuture
    from jobsvc.client.retrying import Retry
    from jobsvc.client.shapes import Event, Item, Job, JobError, Problem
    from jobsvc.client.twisted import TwistedClient
    from jobsvc.model.places import default_data_dir

_HOMES = {
    "AsyncClient": "jobsvc.client.asyncio",
    "Client": "jobsvc.client.blocking",
    "TwistedClient": "jobsvc.client.twisted",
    "JobExecutor": "jobsvc.client.executor",
    "JobFuture": "jobsvc.client.followed",
    "Session": "jobsvc.client.core",
    "Retry": "jobsvc.client.retrying",
    "default_data_dir": "jobsvc.model.places",
    **dict.fromkeys(("Event", "Item", "Job", "JobError", "Problem"), "jobsvc.client.shapes"),
    **dict.fromkeys(
        (
            "BulkRefused",
            "ClientError",
            "JobCancelled",
            "JobFailed",
            "JobLost",
            "Refused",
            "StreamBroken",
            "Unreachable",
            "WaitTimeout",
        ),
        "jobsvc.client.errors",
    ),
}

__all__ = [
    "AsyncClient",
    "BulkRefused",
    "Client",
    "ClientError",
    "Event",
    "Item",
    "Job",
    "JobCancelled",
    "JobError",
    "JobExecutor",
    "JobFailed",
    "JobFuture",
    "JobLost",
    "Problem",
    "Refused",
    "Retry",
    "Session",
    "StreamBroken",
    "TwistedClient",
    "Unreachable",
    "WaitTimeout",
    "default_data_dir",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
