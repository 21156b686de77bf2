"""F2: the Twisted face: `TwistedClient`. Runs flows over treq; holds no knowledge of the protocol."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, Unpack

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred

from jobsvc.client import calls, flows
from jobsvc.client.asking import Settle
from jobsvc.client.asynchronous import AsyncFace
from jobsvc.client.bulk import Submission
from jobsvc.client.core import Flow, Reply, Request, Session
from jobsvc.client.discovery import find_target
from jobsvc.client.replies import result_of, value_of
from jobsvc.client.shapes import Args, CancelMode, Changes, Job, Options, id_of
from jobsvc.client.treq_wire import Requester, TreqWire

T = TypeVar("T")


class TwistedClient(AsyncFace):
    """The methods of `Client`, with Deferreds for answers and asynchronous iterators for streams.

    Cancelling a Deferred gives up the request, never the job. `headers` go with every request (a `traceparent`, an
    `X-Request-ID`). `requester` is treq or what stands for it in tests.
    Finding the daemon reads two small files, once, here.

    Runs on: the reactor passed in.

    Raises:
        Unreachable: there is no daemon to be found.
    """

    def __init__(
        self,
        reactor: Any,
        url: str | None = None,
        token: str | None = None,
        *,
        data_dir: str | Path | None = None,
        session: Session | None = None,
        headers: Mapping[str, str] | None = None,
        requester: Requester | None = None,
    ) -> None:
        target = find_target(url, token, data_dir, environ=os.environ)
        self._wire = TreqWire(reactor, target, requester, headers or {})
        super().__init__(session or Session(), self._wire)

    def close(self) -> Deferred[None]:
        """Close the connections kept open."""
        return self._wire.close()

    def submit(self, task: str, args: Args = None, /, **options: Unpack[Options]) -> Deferred[Job]:
        """A new job; fires once it is stored. See `Client.submit`.

        Submits made while another is under way are joined into one request; each has its own key and its own answer.
        """
        return maybeDeferred(self._submitted, task, args, options)

    def submit_many(self, jobs: Iterable[Submission]) -> Deferred[list[str]]:
        """The ids of many new jobs. See `Client.submit_many`."""
        return Deferred.fromCoroutine(self._submitted_many(jobs))

    def call(
        self, task: str, args: Args = None, /, *, timeout: float | None = None, **options: Unpack[Options]
    ) -> Deferred[Any]:
        """Submit, wait, and give the result. See `Client.call`."""
        return Deferred.fromCoroutine(self._called(task, args, options, timeout))

    def get(self, job: Job | str) -> Deferred[Job]:
        """The job as it is now."""
        return self._run(flows.ask_job(self._session, calls.get(id_of(job))))

    def wait(self, job: Job | str, timeout: float | None = None) -> Deferred[Job]:
        """The job once it is done. See `Client.wait`."""
        return Deferred.fromCoroutine(self._waited(id_of(job), timeout))

    def result(self, job: Job | str, timeout: float | None = None) -> Deferred[Any]:
        """The result, waited for. See `Client.result`."""
        return self.wait(job, timeout).addCallback(result_of)

    def cancel(
        self, job: Job | str, mode: CancelMode = "polite", *, grace_s: float | None = None
    ) -> Deferred[Job]:
        """Ask a job to stop. See `Client.cancel`."""
        return self._run(flows.ask_job(self._session, calls.cancel(id_of(job), mode, grace_s)))

    def update(
        self, job: Job | str, /, *, if_match: int | None = None, **changes: Unpack[Changes]
    ) -> Deferred[Job]:
        """Change a job that waits. See `Client.update`."""
        return self._run(flows.update(self._session, job, changes, if_match))

    def retry(self, job: Job | str) -> Deferred[Job]:
        """A new job like one that is done."""
        return self._run(flows.ask_job(self._session, calls.retry(id_of(job))))

    def tasks(self) -> Deferred[Any]:
        """What the daemon can run."""
        return self.request(calls.tasks()).addCallback(value_of)

    def info(self) -> Deferred[Any]:
        """The daemon's version, limits and defaults."""
        return self.request(calls.info()).addCallback(value_of)

    def request(self, request: Request) -> Deferred[Reply]:
        """Any call of `jobsvc.client.calls`; the reply as it came."""
        return self._run(flows.ask(self._session, request))

    def _submitted(self, task: str, args: Args, options: Options) -> Deferred[Job]:
        return self._told(lambda settle: self._joiner.submit(task, args, options, settle))

    def _told(self, begin: Callable[[Settle], Callable[[], None]]) -> Deferred[Job]:
        """See `AsyncFace`."""
        answer: Deferred[Job] = Deferred(lambda _: leave())

        def settle(outcome: Job | Exception) -> None:
            if isinstance(outcome, Exception):
                answer.errback(outcome)
            else:
                answer.callback(outcome)

        leave = begin(settle)
        return answer

    def _run(self, flow: Flow[T]) -> Deferred[T]:
        return Deferred.fromCoroutine(self._returned(flow))

    def _start(self, flow: Flow[None]) -> Deferred[None]:
        """See `AsyncFace`."""
        return self._run(flow).addErrback(lambda failure: failure.trap(CancelledError) and None)
