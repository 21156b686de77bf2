"""F3: the headers RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers), from a tenant's limits.

They are sent with the reply to a submit, be it taken or refused, once half of a limit is used; in between a client has
no need of them, and `/v1/info` names the limits always. Counted are jobs: a bulk upload counts by its lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from jobsvc.engine.quotas import Limit
from jobsvc.http.request import Request


def tell(request: Request, limits: Sequence[Limit]) -> None:
    """Add both headers to the reply; none when there is nothing to tell."""
    if not limits:
        return
    request.header(b"RateLimit-Policy", ", ".join(map(_policy, limits)).encode())
    request.header(b"RateLimit", ", ".join(map(_state, limits)).encode())


def _policy(limit: Limit) -> str:
    window = "" if limit.window_s is None else f";w={limit.window_s}"
    return f'"{limit.name}";q={limit.quota}{window}'


def _state(limit: Limit) -> str:
    reset = "" if limit.reset_s is None else f";t={ceil(limit.reset_s)}"
    return f'"{limit.name}";r={limit.left}{reset}'
