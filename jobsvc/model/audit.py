"""F0: the records of the audit log and the chain that holds them together. Pure; knows no files.

A record is one line of JSON. Its last member, `hash`, is the SHA-256 of the hash before it followed by the record's
own text without `hash`: whoever changes, removes or moves a line breaks the chain at that place.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Final

import msgspec

from jobsvc.model.clock import time_text

GENESIS: Final = "0" * 64
"""The hash before the first record."""
_TAIL_BYTES: Final = len(b',"hash":"') + 64 + len(b'"}')


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What happened, before it has its place in the chain.

    Attributes:
        at: microseconds.
        who: public id of the token, `cli`, `daemon`, or None: nobody who is known.
        source: address of the client; `unix` for the Unix socket.
        what: name of a route; `edge.<code>` for a refusal before routing; `audit.<what>` for the log itself.
        target: id of the job, or what else it was done to; never arguments.
        count, of: of a bulk upload, accepted jobs and lines; of what was left out, how often.
        decision: `left`: the client left before the reply; whether it took effect is not known here.
        code: of the problem, when refused.
        addresses: of refusals that were joined, from how many they came.
    """

    at: int
    who: str | None
    tenant: str | None
    source: str | None
    what: str
    target: str | None = None
    count: int | None = None
    of: int | None = None
    decision: str = "allowed"
    code: str | None = None
    request_id: str | None = None
    addresses: int | None = None


class Record(msgspec.Struct, kw_only=True, omit_defaults=True, rename={"source": "from"}):
    """One line of the log, without its hash; see `Entry`.

    `prev` is the hash of the record before it. `addresses` stands only where there are some: so old logs are read too.
    """

    seq: int
    at: str
    boot: str
    who: str | None
    tenant: str | None
    source: str | None
    what: str
    target: str | None
    count: int | None
    of: int | None
    addresses: int | None = None
    decision: str
    code: str | None
    request_id: str | None
    prev: str


class Head(msgspec.Struct, frozen=True):
    """Where the chain stands: number and hash of its last record; (0, `GENESIS`) before the first."""

    seq: int = 0
    hash: str = GENESIS


class BrokenRecord(Exception):
    """A line that is no record of the chain, or was changed."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


def chained(head: Head, boot: str, entry: Entry, *, skip: int = 0) -> tuple[bytes, Head]:
    """The line for `entry` behind `head`, and the new head. `skip` numbers stay free: of records that were lost."""
    seq = head.seq + 1 + skip
    body = _encode(
        Record(
            seq=seq, at=_when(entry.at), boot=boot, who=entry.who, tenant=entry.tenant, source=entry.source,
            what=entry.what, target=entry.target, count=entry.count, of=entry.of, decision=entry.decision,
            code=entry.code, request_id=entry.request_id, addresses=entry.addresses, prev=head.hash,
        )
    )  # fmt: skip
    digest = sha256(head.hash.encode() + body).hexdigest()
    return b'%b,"hash":"%b"}\n' % (body[:-1], digest.encode()), Head(seq, digest)


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return time_text(second * 1_000_000).partition(".")[0]


def _when(at: int) -> str:
    """The text of a moment. Records come in bursts: most share their second with the one before."""
    second, rest = divmod(at, 1_000_000)
    return f"{_second(second)}.{rest:06}Z"


def read_record(line: bytes) -> tuple[Record, str]:
    """A line of the log as record and hash.

    Raises:
        BrokenRecord: it is none, or its text is not what its hash was made of.
    """
    line = line.rstrip(b"\n")
    body, tail = line[:-_TAIL_BYTES] + b"}", line[-_TAIL_BYTES:]
    if not (tail.startswith(b',"hash":"') and tail.endswith(b'"}')):
        raise BrokenRecord("it does not end with its hash")
    try:
        record = _decode(body)
        claimed = tail[9:-2].decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BrokenRecord("it is no record") from None
    if sha256(record.prev.encode() + body).hexdigest() != claimed:
        raise BrokenRecord("its text was changed")
    return record, claimed
