"""F3: one request: its body within the caps, its reply in one write, an upload handed on as it arrives.

Takes over the parts of twisted.web's request that cost or that have no limit: bodies never go to temporary files,
forms are never parsed, reply headers are bytes from the start. Knows nothing of jobs.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.iweb import INonQueuedRequestFactory
from zope.interface import provider

from jobsvc.http import framing
from jobsvc.http.limits import (
    DISCARD_BYTES,
    REPLIES_HELD_BYTES,
    REQUEST_ID_MAX_CHARS,
    WRITE_SLICE_BYTES,
)
from jobsvc.http.problems import MEDIA, encoded, internal, status_of
from jobsvc.http.slices import Slices
from jobsvc.http.upload import Upload
from jobsvc.model.access import Principal
from jobsvc.model.errors import Code, JobsvcError

if TYPE_CHECKING:
    from jobsvc.http.channel import Channel
    from jobsvc.http.site import Site

STATUS_LINES: dict[int, bytes] = {
    status: b"HTTP/1.1 %d %s\r\n" % (status, reason) for status, reason in http.RESPONSES.items()
} | {
    413: b"HTTP/1.1 413 Content Too Large\r\n",
    421: b"HTTP/1.1 421 Misdirected Request\r\n",
    422: b"HTTP/1.1 422 Unprocessable Content\r\n",
    424: b"HTTP/1.1 424 Failed Dependency\r\n",
    428: b"HTTP/1.1 428 Precondition Required\r\n",
    429: b"HTTP/1.1 429 Too Many Requests\r\n",
    431: b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
}
_FIXED = (
    b"Server: jobsvc\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
    b"X-Request-ID: %b\r\nDate: %b\r\n"
)
_BODYLESS = frozenset((204, 304))
_SLICED_BYTES = 2 * WRITE_SLICE_BYTES
"""Replies up to this size go out in one write."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,%d}" % REQUEST_ID_MAX_CHARS)
_UNSAFE = re.compile(rb"[\x00\r\n]")


def status_line(status: int, request_id: bytes, date: bytes) -> bytes:
    """The first line and the headers that every reply has."""
    return STATUS_LINES[status] + _FIXED % (request_id, date)


@provider(INonQueuedRequestFactory)
class Request(server.Request):
    """See the module.

    Attributes:
        query: what stands behind the question mark, undecoded.
        authority: the server that the request line names by itself; None when only the Host header does.
        body_done: the whole body has been received.
        expects: the client waits for 100 Continue before it sends the body.
        upload: set for routes that take their body as it arrives.
        principal: who asks; set before routing, None only where no token is needed.
        target: what it changes, as the audit log names it; `counts`: how many of how many, of a bulk upload.
        audited: the audit log has it.
        route_name: for the metrics; the pattern of the route, never the path.
        refusal: the code of the problem that the reply carries.
    """

    channel: Channel
    site: Site
    path: bytes = b""
    query: bytes = b""
    authority: bytes | None = None
    length: int | None = 0
    received_bytes = 0
    body_done = False
    expects = False
    _counted_bytes = 0
    upload: Upload | None = None
    route_name = "none"
    refusal: Code | None = None
    started_s = 0.0
    _finishing = False
    _held_bytes = 0
    principal: Principal | None = None
    target: str | None = None
    counts: tuple[int, int] | None = None
    audited = False

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel, parsePOSTFormSubmission=False)
        self.site = channel.site
        self._body: bytes | bytearray = b""
        self._refusal: JobsvcError | None = None  # told when the body has been read away
        self._slices: Slices | None = None
        self._head: list[bytes] = []
        self._sized = False
        self._id: bytes | None = None

    # -- receiving

    def begin(self, method: bytes, uri: bytes, version: bytes, length: int | None) -> None:
        """The head is complete; `length` None means chunked. What the head alone refuses never gets its body read.

        A request without body, or with one so short that it is read away quicker than a connection is made anew, is
        answered when it is whole.
        """
        self.method, self.uri, self.clientproto, self.length = method, uri, version, length
        site = self.site
        self.started_s = site.reactor.seconds()
        self._refusal = self._judged()
        if length == 0:
            return
        if self._refusal is not None:
            if length is None or length > DISCARD_BYTES or self.requestHeaders.hasHeader(b"expect"):
                self.refuse(self._refusal)
        elif site.streams_body(method, self.path):
            site.crowd.proved(self.channel)
            self.upload = Upload(self.channel)
            self.process()
        # With Expect the client has not sent its body yet: nothing needs to be read away.
        elif length is not None and length > (
            site.body_max_bytes if self.expects else site.body_hard_max_bytes
        ):
            self.refuse(self._too_large())
        elif length is not None and (refusal := site.budget.refusal(length)) is not None:
            self.refuse(refusal)

    def _judged(self) -> JobsvcError | None:
        """What is wrong with it, by its head."""
        try:
            if self.uri.startswith(b"/"):
                self.path, _, self.query = self.uri.partition(b"?")
            else:
                self.path, self.query, self.authority = framing.other_target(self.method, self.uri)
            expectations = self.requestHeaders.getRawHeaders(b"expect")
            if expectations is not None and self.clientproto == b"HTTP/1.1":
                framing.check_expectations(expectations)
                self.expects = True
            self.site.application.admit(self)
        except JobsvcError as error:
            return error
        except Exception:  # noqa: BLE001 - the last line of defence; the traceback goes to the log
            return internal(Failure(), "admission")
        return None

    def handleContentChunk(self, data: bytes) -> None:
        """A piece of the body: kept up to the limit, thrown away above it, cut off far above it."""
        if self.finished:
            return
        if self.upload is not None:
            self.upload.data(data)
            return
        self.received_bytes += len(data)
        if self._refusal is not None:
            if self.received_bytes > self.site.body_hard_max_bytes:
                self.refuse(self._refusal)
        elif self.received_bytes > self.site.body_max_bytes:
            self.release_body()
            self._refusal = self._too_large()
        else:
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        """One more piece, if all connections together do not hold too much already."""
        if not self._body:
            self._body = data
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data
        self._counted_bytes += len(data)
        budget, counted = self.site.budget, self._counted_bytes
        budget.take(len(data))
        if (refusal := budget.refusal(counted, held=counted)) is not None:
            self.refuse(refusal)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The body is complete."""
        self.body_done = True
        if self.upload is not None:
            self.upload.end()
        elif self._refusal is not None:
            self.refuse(self._refusal)
        else:
            if self.principal is not None:
                self.site.crowd.proved(self.channel)
            self.process()

    def streamed(self) -> Upload:
        """The body of a route that takes it as it arrives.

        When there was none, or its path was spelt so that the route was not foreseen, it has ended already.
        """
        if self.upload is None:
            self.upload = Upload(self.channel)
            if self._body:
                self.upload.data(self.body())
            self.upload.end()
        return self.upload

    def body(self) -> bytes:
        """The whole body."""
        if isinstance(self._body, bytearray):
            self._body = bytes(self._body)
        return self._body

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
    def asker(self) -> Principal:
        """Who asks, on a route that needs a token."""
        assert self.principal is not None  # the gate has seen to it
        return self.principal

    @property
    def tenant(self) -> str:
        """Whose jobs this request sees and makes."""
        return self.asker.tenant

    @property
    def client_address(self) -> str:
        """Who sent it: an IP address, `unix`, or behind a proxy of ours what that names last."""
        if self.site.behind_proxy:
            hops = self.requestHeaders.getRawHeaders(b"x-forwarded-for")
            if hops:
                last = hops[-1].rpartition(b",")[2].partition(b"%")[0].strip().decode("ascii", "replace")
                try:
                    return str(ip_address(last))
                except ValueError:
                    pass  # not what a proxy writes: the peer itself it is
        return str(getattr(self.client, "host", "unix"))

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
        """Make it the reply: status, Content-Type and Content-Length. Returns `body`, as handlers do.

        Raises:
            JobsvcError: overloaded, for a large one while too many of them wait for slow readers.
        """
        if len(body) > _SLICED_BYTES and self.site.held_bytes + len(body) > REPLIES_HELD_BYTES:
            raise JobsvcError("overloaded", "Too many large replies are being read slowly.", retry_after_s=5)
        self.code = status
        self._sized = True
        if status not in _BODYLESS:
            self._head.append(b"Content-Type: %b\r\nContent-Length: %d\r\n" % (media, len(body)))
        return body

    def problem(self, error: JobsvcError) -> bytes:
        """Make the refusal the reply. Returns its body."""
        self.refusal = error.code
        retry_after_s = error.context.get("retry_after_s")
        if retry_after_s is not None:
            self.header(b"Retry-After", b"%d" % max(1, -(-retry_after_s // 1)))
        challenge: bytes | None = getattr(error, "challenge", None)
        if challenge is not None:
            self.header(b"WWW-Authenticate", challenge)
        return self.reply(status_of(error), encoded(error, self.request_id.decode()), MEDIA)

    def refuse(self, error: JobsvcError) -> None:
        """Answer with a problem at once, whether head and body are in or not."""
        if not self.started_s:  # the head was never whole
            self.started_s = self.site.reactor.seconds()
        if error.code == "bad_request":
            self.channel.persistent = 0  # who sends one unsound request is not trusted with a second one
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
            elif len(data) > _SLICED_BYTES and self._slices is None and self.producer is None:
                self._write_sliced(pieces, data)
                return
            else:
                pieces.append(data)
        if len(pieces) == 1:
            self.channel.write(pieces[0])
        elif pieces:
            self.channel.writeSequence(pieces)

    def _write_sliced(self, pieces: list[bytes], data: bytes) -> None:
        """A large reply goes out as its client takes it; `finish` waits for its end."""
        self.channel.writeSequence(pieces)
        self._held_bytes = len(data)
        self.site.held_bytes += len(data)
        self._slices = Slices(data, self.channel.write, self._sliced)
        self.registerProducer(self._slices, True)
        self._slices.start()

    def _sliced(self) -> None:
        self._let_go()
        self.unregisterProducer()
        if self._finishing:
            self.finish()

    def _let_go(self) -> None:
        """Nothing is kept of a large reply any more."""
        self._slices = None
        self.site.held_bytes -= self._held_bytes
        self._held_bytes = 0

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone."""
        self.release_body()
        if self._slices is not None:
            self.unregisterProducer()
        self._let_go()
        super().connectionLost(reason)
        self.transport = None

    def finish(self) -> None:
        """All of the reply has been written; what of it waits for a slow client goes out first."""
        self.release_body()
        if self._slices is not None and not self._disconnected:
            self._finishing = True
        else:
            super().finish()
            # It outlives its connection until the next collection; what a client left unread must not.
            self.transport = None

    def _opening(self, *, silent: bool) -> bytes:
        """Status line and headers."""
        head = [status_line(self.code, self.request_id, self.site.date()), *self._head]
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
        """Its body is needed no longer: a reply may yet take long, and Klein's closures keep the request itself, in a
        circle, until the next collection.
        """  # fmt: skip
        self._body = b""
        self._give_back()

    def _give_back(self) -> None:
        if self._counted_bytes:
            self.site.budget.give(self._counted_bytes)
            self._counted_bytes = 0

    def processingFailed(self, reason: Failure) -> Failure:  # noqa: N802 - Twisted's name
        """Klein's last resort; ours is a problem document."""
        if not self.finished and not self._disconnected:
            self.refuse(internal(reason, "handling"))
        return reason


def as_request(request: Any) -> Request:
    """Klein knows only IRequest; on our Site it is always ours."""
    return cast("Request", request)
