"""F2: the asyncio face: `AsyncClient`. Runs flows over httpx2; holds no knowledge of the protocol."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from jobsvc.client import calls, flows
from jobsvc.client.asking import Settle
from jobsvc.client.asynchronous import AsyncFace
from jobsvc.client.bulk import Submission
from jobsvc.client.core import Flow, Reply, Request, Session
from jobsvc.client.discovery import find_target
from jobsvc.client.httpx_async_wire import AsyncHttpxWire
from jobsvc.client.replies import result_of, value_of
from jobsvc.client.shapes import Args, CancelMode, Changes, Job, Options, id_of

if TYPE_CHECKING:
    import httpx2


class AsyncClient(AsyncFace):
    """The methods of `Client` for asyncio: coroutines for answers, asynchronous iterators for streams.

    `async with AsyncClient() as client: job = await client.submit("add", [1, 2])`. The tasks of one event loop may
    share one; it is bound to the loop in which it is first used. Cancelling a task gives up its request, never the job.

    `headers` go with every request (a `traceparent`, an `X-Request-ID`). `session` sets retries and clock,
    `transport` is for tests. Finding the daemon reads two small files, once, here.

    Raises:
        Unreachable: there is no daemon to be found.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        data_dir: str | Path | None = None,
        headers: Mapping[str, str] | None = None,
        session: Session | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        target = find_target(url, token, data_dir, environ=os.environ)
        self._wire = AsyncHttpxWire(target, transport, headers or {})
        super().__init__(session or Session(), self._wire)
        self._started: set[asyncio.Task[None]] = set()  # the loop itself holds its tasks weakly

    async def close(self) -> None:
        """Close all connections. Requests and iterators still open end with `Unreachable`."""
        self._joiner.close()
        self._asker.close()
        await self._wire.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def submit(self, task: str, args: Args = None, /, **options: Unpack[Options]) -> Job:
        """A new job, once it is stored. See `Client.submit`.

        Submits made while another is under way are joined into one request; each has its own key and its own answer.
        """
        return await self._submitted(task, args, options)

    async def submit_many(self, jobs: Iterable[Submission]) -> list[str]:
        """The ids of many new jobs. See `Client.submit_many`."""
        ids: list[str] = await self._submitted_many(jobs)
        return ids

    async def call(
        self, task: str, args: Args = None, /, *, timeout: float | None = None, **options: Unpack[Options]
    ) -> Any:
        """Submit, wait, and give the result. See `Client.call`."""
        return await self._called(task, args, options, timeout)

    async def get(self, job: Job | str) -> Job:
        """The job as it is now."""
        return await self._returned(flows.ask_job(self._session, calls.get(id_of(job))))

    async def wait(self, job: Job | str, timeout: float | None = None) -> Job:
        """The job once it is done. See `Client.wait`."""
        return await self._waited(id_of(job), timeout)

    async def result(self, job: Job | str, timeout: float | None = None) -> Any:
        """The result, waited for. See `Client.result`."""
        return result_of(await self._waited(id_of(job), timeout))

    async def cancel(
        self, job: Job | str, mode: CancelMode = "polite", *, grace_s: float | None = None
    ) -> Job:
        """Ask a job to stop. See `Client.cancel`."""
        return await self._returned(flows.ask_job(self._session, calls.cancel(id_of(job), mode, grace_s)))

    async def update(
        self, job: Job | str, /, *, if_match: int | None = None, **changes: Unpack[Changes]
    ) -> Job:
        """Change a job that waits. See `Client.update`."""
        return await self._returned(flows.update(self._session, job, changes, if_match))

    async def retry(self, job: Job | str) -> Job:
        """A new job like one that is done."""
        return await self._returned(flows.ask_job(self._session, calls.retry(id_of(job))))

    async def tasks(self) -> Any:
        """What the daemon can run."""
        return value_of(await self.request(calls.tasks()))

    async def info(self) -> Any:
        """The daemon's version, limits and defaults."""
        return value_of(await self.request(calls.info()))

    async def request(self, request: Request) -> Reply:
        """Any call of `jobsvc.client.calls`; the reply as it came."""
        return await self._returned(flows.ask(self._session, request))

    def _start(self, flow: Flow[None]) -> asyncio.Task[None]:
        """See `AsyncFace`."""
        task = asyncio.get_running_loop().create_task(self._returned(flow))
        self._started.add(task)
        task.add_done_callback(self._started.discard)
        return task

    async def _told(self, begin: Callable[[Settle], Callable[[], None]]) -> Job:
        """See `AsyncFace`."""
        answer: asyncio.Future[Job] = asyncio.get_running_loop().create_future()

        def settle(outcome: Job | Exception) -> None:
            if answer.done():
                return  # cancelled, and the task that waited has not run yet
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)

        leave = begin(settle)
        try:
            return await answer
        except asyncio.CancelledError:
            leave()
            raise
