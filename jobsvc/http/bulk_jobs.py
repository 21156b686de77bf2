"""F3: the reply to a bulk upload with `full=1`: whole jobs beside their ids."""

from __future__ import annotations

from collections.abc import AsyncIterator

from jobsvc.http.bulk import Group
from jobsvc.http.edge import Edge, encode
from jobsvc.http.limits import FOLLOW_ROWS, STREAM_READ_BYTES
from jobsvc.http.problems import document
from jobsvc.http.request import Request
from jobsvc.model.ids import id_text
from jobsvc.model.job import view
from jobsvc.model.limits import PAGE_BYTES

_ID_BYTES = 16


async def job_lines(edge: Edge, request: Request, group: Group) -> AsyncIterator[bytes]:
    """The reply lines of one group, in pieces; a job that was deleted meanwhile is null.

    The rows are read again when it is their turn, a few at a time: neither the jobs of a million lines nor a large
    result that many lines replay may be held in memory.
    """
    parts = [group.ids[at : at + _ID_BYTES] for at in range(0, len(group.ids), _ID_BYTES)]
    ids = dict(zip(group.accepted_lines(), parts, strict=True))
    lines = sorted([*ids, *group.refused])
    instance = request.request_id.decode()
    durability = edge.engine.durability
    for start in range(0, len(lines), FOLLOW_ROWS):
        some = lines[start : start + FOLLOW_ROWS]
        wanted = dict.fromkeys([ids[line] for line in some if line in ids])
        rows = await edge.engine.get_many(list(wanted), request.tenant, PAGE_BYTES)
        piece = bytearray()
        for line in some:
            if line in ids:
                job = rows.get(ids[line])
                if job is not None and job.lacks_texts:  # there was no room for it beside the others
                    job = (await edge.engine.get_many([job.id], request.tenant)).get(job.id)
                shown = None if job is None else view(job, durability)
                piece += encode({"line": line, "id": id_text(ids[line]), "job": shown})
            else:
                piece += encode({"line": line, "problem": document(group.refused[line], instance)})
            piece += b"\n"
            if len(piece) >= STREAM_READ_BYTES:
                yield bytes(piece)
                piece.clear()
        yield bytes(piece)
