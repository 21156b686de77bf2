"""F2: the Twisted face: `TwistedClient`. Runs flows over treq; holds no knowledge of the protocol."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

from twisted.internet.defer import Deferred

from jobsvc.client import calls, flows, mapping, streaming
from jobsvc.client.bulk import MapLines, Submission, SubmitLines, batches
from jobsvc.client.core import Broken, Emit, Flow, Reply, Request, Session
from jobsvc.client.discovery import find_target
from jobsvc.client.errors import BulkRefused, ClientError, Refused
from jobsvc.client.replies import value_of
from jobsvc.client.shapes import Args, CancelMode, Event, Item, Job, JobFilters, Options, id_of
from jobsvc.client.treq_wire import Body, Requester, TreqWire

T = TypeVar("T")


class TwistedClient:
    """The methods of `Client`, with Deferreds for answers and asynchronous iterators for streams.

    Cancelling a Deferred gives up the request, never the job. `requester` is treq or what stands for it in tests.
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
        requester: Requester | None = None,
    ) -> None:
        target = find_target(url, token, data_dir, environ=os.environ)
        self._session = session or Session()
        self._wire = TreqWire(reactor, target, requester)

    def close(self) -> Deferred[None]:
        """Close the connections kept open."""
        return self._wire.close()

    def submit(self, task: str, args: Args = None, /, **options: Unpack[Options]) -> Deferred[Job]:
        """A new job; fires once it is stored. See `Client.submit`."""
        return self._run(flows.submit(self._session, task, args, options))

    def submit_many(self, jobs: Iterable[Submission]) -> Deferred[list[str]]:
        """The ids of many new jobs. See `Client.submit_many`."""
        return Deferred.fromCoroutine(self._submit_many(jobs))

    def call(
        self, task: str, args: Args = None, /, *, timeout: float | None = None, **options: Unpack[Options]
    ) -> Deferred[Any]:
        """Submit, wait, and give the result. See `Client.call`."""
        return self._run(flows.call(self._session, task, args, options, timeout))

    def map(
        self, task: str, inputs: Iterable[Args], /, *, return_errors: bool = False, **options: Unpack[Options]
    ) -> AsyncOutcomes:
        """One job for each of `inputs`; results in the order of the inputs, by `async for`. See `Client.map`.

        `inputs` is read on the reactor's thread, in batches: it must not block.
        """
        source = batches(inputs, MapLines(task, options), self._session.clock)
        flow = mapping.outcomes(self._session, source, follow=True)
        return AsyncOutcomes(self._emitted(flow), return_errors=return_errors)

    def get(self, job: Job | str) -> Deferred[Job]:
        """The job as it is now."""
        return self._run(flows.ask_job(self._session, calls.get(id_of(job))))

    def wait(self, job: Job | str, timeout: float | None = None) -> Deferred[Job]:
        """The job once it is done. See `Client.wait`."""
        return self._run(flows.wait(self._session, id_of(job), timeout))

    def result(self, job: Job | str, timeout: float | None = None) -> Deferred[Any]:
        """The result, waited for. See `Client.result`."""
        return self._run(flows.result(self._session, id_of(job), timeout))

    def events(
        self, job: Job | str, *, from_: int | None = None, kinds: Iterable[str] = ()
    ) -> AsyncGenerator[Event, None]:
        """The job's events up to `end`, live. See `Client.events`."""
        return self._emitted(streaming.events(self._session, id_of(job), from_=from_, kinds=kinds))

    def stream(self, job: Job | str, name: str = "out", *, from_: int = 1) -> AsyncGenerator[Any, None]:
        """The values of one stream, live. See `Client.stream`."""
        return self._emitted(streaming.values(self._session, id_of(job), name, from_))

    def items(self, job: Job | str, name: str = "out", *, from_: int = 1) -> AsyncGenerator[Item, None]:
        """As `stream`, with numbers and attempts. See `Client.items`."""
        return self._emitted(streaming.items(self._session, id_of(job), name, from_))

    def cancel(
        self, job: Job | str, mode: CancelMode = "polite", *, grace_s: float | None = None
    ) -> Deferred[Job]:
        """Ask a job to stop. See `Client.cancel`."""
        return self._run(flows.ask_job(self._session, calls.cancel(id_of(job), mode, grace_s)))

    def retry(self, job: Job | str) -> Deferred[Job]:
        """A new job like one that is done."""
        return self._run(flows.ask_job(self._session, calls.retry(id_of(job))))

    def list(self, *, limit: int | None = None, **filters: Unpack[JobFilters]) -> AsyncGenerator[Job, None]:
        """Jobs, newest first, read page by page. See `Client.list`."""
        return self._emitted(flows.list_jobs(self._session, filters, limit))

    def tasks(self) -> Deferred[Any]:
        """What the daemon can run."""
        return self.request(calls.tasks()).addCallback(value_of)

    def info(self) -> Deferred[Any]:
        """The daemon's version, limits and defaults."""
        return self.request(calls.info()).addCallback(value_of)

    def request(self, request: Request) -> Deferred[Reply]:
        """Any call of `jobsvc.client.calls`; the reply as it came."""
        return self._run(flows.ask(self._session, request))

    async def _submit_many(self, jobs: Iterable[Submission]) -> Any:
        source = batches(jobs, SubmitLines(), self._session.clock)
        ids = [value async for value in self._emitted(mapping.outcomes(self._session, source, follow=False))]
        refused = next((value for value in ids if isinstance(value, Refused)), None)
        if refused is not None:
            raise BulkRefused(refused, ids)
        return ids

    def _run(self, flow: Flow[T]) -> Deferred[T]:
        return Deferred.fromCoroutine(self._returned(flow))

    async def _returned(self, flow: Flow[T]) -> T:
        """The flow's return value."""
        bodies: dict[int, Body] = {}
        try:
            step = next(flow)
            while True:
                try:
                    answer = await self._wire.carry_out(step, bodies)
                except Broken as broken:
                    step = flow.throw(broken)
                else:
                    step = flow.send(answer)
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            _release(flow, bodies)

    async def _emitted(self, flow: Flow[None]) -> AsyncGenerator[Any, None]:
        """What the flow emits, one by one; the flow goes on only as the values are taken."""
        bodies: dict[int, Body] = {}
        try:
            step = next(flow)
            while True:
                if isinstance(step, Emit):
                    for value in step.values:
                        yield value
                    step = flow.send(None)
                    continue
                try:
                    answer = await self._wire.carry_out(step, bodies)
                except Broken as broken:
                    step = flow.throw(broken)
                else:
                    step = flow.send(answer)
        except StopIteration:
            return
        finally:
            _release(flow, bodies)


class AsyncOutcomes:
    """What `TwistedClient.map` gives: results in order; failures are raised in their place, and it may go on.

    Whoever leaves early awaits `aclose()`; the jobs already submitted go on.
    """

    def __init__(self, values: AsyncGenerator[Any, None], *, return_errors: bool) -> None:
        self._values = values
        self._return_errors = return_errors

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        value = await self._values.__anext__()
        if isinstance(value, ClientError) and not self._return_errors:
            raise value
        return value

    async def aclose(self) -> None:
        """Read no more, and give the connections back."""
        await self._values.aclose()


def _release(flow: Flow[Any], bodies: dict[int, Body]) -> None:
    """After the end, however it came: no connection stays behind."""
    flow.close()
    for body in bodies.values():
        body.close()
