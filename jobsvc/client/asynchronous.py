"""F2: what the asynchronous faces share: flows run by coroutines, whoever drives them (asyncio, Twisted's reactor).

Nothing here names an event loop: a wire awaits what its own loop gives, and the rest is plain coroutines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any, Protocol, Self, TypeVar, Unpack

from jobsvc.client import flows, mapping, streaming
from jobsvc.client.asking import Asker, Settle
from jobsvc.client.bulk import MapLines, Submission, SubmitLines, batches
from jobsvc.client.core import Broken, Emit, Flow, Running, Session, Step
from jobsvc.client.errors import ClientError, bulk_ids
from jobsvc.client.joining import Joiner
from jobsvc.client.replies import result_of
from jobsvc.client.shapes import Args, Event, Item, Job, JobFilters, Options, id_of

T = TypeVar("T")

OWN_POLLS = 32
"""Waits of one client that hold a connection each; those beyond share a few, at the price of up to two seconds."""


class AsyncWire(Protocol):
    """Carries out the steps of flows."""

    async def carry_out(self, step: Step, bodies: dict[int, Any]) -> Any:
        """The answer to one step; bodies opened and not closed are kept in `bodies`. Raises `Broken`."""

    async def release(self, bodies: dict[int, Any]) -> None:
        """Give back the connections of bodies that nobody reads on."""


class FlowRunner:
    """Runs flows over a wire."""

    def __init__(self, wire: AsyncWire) -> None:
        self._steps = wire

    async def _returned(self, flow: Flow[T]) -> T:
        """The flow's return value."""
        bodies: dict[int, Any] = {}
        try:
            step = next(flow)
            while True:
                try:
                    answer = await self._steps.carry_out(step, bodies)
                except Broken as broken:
                    step = flow.throw(broken)
                else:
                    step = flow.send(answer)
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            flow.close()
            await self._steps.release(bodies)

    async def _emitted(self, flow: Flow[None]) -> AsyncGenerator[Any, None]:
        """What the flow emits, one by one; the flow goes on only as the values are taken."""
        bodies: dict[int, Any] = {}
        try:
            step = next(flow)
            while True:
                if isinstance(step, Emit):
                    for value in step.values:
                        yield value
                    step = flow.send(None)
                    continue
                try:
                    answer = await self._steps.carry_out(step, bodies)
                except Broken as broken:
                    step = flow.throw(broken)
                else:
                    step = flow.send(answer)
        except StopIteration:
            return
        finally:
            flow.close()
            await self._steps.release(bodies)


class AsyncFace(FlowRunner, ABC):
    """The methods that give asynchronous iterators."""

    def __init__(self, session: Session, wire: AsyncWire) -> None:
        super().__init__(wire)
        self._session = session
        self._joiner = Joiner(session, self._start)
        self._asker = Asker(session, self._start)
        self._polls = 0  # waits with a request of their own

    @abstractmethod
    def _start(self, flow: Flow[None]) -> Running:
        """Run a flow that raises nothing, but may be given up."""

    @abstractmethod
    def _told(self, begin: Callable[[Settle], Callable[[], None]]) -> Awaitable[Job]:
        """What `settle` is told; `begin` is given it, and gives what is called when nobody waits any more."""

    def map(
        self, task: str, inputs: Iterable[Args], /, *, return_errors: bool = False, **options: Unpack[Options]
    ) -> AsyncOutcomes:
        """One job for each of `inputs`; results in the order of the inputs, by `async for`. See `Client.map`.

        `inputs` is read on the thread of the event loop, in batches: it must not block.
        """
        source = batches(inputs, MapLines(task, options), self._session.clock)
        flow = mapping.outcomes(self._session, source, follow=True)
        return AsyncOutcomes(self._emitted(flow), return_errors=return_errors)

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

    def list(self, *, limit: int | None = None, **filters: Unpack[JobFilters]) -> AsyncGenerator[Job, None]:
        """Jobs, newest first, read page by page. See `Client.list`."""
        return self._emitted(flows.list_jobs(self._session, filters, limit))

    def _submitted(self, task: str, args: Args, options: Options) -> Awaitable[Job]:
        return self._told(lambda settle: self._joiner.submit(task, args, options, settle))

    async def _waited(self, job_id: str, timeout: float | None) -> Job:
        """The job once it is done. Those with a time limit, and the first few, have a request of their own."""
        if timeout is None and self._polls >= OWN_POLLS:
            return await self._told(lambda settle: self._asker.watch(job_id, settle))
        return await self._polled(flows.wait(self._session, job_id, timeout))

    async def _called(self, task: str, args: Args, options: Options, timeout: float | None) -> Any:
        if timeout is None and self._polls >= OWN_POLLS:
            job = await self._submitted(task, args, options)
            return result_of(job if job.done else await self._waited(job.id, None))
        return await self._polled(flows.call(self._session, task, args, options, timeout))

    async def _polled(self, flow: Flow[T]) -> T:
        self._polls += 1
        try:
            return await self._returned(flow)
        finally:
            self._polls -= 1

    async def _submitted_many(self, jobs: Iterable[Submission]) -> Any:
        source = batches(jobs, SubmitLines(), self._session.clock)
        flow = mapping.outcomes(self._session, source, follow=False)
        return bulk_ids([value async for value in self._emitted(flow)])


class AsyncOutcomes:
    """What `map` of an asynchronous face gives: results in order; failures are raised in their place, and it may go on.

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
