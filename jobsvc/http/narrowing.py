"""F3: what a token that is narrowed to tasks, queues or one job may reach. The tenant is kept to by the engine.

For jobs that may not be seen the answer is that of jobs that are not there: nobody learns which ids exist.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobsvc.http.edge import Edge
from jobsvc.http.request import Request
from jobsvc.model.access import DEFAULT_TENANT, Principal
from jobsvc.model.errors import JobsvcError


async def check_job(edge: Edge, principal: Principal, job_id: bytes | None, *, shared: bool) -> None:
    """For a principal that is narrowed: raise unless it may reach the job of the path, if there is one.

    Args:
        shared: whether the route is open to tickets.

    Raises:
        JobsvcError: forbidden: a ticket elsewhere than at its purpose; not_found, purged: as if there were no job.
    """
    if principal.job is not None:
        if not shared:
            raise JobsvcError("forbidden", "A ticket opens the events, streams and result of its job only.")
        if job_id != principal.job:
            raise JobsvcError("not_found", "There is no such job for this ticket.")
    elif job_id is not None:
        job = await edge.engine.get(job_id, principal.tenant)
        if not principal.covers(job.task, job.queue):
            raise edge.engine.missing(job_id)


def check_operator(principal: Principal) -> None:
    """Raise forbidden unless it may do what concerns the jobs of all tenants."""
    if principal.narrowed or principal.tenant != DEFAULT_TENANT:
        raise JobsvcError(
            "forbidden",
            f"This concerns the whole daemon: a token of the tenant {DEFAULT_TENANT!r} is needed, not narrowed to "
            "tasks or queues.",
        )


def check_task(request: Request, task: str) -> None:
    """Raise forbidden unless jobs of this task, be there such a task or not, may be submitted."""
    among = request.asker.tasks
    if among and task not in among:
        raise JobsvcError("forbidden", f"The token is not for the task {task!r}.")


async def seen(edge: Edge, request: Request, ids: Sequence[bytes]) -> Sequence[bytes]:
    """Of these jobs those that the asker may see: only they are waited for."""
    principal = request.asker
    if not principal.narrowed:
        return ids
    found = await edge.engine.get_many(ids, principal.tenant, 0)
    return [i for i in ids if (job := found.get(i)) is not None and principal.covers(job.task, job.queue)]
