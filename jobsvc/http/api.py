"""F3: the application: guards, then Klein's routing, then one handler; every refusal becomes a problem document.

Composition of the edge; nothing about jobs is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from klein import Klein
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import BaseConverter, Map

from jobsvc.engine.engine import Engine
from jobsvc.http.auth import Gate
from jobsvc.http.conditions import etag
from jobsvc.http.contract.served import contract
from jobsvc.http.edge import Daemon, Edge, InThread
from jobsvc.http.hosts import HostGuard
from jobsvc.http.limits import ENVELOPE_BYTES
from jobsvc.http.problems import internal
from jobsvc.http.query import NOTHING, parse_query
from jobsvc.http.request import Request, as_request
from jobsvc.http.routes import Route
from jobsvc.http.site import Site
from jobsvc.model.access import Scope
from jobsvc.model.errors import JobsvcError
from jobsvc.model.ids import parse_id
from jobsvc.model.limits import JSON_BODY_MAX_BYTES

Endpoint = Callable[..., Any]
_PART = re.compile(r"\{(\w+)\}")


START_RETRY_S = 1
"""A start takes about as long as Python's imports in the workers."""


class Api:
    """The application behind a `Site`.

    Args:
        edge: what handlers share.
        token: the bearer token, as text.
        hosts: names this server answers to, beside loopback and its own addresses.
    """

    def __init__(self, edge: Edge, token: str, hosts: Iterable[str]) -> None:
        self.edge = edge
        self._gate = Gate(token)
        self._hosts = HostGuard(hosts)
        self.routes = contract().routes
        self._streaming = frozenset((r.method.encode(), r.path.encode()) for r in self.routes if r.streams)
        app = Klein()
        # Exactly the paths of the table: no redirects to merged or slashed ones.
        app.url_map.merge_slashes = False
        app.url_map.converters["but"] = But
        beside = words_beside_parts(self.routes)
        for route in self.routes:
            app.route(_rule(route.path, beside), methods=[route.method], endpoint=route.name)(
                self._endpoint(route)
            )
        app.handle_errors(HTTPException)(self._unrouted)
        self._resource = app.resource()

    # -- Application

    def handle(self, request: Request) -> None:
        """Guard, route, answer."""
        try:
            self._hosts.check(request)
            self._gate.admit(request)
            if b"%" in request.path or not request.path.isascii() or request.path.startswith(b"//"):
                _check_path(request.path)
            self._resource.render(request)
        except JobsvcError as error:
            request.refuse(error)

    def streams_body(self, method: bytes, path: bytes) -> bool:
        """Whether this request's body is taken as it arrives."""
        return (method, path) in self._streaming

    def observe(self, request: Request, elapsed_s: float) -> None:
        """A request has been answered."""
        # Methods nobody serves are lumped together: a client must not be able to make endless series.
        method = request.method.decode("ascii", "replace") if request.route_name != "none" else "other"
        self.edge.metrics.observe(request.route_name, method, request.code, elapsed_s)

    # -- inside

    def _unrouted(self, request: IRequest, failure: Failure) -> bytes:
        """Klein found no route, or none for the method."""
        ours = as_request(request)
        if isinstance(failure.value, MethodNotAllowed):
            allowed = ", ".join(sorted(failure.value.valid_methods or ()))
            ours.header(b"Allow", allowed.encode())
            return ours.problem(JobsvcError("method_not_allowed", f"Allowed here: {allowed}."))
        return ours.problem(
            JobsvcError("not_found", "There is nothing at this path; GET /openapi.json lists what there is.")
        )

    def _endpoint(self, route: Route) -> Endpoint:
        """What Klein calls for `route`."""
        edge, handler, parameters, name = self.edge, route.handler, route.query, route.name
        scope = route.scope
        needs_store = route.path.startswith("/v1/")

        async def endpoint(request: Request, **path: Any) -> bytes:
            request.route_name = name
            try:
                _check_scope(request, scope)
                if needs_store:
                    _check_started(edge)
                query = parse_query(request.query, parameters) if request.query else NOTHING
                if "job_id" in path:
                    path["job_id"] = _job_id(path["job_id"])
                return await handler(edge, request, query, **path)
            except CancelledError:
                raise  # the client has left; Klein expects this
            except JobsvcError as error:
                return await _refused(request, error)
            except Exception:  # noqa: BLE001 - logged with its traceback, answered with its number
                return await _refused(request, internal(Failure(), name))

        endpoint.__name__ = name
        return endpoint


async def _refused(request: Request, error: JobsvcError) -> bytes:
    """The refusal as the reply; where one has begun already, its cut."""
    if request.startedWriting:
        await request.cut()
    if error.code == "stale":
        request.header(b"ETag", etag(error.context["revision"]))
    return request.problem(error)


def _check_scope(request: Request, scope: Scope | None) -> None:
    if scope is None:
        return
    if request.principal is None or not request.principal.may(scope):
        raise JobsvcError("forbidden", f"The token lacks the scope {scope!r}.")


def _check_started(edge: Edge) -> None:
    if not edge.engine.started:
        raise JobsvcError("overloaded", "The daemon is starting.", retry_after_s=START_RETRY_S)


def _job_id(text: str) -> bytes:
    job_id = parse_id(text)
    if job_id is None:
        raise JobsvcError("not_found", "There is no such job: its id is a UUID in lower case.")
    return job_id


def _check_path(path: bytes) -> None:
    """Klein logs a failure for every path that is not UTF-8, and takes `//x` for `/x`: such ones never get there."""
    try:
        unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise JobsvcError("not_found", "The path is not UTF-8.") from None
    if path.startswith(b"//"):
        raise JobsvcError("not_found", "The path begins with two slashes.")


def _rule(path: str, beside: Mapping[str, set[str]]) -> str:
    """The path in Werkzeug's spelling.

    A word that other routes have in the place of `{name}` is no name: what its path lacks is a method (405 with those
    it has), not a thing of that name (404).
    """

    def part(found: re.Match[str]) -> str:
        words = beside.get(path[: found.start()])
        return f"<but({', '.join(sorted(words))}):{found[1]}>" if words else f"<{found[1]}>"

    return _PART.sub(part, path)


def words_beside_parts(routes: Iterable[Route]) -> Mapping[str, set[str]]:
    """What stands before each `{name}` of a path → the words that other routes have in its place."""
    paths = [route.path for route in routes]
    before = {path[: found.start()] for path in paths for found in _PART.finditer(path)}
    beside: dict[str, set[str]] = {}
    for path in paths:
        for start in before:
            word = path[len(start) :].partition("/")[0]
            if path.startswith(start) and word and not word.startswith("{"):
                beside.setdefault(start, set()).add(word)
    return beside


class But(BaseConverter):
    """Any part of a path but these words."""

    def __init__(self, url_map: Map, *words: str) -> None:
        super().__init__(url_map)
        self.regex = rf"(?!(?:{'|'.join(map(re.escape, words))})\Z)[^/]+"


def build_site(
    engine: Engine,
    daemon: Daemon,
    clock: IReactorTime,
    in_thread: InThread,
    *,
    token: str,
    hosts: Iterable[str] = (),
) -> Site:
    """The HTTP edge, ready to be listened with.

    Args:
        clock: deadlines, heartbeats, slices; the reactor in a daemon.
        in_thread: runs a function off the reactor (`NamedPool.run`): the metrics' text is made there.
        token: what clients must bring.
        hosts: names that clients may call this server by, beside loopback and the address they came in on.
    """
    body_max_bytes = max(JSON_BODY_MAX_BYTES, engine.config.args_max_bytes + ENVELOPE_BYTES)
    edge = Edge(engine, daemon, clock, body_max_bytes, in_thread)
    site = Site(Api(edge, token, hosts), clock, engine.now_us, body_max_bytes=body_max_bytes)
    edge.metrics.open_connections = lambda: len(site.channels)
    return site
