"""F3: the contract as the daemon serves it: /openapi.json, and /docs for people with a browser. Made once, at start.

/docs needs no token: a browser that is sent to an address cannot bring one. The page is the same for every daemon and
names no version, task, host or job. The document itself, which has the version, keeps its token.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from typing import Any

from jobsvc.http.conditions import tags_of
from jobsvc.http.contract.document import describe
from jobsvc.http.contract.page import CONTENT_SECURITY_POLICY, render
from jobsvc.http.edge import JSON, Edge, encode
from jobsvc.http.query import Query
from jobsvc.http.request import Request
from jobsvc.http.route import Answer, Route
from jobsvc.http.routes import ROUTES

_HTML = b"text/html; charset=utf-8"
_HEADERS = (
    (b"Content-Security-Policy", CONTENT_SECURITY_POLICY.encode()),
    (b"X-Frame-Options", b"DENY"),
    (b"Referrer-Policy", b"no-referrer"),
)


class Entity:
    """Bytes that never change while the daemon runs, with their ETag."""

    def __init__(self, body: bytes, media: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self._body = body
        self._media = media
        self._headers = ((b"ETag", b'"%b"' % sha256(body).hexdigest()[:16].encode()), *headers)

    def reply(self, request: Request) -> bytes:
        """The whole, or 304 to who has it."""
        for name, value in self._headers:
            request.header(name, value)
        known = tags_of(request, b"if-none-match")
        if known is not None and known.includes(self._headers[0][1]):
            return request.reply(304, b"", b"")
        return request.reply(200, self._body, self._media)


class Contract:
    """See the module.

    Args:
        routes: all others.

    Attributes:
        routes: those, and the two that serve the contract.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        unchanged = Answer("Not changed since the ETag of If-None-Match.", media=(), headers=("ETag",))
        self.routes: tuple[Route, ...] = (
            *routes,
            Route(
                method="GET",
                path="/openapi.json",
                name="openapi",
                handler=self.openapi,
                doc="This description.",
                answers={200: Answer("OpenAPI 3.1.", headers=("ETag",)), 304: unchanged},
                headers=("If-None-Match",),
            ),
            Route(
                method="GET",
                path="/docs",
                name="docs",
                handler=self.docs,
                doc="This description as a page for people.",
                answers={200: Answer("The page.", media=("text/html",), headers=("ETag",)), 304: unchanged},
                headers=("If-None-Match",),
                scope=None,
            ),
        )
        document = self.document()
        self._openapi = Entity(encode(document), JSON)
        self._docs = Entity(render(document).encode(), _HTML, _HEADERS)

    def document(self) -> dict[str, Any]:
        """The OpenAPI document as plain data, made anew: only its text is kept."""
        return describe(self.routes)

    async def openapi(self, _edge: Edge, request: Request, _query: Query) -> bytes:
        """`GET /openapi.json`."""
        return self._openapi.reply(request)

    async def docs(self, _edge: Edge, request: Request, _query: Query) -> bytes:
        """`GET /docs`."""
        return self._docs.reply(request)


@cache
def contract() -> Contract:
    """That of all routes there are: the same for every edge of this process."""
    return Contract(ROUTES)
