"""F3: the application: guards, then Klein's routing, then one handler; every refusal becomes a problem document.

Composition of the edge; nothing about jobs is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from secrets import token_bytes
from typing import Any
from urllib.parse import unquote_to_bytes

from klein import Klein
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import BaseConverter, Map

from jobsvc.engine.engine import Engine
from jobsvc.http.auditing import REFUSED, Trail
from jobsvc.http.auth import START_RETRY_S, Gate
from jobsvc.http.conditions import etag
from jobsvc.http.contract.served import contract
from jobsvc.http.edge import Daemon, Edge, InThread
from jobsvc.http.guards import READING, check_method, check_path, check_query_secrets
from jobsvc.http.guessing import WrongTokens
from jobsvc.http.hosts import HostGuard
from jobsvc.http.limits import ENVELOPE_BYTES
from jobsvc.http.narrowing import check_job, check_operator
from jobsvc.http.negotiate import JSON_LINES, check_acceptable
from jobsvc.http.problems import internal
from jobsvc.http.query import NOTHING, parse_query
from jobsvc.http.registry import Registry, TokenFile
from jobsvc.http.request import Request, as_request
from jobsvc.http.route import Route
from jobsvc.http.site import Site
from jobsvc.http.tickets import Tickets
from jobsvc.model.errors import JobsvcError
from jobsvc.model.ids import parse_id
from jobsvc.model.limits import JSON_BODY_MAX_BYTES
from jobsvc.model.tokens import taken_apart
from jobsvc.runtime.context import JOB_ID, REQUEST_ID

Endpoint = Callable[..., Any]
_PART = re.compile(r"\{(\w+)\}")


class Api:
    """The application behind a `Site`.

    Args:
        edge: what handlers share.
        hosts: names this server answers to, beside loopback and its own addresses.

    Attributes:
        access_log: each answered request is logged at level debug, without what stands behind its question mark.
    """

    _log = Logger()
    access_log = False

    def __init__(self, edge: Edge, hosts: Iterable[str]) -> None:
        self.edge = edge
        self.routes = contract().routes
        self.gate = Gate(
            edge.registry,
            edge.tickets,
            WrongTokens(edge.clock),
            edge.engine.now_us,
            [route.path.encode() for route in self.routes if route.scope is None],
        )
        self._hosts = HostGuard(hosts)
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
        self._scopes = {route.name: route.scope for route in self.routes}
        self._map = app.url_map.bind("localhost")
        self._allow = ", ".join(sorted({"HEAD", *(route.method for route in self.routes)})).encode()

    # -- Application

    def admit(self, request: Request) -> None:
        """Guard: by host, origin, token, method and spelling of the path. See `Application`."""
        self._hosts.check(request)
        check_query_secrets(request.query)
        self.gate.admit(request)
        check_method(request, self._allow)
        if b"%" in request.path or request.path.startswith(b"//"):
            check_path(request.path)
        if request.expects:
            self._check_route(request)

    def handle(self, request: Request) -> None:
        """Route, answer."""
        outside = REQUEST_ID.set(request.request_id.decode())  # what is logged for it, now or later, says so
        try:
            self._resource.render(request)
        finally:
            REQUEST_ID.reset(outside)

    def streams_body(self, method: bytes, path: bytes) -> bool:
        """Whether this request's body is taken as it arrives."""
        return (method, path) in self._streaming

    def observe(self, request: Request, elapsed_s: float) -> None:
        """A request has been answered."""
        # Methods nobody serves are lumped together: a client must not be able to make endless series.
        method = request.method.decode("ascii", "replace") if request.route_name != "none" else "other"
        if self.edge.trail is not None and request.code in REFUSED:
            self.edge.trail.refused(request)
        self.edge.metrics.observe(request.route_name, method, request.code, elapsed_s)
        if request.refusal is not None:
            self.edge.engine.counters["http_refusals", request.refusal] += 1
        if self.access_log:
            self._log.debug(
                "{peer} {method} {path} {status} in {elapsed_s:.4f} s",
                peer=request.client_address,
                method=method,
                path=request.path.decode(errors="backslashreplace"),
                status=request.code,
                elapsed_s=elapsed_s,
                route=request.route_name,
                request_id=request.request_id,
                action="access",
            )

    # -- inside

    def _check_route(self, request: Request) -> None:
        """What routing would refuse, before the client is told to send its body."""
        path = unquote_to_bytes(request.path).decode()
        try:
            name, _ = self._map.match(path, method=request.method.decode("ascii"))
        except HTTPException as error:
            raise _no_route(request, error) from None
        self.gate.check_scope(request, self._scopes[name])

    def _unrouted(self, request: IRequest, failure: Failure) -> bytes:
        """Klein found no route, or none for the method."""
        ours = as_request(request)
        return ours.problem(_no_route(ours, failure.value))

    def _endpoint(self, route: Route) -> Endpoint:
        """What Klein calls for `route`."""
        edge, handler, parameters, name = self.edge, route.handler, route.query, route.name
        shared, check = route.shared, self._checks(route)
        trail = (
            None if route.method.encode() in READING else edge.trail
        )  # what may change something is audited

        async def endpoint(request: Request, **path: Any) -> bytes:
            request.route_name = name
            if path:
                request.target = "/".join(path.values())
            try:
                check(request)
                query = parse_query(request.query, parameters) if request.query else NOTHING
                if "job_id" in path:
                    JOB_ID.set(path["job_id"])  # of this coroutine's own context
                    path["job_id"] = _job_id(path["job_id"])
                if (who := request.principal) is not None and who.narrowed:
                    await check_job(edge, who, path.get("job_id"), shared=shared)
                return await handler(edge, request, query, **path)
            except CancelledError:
                raise  # the client has left; Klein expects this
            except JobsvcError as error:
                return await _refused(request, error)
            except Exception:  # noqa: BLE001 - logged with its traceback, answered with its number
                return await _refused(request, internal(Failure(), name))
            finally:
                if trail is not None:
                    trail.changed(request)

        endpoint.__name__ = name
        return endpoint

    def _checks(self, route: Route) -> Callable[[Request], None]:
        """What must hold before `route` looks at a request: raises else."""
        edge, gate, scope, whole_daemon = self.edge, self.gate, route.scope, route.whole_daemon
        offers = _offers(route)
        needs_store = route.path.startswith("/v1/")

        def check(request: Request) -> None:
            gate.check_scope(request, scope)
            if whole_daemon:
                check_operator(request.asker)
            if offers is not None:
                check_acceptable(request, offers)
            if needs_store:
                _check_started(edge)

        return check


def _no_route(request: Request, error: BaseException | None) -> JobsvcError:
    """Why there is none."""
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        request.header(b"Allow", allowed.encode())
        return JobsvcError("method_not_allowed", f"Allowed here: {allowed}.")
    return JobsvcError("not_found", "There is nothing at this path; GET /openapi.json lists what there is.")


async def _refused(request: Request, error: JobsvcError) -> bytes:
    """The refusal as the reply; where one has begun already, its cut."""
    if request.startedWriting:
        await request.cut()
    if error.code == "stale":
        request.header(b"ETag", etag(error.context["revision"]))
    return request.problem(error)


def _check_started(edge: Edge) -> None:
    if not edge.engine.started:
        raise JobsvcError("overloaded", "The daemon is starting.", retry_after_s=START_RETRY_S)


def _job_id(text: str) -> bytes:
    job_id = parse_id(text)
    if job_id is None:
        raise JobsvcError("not_found", "There is no such job: its id is a UUID in lower case.")
    return job_id


def _offers(route: Route) -> frozenset[bytes] | None:
    """The media types that the route answers in; None where Accept does not matter.

    Health checks come from programs that send any Accept, and get their answer.
    """
    media = {kind.encode() for answer in route.answers.values() for kind in answer.media}
    if not media or route.scope is None:
        return None
    return frozenset(media | JSON_LINES if media & JSON_LINES else media)


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
    token_file: TokenFile | None = None,
    random_bytes: Callable[[int], bytes] = token_bytes,
    hosts: Iterable[str] = (),
    behind_proxy: bool = False,
    trail: Trail | None = None,
) -> Site:
    """The HTTP edge, ready to be listened with.

    Args:
        clock: deadlines, heartbeats, slices; the reactor in a daemon.
        in_thread: runs a function off the reactor (`NamedPool.run`): the metrics' text is made there.
        token: the first token, which the data directory holds, as text.
        token_file: where it lies; None: it stays as it is while the daemon runs.
        random_bytes: `random_bytes(n)`: n secret random bytes.
        hosts: names that clients may call this server by, beside loopback and the address they came in on.
        behind_proxy: see `Site`.
        trail: the audit log; None = none is kept.
    """
    body_max_bytes = max(JSON_BODY_MAX_BYTES, engine.config.args_max_bytes + ENVELOPE_BYTES)
    first = taken_apart(token)
    if first is None:
        raise ValueError("the first token is none: jobsvc_<id>.<secret> is expected")
    registry = Registry(engine.store, first, token_file, clock, engine.now_us, random_bytes)
    edge = Edge(engine, daemon, clock, body_max_bytes, in_thread, registry, Tickets(random_bytes))
    edge.trail = trail
    site = Site(
        Api(edge, hosts), clock, engine.now_us, body_max_bytes=body_max_bytes, behind_proxy=behind_proxy
    )
    registry.on_ended = lambda token_id: _cut(site, token_id)
    edge.metrics.open_connections = lambda: len(site.channels)
    edge.metrics.add_total(
        "http_connections_refused",
        "Connections turned away, or cut to make room for a newer one, by the limit that was met.",
        ("why",),
        lambda: {(why,): count for why, count in site.crowd.refused.items()},
    )
    return site


def _cut(site: Site, token_id: str) -> None:
    """A token was revoked: what it reads, streams or still sends ends now. A change it had asked for is answered."""
    for channel in tuple(site.channels):
        for request in tuple(channel.requests):
            principal = request.principal
            if principal is None or principal.token != token_id:
                continue
            if request.method in READING or request.producer is not None or not request.body_done:
                channel.transport.abortConnection()  # not after what is still buffered for a slow reader
