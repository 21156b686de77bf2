"""F3: one connection: its framing read strictly, its deadlines, and refusals that arrive.

twisted.web answers what it cannot read with a bare 400 or with nothing, and lets heads and bodies take for ever. Here
every refusal is a problem document, after which our side closes, what still comes is discarded, and only then the
connection ends: else the client would find a reset in place of the reply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from twisted.web import http

from jobsvc.http import framing
from jobsvc.http.chunks import Chunks
from jobsvc.http.limits import (
    BODY_GRACE_S,
    BODY_MIN_BYTES_PER_S,
    HEAD_DEADLINE_S,
    HEADERS_COUNT_MAX,
    IDLE_S,
    LINGER_S,
    REQUESTS_PER_CONNECTION,
    WRITE_STALL_S,
)
from jobsvc.http.request import Request
from jobsvc.model.errors import JobsvcError
from jobsvc.model.limits import HEADERS_MAX_BYTES

if TYPE_CHECKING:
    from jobsvc.http.site import Site


_take_line = http.HTTPChannel.lineReceived


class Channel(http.HTTPChannel):
    """See the module.

    Attributes:
        waits_since: since when this side waits for bytes of the client; None while a request is being handled.
        blocked_since: since when the client takes nothing of what is written; None when it does.
        address: whose it is, among those that are counted by address; None for those that are not.
    """

    maxHeaders = HEADERS_COUNT_MAX  # noqa: N815 - Twisted's name
    totalHeadersSize = HEADERS_MAX_BYTES  # noqa: N815 - Twisted's name
    MAX_LENGTH = HEADERS_MAX_BYTES

    site: Site
    factory: Site
    transport: Any  # a TCP or Unix socket, or TLS over one: no interface names all that is used of them
    _networkProducer: Any
    waits_since: float | None = None
    blocked_since: float | None = None
    address: str | None = None
    _receiving = False
    _body_paused = False
    _deaf = False  # whatever still comes is thrown away
    _lingering: IDelayedCall | None = None
    _served = 0
    _secure = False

    # -- life

    def connectionMade(self) -> None:
        """Count it."""
        super().connectionMade()
        self._secure = super().isSecure()
        self.waits_since = self.site.reactor.seconds()
        self.site.arrived(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Forget it."""
        self.site.forget(self)
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        super().connectionLost(reason)

    def isSecure(self) -> bool:  # noqa: N802 - Twisted's name
        """Whether TLS is spoken. Klein asks twice a request; Twisted would look for an adapter each time."""
        return self._secure

    @property
    def between_requests(self) -> bool:
        """Whether nothing of a request has come in that is not whole."""
        return not self._receiving

    def check(self, now: float) -> None:
        """Close it when it is over a limit of time."""
        if self._lingering is not None:
            return
        if self.blocked_since is not None and now - self.blocked_since >= WRITE_STALL_S:
            self.transport.abortConnection()
        elif self.waits_since is not None and now - self.waits_since >= self._allowed_s():
            if self.transport.disconnecting:
                self.transport.abortConnection()  # who asked for half a page may also refuse to take it
            elif self._receiving:
                self.refuse(JobsvcError("request_timeout", "The request has not come in in time."))
            else:
                self.loseConnection()

    def _allowed_s(self) -> float:
        if not self._receiving or self.transport.disconnecting:
            return IDLE_S
        request: Request | None = self.requests[-1] if self.requests else None
        if request is None or self.line_mode:
            return HEAD_DEADLINE_S
        if request.upload is not None:
            return IDLE_S  # a stream may last for hours; `waits_since` moves with every piece
        return BODY_GRACE_S + request.received_bytes / BODY_MIN_BYTES_PER_S

    # -- receiving

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._deaf:
            return
        if not self._handlingRequest:
            if not self._receiving:
                self._receiving = True
                self.waits_since = self.site.reactor.seconds()
            elif self._uploading():
                self.waits_since = None if self._body_paused else self.site.reactor.seconds()
        super().dataReceived(data)
        if self._receiving and not self._busyReceiving and not self._deaf:
            self._look_at_rest()

    def _look_at_rest(self) -> None:
        """The request is not complete: see whether what there is of it can still become one."""
        if self.line_mode:
            rest = self._buffer
            if not rest and not self.requests:
                self._receiving = False  # an empty line before a request is none
                return
            error = None if self.requests else framing.start_error(rest)
            if error is None and b"\n" in rest:
                error = framing.bad_request("A line ends in LF alone; CR LF is expected.")
            if error is not None:
                self.refuse(error)
                return
        self.site.receiving.add(self)

    def lineReceived(self, line: bytes) -> None:
        """A line of the head."""
        if self._deaf:
            return
        error = None
        if not self.requests:
            error = framing.line_error(line) if line else None
        elif line[:1] in framing.FOLDS or line.translate(None, framing.CONTROLS) != line:
            error = framing.field_error(line)
        if error is None:
            _take_line(self, line)
        else:
            self.refuse(error)

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: N802 - Twisted's name
        """A line longer than the whole head may be."""
        if not self._deaf:
            self.refuse(self._too_much_head())

    def _too_much_head(self) -> JobsvcError:
        if not self.requests or len(self._path) > HEADERS_MAX_BYTES // 2:
            return framing.uri_too_long()
        return framing.headers_too_large(
            f"Request line and headers together may have {HEADERS_MAX_BYTES} bytes."
        )

    def _maybeChooseTransferDecoder(self, header: bytes, data: bytes) -> bool:  # noqa: N802 - Twisted's name
        if header not in framing.LENGTHS:
            return True
        error = framing.length_error(header, data, self._version)
        if error is None:
            chosen: bool = super()._maybeChooseTransferDecoder(header, data)
            if chosen and header == b"Transfer-Encoding":
                self._transferDecoder = Chunks(self.requests[-1].handleContentChunk, self._finishRequestBody)
            return chosen
        self.refuse(error)
        self.length = None
        return False

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802 - Twisted's name
        """What twisted.web itself finds wrong."""
        if self._receivedHeaderSize > self.totalHeadersSize:
            self.refuse(self._too_much_head())
        elif self._receivedHeaderCount > self.maxHeaders:
            self.refuse(framing.headers_too_large(f"At most {self.maxHeaders} header lines are taken."))
        elif self.line_mode:
            self.refuse(
                framing.bad_request(
                    "A header is no name, colon and value, or the body's length is given more than once."
                )
            )
        else:
            self.refuse(framing.bad_request("The chunks of the body, or its trailers, are malformed."))

    def rawDataReceived(self, data: bytes) -> None:
        """A piece of the body."""
        if not self._deaf:
            super().rawDataReceived(data)

    def allHeadersReceived(self) -> None:
        """The head is complete. 100 Continue is sent only for what is not already refused."""
        request: Request = self.requests[-1]
        self._served += 1
        connection = request.requestHeaders.getRawHeaders(b"connection")
        self.persistent = (
            self._version == b"HTTP/1.1"
            and self._served < REQUESTS_PER_CONNECTION
            and (connection is None or not framing.closes(connection))
        )
        request.begin(self._command, self._path, self._version, self.length)
        if self.length == 0 or self._deaf:
            return
        if not self._body_paused:
            self.waits_since = request.started_s
        if request.expects and not request.startedWriting:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def allContentReceived(self) -> None:
        """The body is complete."""
        if not self._deaf:
            self._receiving = False
            self.waits_since = None
            super().allContentReceived()

    def pause_body(self) -> None:
        """Stop reading the body."""
        self._body_paused = True
        self.waits_since = None
        self._networkProducer.pauseProducing()

    def resume_body(self) -> None:
        """Read on."""
        if self._body_paused:
            self._body_paused = False
            if self._receiving:
                self.waits_since = self.site.reactor.seconds()
            self._networkProducer.resumeProducing()

    def _uploading(self) -> bool:
        return self._receiving and bool(self.requests) and self.requests[-1].upload is not None

    # -- writing

    def refuse(self, error: JobsvcError) -> None:
        """Answer what could not be read to its end, and close: where a next request would begin is not known."""
        if not self.requests:
            self.requests.append(Request(self))
        request: Request = self.requests[-1]
        if request.upload is None:
            request.refuse(error)
            return
        # Its handler is at work on the part that was sound: it is told that the client is gone.
        self._deaf = True
        if request.startedWriting:
            self.cut()
            return
        request.write(request.problem(error))
        self.site.log(request)
        self._linger(request)
        request.connectionLost(Failure(ConnectionAborted("the body could not be read to its end")))

    def cut(self) -> None:
        """Send what was written, then close, whatever the reply lacks; the sweep aborts a client that reads nothing."""
        self.waits_since = self.site.reactor.seconds()
        self.loseConnection()

    def pauseProducing(self) -> None:
        """The client takes replies too slowly. A body that is being received goes on: the store slows it, not we."""
        if self.blocked_since is None:
            self.blocked_since = self.site.reactor.seconds()
        self._waitingForTransport = True
        if self._requestProducer is not None:
            self._requestProducer.pauseProducing()
        if not self._handlingRequest and not self._uploading():
            self._networkProducer.pauseProducing()

    def resumeProducing(self) -> None:
        """The client has taken what was written."""
        self.blocked_since = None
        self._waitingForTransport = False
        if self._requestProducer is not None:
            self._requestProducer.resumeProducing()
        if not self._handlingRequest and not self._body_paused:
            self._networkProducer.resumeProducing()

    def requestDone(self, request: Request) -> None:  # noqa: N802 - Twisted's name
        """The reply is written."""
        if request.body_done and (self.persistent or not self._dataBuffer):
            self.waits_since = self.site.reactor.seconds()
            super().requestDone(request)
        else:
            self._linger(request)

    def _linger(self, request: Request) -> None:
        """The reply is the last, and more may come: close our side, discard what still comes, then close."""
        self.requests.remove(request)
        self._deaf = True
        self._dataBuffer.clear()
        self.clearLineBuffer()
        self.waits_since = None
        self._networkProducer.unregisterProducer()
        half_close = None if self.isSecure() else getattr(self.transport, "loseWriteConnection", None)
        if half_close is None:  # TLS cannot close one side
            self._lingering = self.callLater(LINGER_S, self._close_softly)
        else:
            half_close()
            self._lingering = self.callLater(LINGER_S, self.transport.abortConnection)
        self.transport.resumeProducing()

    def _close_softly(self) -> None:
        """End TLS in good form; a client that does not answer that is cut off."""
        self._lingering = self.callLater(LINGER_S, self.transport.abortConnection)
        self.transport.loseConnection()
