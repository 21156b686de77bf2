"""F3: what the client calls its request, X-Request-ID and traceparent, to be kept with the jobs it makes."""

from __future__ import annotations

import re

from jobsvc.http.request import Request
from jobsvc.model.job import NO_ORIGIN, Origin

_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, section 3.2: version (not ff), trace id and parent id (not all zeros), flags."""
_LATER = re.compile(_TRACEPARENT.pattern + rb"(?:-[\x21-\x7e]{0,200})?")
"""A version above 00 may have more behind the flags."""


def origin_of(request: Request) -> Origin:
    """The ids that the request brought. One that is malformed, or given twice, is passed over: it is not ours."""
    headers = request.requestHeaders
    traces = headers.getRawHeaders(b"traceparent")
    given = headers.hasHeader(b"x-request-id")
    if traces is None and not given:
        return NO_ORIGIN
    trace = None
    if traces is not None and len(traces) == 1:
        rule = _TRACEPARENT if traces[0].startswith(b"00") else _LATER
        if rule.fullmatch(traces[0]) is not None:
            trace = traces[0].decode()
    # Ours stands in its place where the client's was not fit to be used.
    ours = not given or headers.getRawHeaders(b"x-request-id") != [request.request_id]
    return Origin(None if ours else request.request_id.decode(), trace)
