"""F1: whom the running code works for: read by the logs, set where the work of a request or of one job begins.

Context variables travel along awaits and, by `NamedPool`, into its threads.
"""

from __future__ import annotations

from contextvars import ContextVar

REQUEST_ID: ContextVar[str | None] = ContextVar("jobsvc_request_id", default=None)
"""The id of the HTTP request that is being handled."""
JOB_ID: ContextVar[str | None] = ContextVar("jobsvc_job_id", default=None)
"""The id of the job that a request names in its path."""
