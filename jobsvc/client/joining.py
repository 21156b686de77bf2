"""F2: submits that are in flight at the same moment, joined into one request. No I/O.

The first submit goes at once and alone. What comes while it is under way goes together as soon as it is answered, as
one bulk request, so the load sets the size of the groups and an idle client waits for nothing. Each line has its own
key, so each is sent again by itself, and each caller gets its own job or its own refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice

import msgspec

from jobsvc.client import calls
from jobsvc.client.asking import Settle
from jobsvc.client.core import Broken, Flow, Pause, Reply, Running, Session
from jobsvc.client.errors import ClientError, Refused, Unreachable
from jobsvc.client.flows import ask, ask_job
from jobsvc.client.lines import LineParser
from jobsvc.client.replies import stranger
from jobsvc.client.retrying import busy_for_now
from jobsvc.client.shapes import Args, BulkLine, Job, Options

JOINED_LINES = 512
"""Of one request: its reply holds whole jobs, half a megabyte of them."""
JOINED_BYTES = 1024 * 1024
"""Of one request; a larger submit goes alone. Those behind it wait no longer than such a body takes."""


Run = Callable[[Flow[None]], Running]


class _Line:
    """One submit: its body, and whom to tell. `settle` is None once that is done, or nobody listens any more."""

    __slots__ = ("body", "request", "settle")

    def __init__(self, body: bytes, settle: Settle) -> None:
        self.body = body
        self.settle: Settle | None = settle
        self.request: _Request | None = None

    def tell(self, outcome: Job | Exception) -> None:
        settle, self.settle = self.settle, None
        if settle is not None:
            settle(outcome)


class _Request:
    """Lines that went together. It is given up when the last of their callers has left."""

    def __init__(self, lines: list[_Line]) -> None:
        self.lines = lines
        for line in lines:
            line.request = self
        self.under_way = True  # holds up those behind it
        self.running: Running | None = None

    def abandoned(self) -> bool:
        return all(line.settle is None for line in self.lines)


class Joiner:
    """Sends submits, each with a key of its own; one request is under way at a time.

    Args:
        run: starts a flow and returns at once; may run it to its end before. The flow raises nothing.
    """

    def __init__(self, session: Session, run: Run) -> None:
        self._session = session
        self._run = run
        self._waiting: dict[_Line, None] = {}  # in order
        self._under_way: _Request | None = None
        self._requests: set[_Request] = set()  # also those that pause
        self._going = False

    def submit(self, task: str, args: Args, options: Options, settle: Settle) -> Callable[[], None]:
        """Send a submit; `settle` is called once, with the job or with what came instead of it.

        Returns: gives the request up, as far as nobody else shares it. A job already accepted stays.

        Raises:
            TypeError, ValueError: what JSON cannot hold.
        """
        body = calls.submission(task, args, options)
        body.setdefault("key", self._session.new_key())
        line = _Line(calls.encode(body), settle)
        self._waiting[line] = None
        self._go()
        return partial(self._leave, line)

    def close(self) -> None:
        """Give up everything; who still waits hears `Unreachable`."""
        requests, self._requests = self._requests, set()
        lines = [*self._waiting, *(line for request in requests for line in request.lines)]
        self._waiting.clear()
        for line in lines:
            line.tell(_closed())
        for request in requests:
            if request.running is not None:
                request.running.cancel()

    def _go(self) -> None:
        """Send what waits, if nothing is under way."""
        if self._going:
            return  # a request was answered at once: the loop below goes on with the next
        self._going = True
        while self._under_way is None and self._waiting:
            request = self._under_way = _Request(self._taken())
            self._requests.add(request)
            request.running = self._run(self._carried(request))
        self._going = False

    def _taken(self) -> list[_Line]:
        """The lines of the next request."""
        lines: list[_Line] = []
        size = 0
        for line in islice(self._waiting, JOINED_LINES):
            size += len(line.body)
            if lines and size > JOINED_BYTES:
                break
            lines.append(line)
        for line in lines:
            del self._waiting[line]
        return lines

    def _landed(self, request: _Request) -> None:
        """Let those behind it go: it is answered, or pauses before another try."""
        if request.under_way:
            request.under_way = False
            self._under_way = None
            self._go()

    def _leave(self, line: _Line) -> None:
        line.settle = None
        if line.request is None:
            self._waiting.pop(line, None)
        elif line.request.abandoned() and line.request.running is not None:
            line.request.running.cancel()

    def _carried(self, request: _Request) -> Flow[None]:
        """The flow of a request, watched: who waits behind it is let go, and every caller is told."""
        lines = request.lines
        flow = self._alone(lines[0]) if len(lines) == 1 else self._together(lines)
        outcome: Exception = _closed()
        try:
            step = next(flow)
            while True:
                if isinstance(step, Pause):
                    self._landed(request)
                try:
                    answer = yield step
                except Broken as broken:
                    step = flow.throw(broken)
                else:
                    step = flow.send(answer)
        except StopIteration:
            outcome = ClientError("the daemon's reply says nothing of this submit")
        except Exception as error:  # noqa: BLE001 - goes to every caller whose job it concerns
            outcome = error
        finally:
            flow.close()
            self._requests.discard(request)
            self._landed(request)
            for line in lines:
                line.tell(outcome)

    def _alone(self, line: _Line) -> Flow[None]:
        line.tell((yield from ask_job(self._session, calls.submit_encoded(line.body, repeatable=True))))

    def _together(self, lines: list[_Line]) -> Flow[None]:
        """One bulk request; lines refused for load alone are sent again, after as long as the daemon asks for."""
        tried = 0
        while lines:
            body = b"\n".join([line.body for line in lines])
            reply = yield from ask(self._session, calls.bulk(body, full=True, repeatable=True))
            busy: dict[_Line, Refused] = {}
            for found in _rows(reply, len(lines)):
                line = lines[found.line - 1]
                if found.problem is not None:
                    refused = Refused(found.problem)
                    if busy_for_now(found.problem):
                        busy[line] = refused
                    else:
                        line.tell(refused)
                elif found.job is not None:
                    line.tell(found.job)
                elif found.id is not None:  # ended and deleted meanwhile, or about to be
                    line.tell((yield from ask_job(self._session, calls.get(found.id))))
            lines = [line for line in busy if line.settle is not None]
            if not lines:
                return
            tried += 1
            problem = busy[lines[0]].problem
            delay_s = self._session.retry.after_problem(tried, problem, None, repeatable=True)
            if delay_s is None:
                for line in lines:
                    line.tell(busy[line])
                return
            yield Pause(delay_s)


def _closed() -> Unreachable:
    return Unreachable("the client was closed before the daemon had answered", maybe_sent=True)


def _rows(reply: Reply, count: int) -> list[BulkLine]:
    parser = LineParser(BulkLine)
    try:
        rows = parser.feed(reply.body) + parser.end()
    except msgspec.DecodeError as error:
        raise stranger(error) from error
    if any(not 1 <= row.line <= count for row in rows):
        raise stranger("it numbers lines that were not sent")
    return rows
