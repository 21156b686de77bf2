"""F3: one request: its body within the caps, its reply in one write, an upload handed on as it arrives.

Takes over the parts of twisted.web's request that cost or that have no limit: bodies never go to temporary files,
forms are never parsed, reply headers are bytes from the start. Knows nothing of jobs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.iweb import INonQueuedRequestFactory
from zope.interface import provider

from jobsvc.http.limits import REQUEST_ID_MAX_CHARS
from jobsvc.http.problems import MEDIA, encoded, internal, status_of
from jobsvc.model.access import Principal
from jobsvc.model.errors import JobsvcError

if TYPE_CHECKING:
    from jobsvc.http.site import Channel, Site

STATUS_LINES: dict[int, bytes] = {
    status: b"HTTP/1.1 %d %s\r\n" % (status, reason) for status, reason in http.RESPONSES.items()
} | {
    413: b"HTTP/1.1 413 Content Too Large\r\n",
    421: b"HTTP/1.1 421 Misdirected Request\r\n",
    422: b"HTTP/1.1 422 Unprocessable Content\r\n",
    424: b"HTTP/1.1 424 Failed Dependency\r\n",
    428: b"HTTP/1.1 428 Precondition Required\r\n",
    429: b"HTTP/1.1 429 Too Many Requests\r\n",
}
_FIXED = (
    b"Server: jobsvc\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
    b"X-Request-ID: %b\r\nDate: %b\r\n"
)
_BODYLESS = frozenset((204, 304))
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,%d}" % REQUEST_ID_MAX_CHARS)
_UNSAFE = re.compile(rb"[\x00\r\n]")


class UploadSink(Protocol):
    """Who takes a streamed body."""

    def data(self, data: bytes) -> None:
        """The next piece, in whatever size it came."""

    def ended(self) -> None:
        """The body was complete."""


class Upload:
    """The body of a request that is handled while it arrives. What comes before `attach` is kept."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._sink: UploadSink | None = None
        self._early: list[bytes] = []
        self._ended = False

    def attach(self, sink: UploadSink) -> None:
        """Hand everything to `sink` from now on."""
        self._sink = sink
        early, self._early = self._early, []
        for data in early:
            sink.data(data)
        if self._ended:
            sink.ended()

    def data(self, data: bytes) -> None:
        """From the channel."""
        if self._sink is None:
            self._early.append(data)
        else:
            self._sink.data(data)

    def end(self) -> None:
        """From the channel: the body is complete."""
        self._ended = True
        if self._sink is not None:
            self._sink.ended()

    def pause(self) -> None:
        """Let the sender wait."""
        if not self._ended:
            self._channel.pause_body()

    def resume(self) -> None:
        """Take more."""
        self._channel.resume_body()


@provider(INonQueuedRequestFactory)
class Request(server.Request):
    """See the module.

    Attributes:
        query: what stands behind the question mark, undecoded.
        body_done: the whole body has been received.
        upload: set for routes that take their body as it arrives.
        principal: who asks; set before routing, None only where no token is needed.
        route_name: for the metrics; the pattern of the route, never the path.
    """

    channel: Channel
    site: Site
    query: bytes = b""
    length: int | None = 0
    received_bytes = 0
    body_done = False
    oversize = False
    _held_bytes = 0
    upload: Upload | None = None
    route_name = "none"
    started_s = 0.0
    principal: Principal | None = None

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel, parsePOSTFormSubmission=False)
        self._parts: list[bytes] = []
        self._head: list[bytes] = []
        self._sized = False
        self._id: bytes | None = None

    # -- receiving

    def begin(self, method: bytes, uri: bytes, version: bytes, length: int | None) -> None:
        """The head is complete; `length` None means chunked. A request without body is judged when it is received."""
        self.method, self.uri, self.clientproto, self.length = method, uri, version, length
        self.path, _, self.query = uri.partition(b"?")
        self.site = site = self.channel.site
        self.started_s = site.reactor.seconds()
        if length == 0:
            return
        if site.streams_body(method, self.path):
            self.upload = Upload(self.channel)
            self.process()
            return
        # With Expect the client has not sent its body yet: nothing needs to be read away.
        limit = site.body_max_bytes if self.requestHeaders.hasHeader(b"expect") else site.body_hard_max_bytes
        if length is not None and length > limit:
            self.refuse(self._too_large())
        elif length is not None and (refusal := site.budget.refusal(length)) is not None:
            self.refuse(refusal)

    def handleContentChunk(self, data: bytes) -> None:
        """A piece of the body: kept up to the limit, thrown away above it, cut off far above it."""
        if self.finished:
            return
        if self.upload is not None:
            self.upload.data(data)
            return
        self.received_bytes += len(data)
        if self.received_bytes <= self.site.body_max_bytes:
            self._parts.append(data)
            self._held_bytes += len(data)
            budget, held = self.site.budget, self._held_bytes
            budget.take(len(data))
            if (refusal := budget.refusal(held, held=held)) is not None:
                self.refuse(refusal)
            return
        self.oversize = True
        self.release_body()
        if self.received_bytes > self.site.body_hard_max_bytes:
            self.refuse(self._too_large())

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The body is complete."""
        self.body_done = True
        if self.upload is not None:
            self.upload.end()
        elif self.oversize:
            self.refuse(self._too_large())
        else:
            self.process()

    def streamed(self) -> Upload:
        """The body of a route that takes it as it arrives.

        When there was none, or its path was spelt so that the route was not foreseen, it has ended already.
        """
        if self.upload is None:
            self.upload = Upload(self.channel)
            if self._parts:
                self.upload.data(self.body())
            self.upload.end()
        return self.upload

    def body(self) -> bytes:
        """The whole body."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def process(self) -> None:
        """To the application; nothing it does wrong leaves the client without a reply."""
        self.prepath = []
        self.postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]
        try:
            self.site.application.handle(self)
        except Exception:  # noqa: BLE001 - the last line of defence; the traceback goes to the log
            if not self.finished:
                self.refuse(internal(Failure(), "routing"))

    def getRequestHostname(self) -> bytes:  # noqa: N802 - Twisted's name
        """Klein binds its routes to this; the real Host was judged before, and may be anything."""
        return b"localhost"

    # -- replying

    @property
    def request_id(self) -> bytes:
        """The client's X-Request-ID when it is harmless, else one of ours."""
        if self._id is None:
            given = self.requestHeaders.getRawHeaders(b"x-request-id")
            if given is not None and len(given) == 1 and _REQUEST_ID.fullmatch(given[0]):
                self._id = given[0]
            else:
                self._id = self.site.next_request_id()
        return self._id

    @property
    def tenant(self) -> str:
        """Whose jobs this request sees and makes."""
        assert self.principal is not None  # every route that knows jobs needs a token
        return self.principal.tenant

    @property
    def gone(self) -> bool:
        """Whether the client has left."""
        return bool(self._disconnected)

    def header(self, name: bytes, value: bytes) -> None:
        """Add a reply header."""
        if _UNSAFE.search(value):
            raise ValueError("a header value with a line break")
        self._head.append(b"%b: %b\r\n" % (name, value))

    def reply(self, status: int, body: bytes, media: bytes) -> bytes:
        """Make it the reply: status, Content-Type and Content-Length. Returns `body`, as handlers do."""
        self.code = status
        self._sized = True
        if status not in _BODYLESS:
            self._head.append(b"Content-Type: %b\r\nContent-Length: %d\r\n" % (media, len(body)))
        return body

    def problem(self, error: JobsvcError) -> bytes:
        """Make the refusal the reply. Returns its body."""
        retry_after_s = error.context.get("retry_after_s")
        if retry_after_s is not None:
            self.header(b"Retry-After", b"%d" % max(1, -(-retry_after_s // 1)))
        if error.code == "unauthenticated":
            self.header(b"WWW-Authenticate", b'Bearer realm="jobsvc"')
        return self.reply(status_of(error), encoded(error, self.request_id.decode()), MEDIA)

    def refuse(self, error: JobsvcError) -> None:
        """Answer with a problem at once, whether the body is in or not."""
        self.write(self.problem(error))
        self.finish()

    def stream(self, status: int, media: bytes) -> None:
        """A reply of unknown length begins: its head goes out at once, so that the client knows it was heard."""
        self.code = status
        self._head.append(b"Content-Type: %b\r\nX-Accel-Buffering: no\r\n" % media)
        self.write(b"")

    async def cut(self) -> None:
        """End a reply that has begun without the mark of a clean end: the client must not take it for whole.

        Never returns: the handler is cancelled when the connection is gone.
        """
        self.channel.cut()
        await Deferred()

    def write(self, data: bytes) -> None:
        """A piece of the reply; the first one takes the head along."""
        if self.finished:
            raise RuntimeError("write after finish")
        if self._disconnected:
            return
        silent = self.method == b"HEAD" or self.code in _BODYLESS
        pieces = []
        if not self.startedWriting:
            self.startedWriting = 1
            pieces.append(self._opening(silent=silent))
        if data and not silent:
            self.sentLength += len(data)
            if self.chunked:
                pieces += (b"%x\r\n" % len(data), data, b"\r\n")
            else:
                pieces.append(data)
        if len(pieces) == 1:
            self.channel.write(pieces[0])
        elif pieces:
            self.channel.writeSequence(pieces)

    def _opening(self, *, silent: bool) -> bytes:
        """Status line and headers."""
        head = [STATUS_LINES[self.code], _FIXED % (self.request_id, self.site.date()), *self._head]
        if not self.body_done:
            # What is left of the body cannot be told from a next request: this connection ends with the reply.
            self.channel.persistent = 0
        if not self._sized and not silent:
            if self.clientproto == b"HTTP/1.1":
                self.chunked = 1
                head.append(b"Transfer-Encoding: chunked\r\n")
            else:
                self.channel.persistent = 0
        if not self.channel.persistent:
            head.append(b"Connection: close\r\n")
        head.append(b"\r\n")
        return b"".join(head)

    def _too_large(self) -> JobsvcError:
        limit = self.site.body_max_bytes
        return JobsvcError("too_large", f"The body is larger than {limit} bytes.")

    def release_body(self) -> None:
        """Its body is needed no longer: a reply may yet take long."""
        self._parts.clear()
        self._give_back()

    def _give_back(self) -> None:
        if self._held_bytes:
            self.site.budget.give(self._held_bytes)
            self._held_bytes = 0

    def finish(self) -> None:
        """The reply is complete."""
        self._give_back()
        super().finish()

    def connectionLost(self, reason: Failure) -> None:
        """The client has left."""
        self._give_back()
        super().connectionLost(reason)

    def processingFailed(self, reason: Failure) -> Failure:  # noqa: N802 - Twisted's name
        """Klein's last resort; ours is a problem document."""
        if not self.finished and not self._disconnected:
            self.refuse(internal(reason, "handling"))
        return reason


def as_request(request: Any) -> Request:
    """Klein knows only IRequest; on our Site it is always ours."""
    return cast("Request", request)
