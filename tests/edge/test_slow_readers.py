"""A client that takes a large reply slowly, or not at all, over TCP, TLS and a Unix socket."""

from __future__ import annotations

from hashlib import sha256

import pytest
import pytest_twisted

from jobsvc.http import limits
from tests.edge.cases import get
from tests.edge.talk import TRANSPORTS, Front, Transport

pytestmark = [
    pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning"),  # Twisted's own TLS code does
    pytest.mark.parametrize("transport", TRANSPORTS),
]

BIG = b'"' + bytes(range(0x41, 0x5B)) * 600_000 + b'"'
"""15 MB: far more than the kernel holds of one connection."""


@pytest_twisted.ensureDeferred
async def test_a_reader_that_stops_costs_a_slice_and_is_cut_off(front: Front, transport: Transport) -> None:
    """Most of the reply was never handed to the connection."""
    job = front.house.done(result=BIG)
    talker = await front.ask(transport, get(b"/livez"))
    talker.transport.pauseProducing()
    talker.send(get(b"/v1/jobs/%b/result" % job["id"].encode()))
    await front.settle(lambda: any(channel.blocked_since is not None for channel in front.site.channels))
    [channel] = front.site.channels
    [request] = channel.requests
    assert request._slices is not None
    assert request._slices._at < len(BIG)
    front.house.after(limits.WRITE_STALL_S - limits.SWEEP_ALL_S)
    assert front.site.channels
    front.house.after(2 * limits.SWEEP_ALL_S)
    await front.settle(lambda: not front.site.channels)
    await front.hang_up(talker)
    await front.alive(transport)


@pytest_twisted.ensureDeferred
async def test_a_reader_that_pauses_gets_all_of_it(front: Front, transport: Transport) -> None:
    """Byte for byte, and the connection goes on."""
    job = front.house.done(result=BIG)
    talker = await front.ask(transport, get(b"/livez"))
    talker.transport.pauseProducing()
    talker.send(get(b"/v1/jobs/%b/result" % job["id"].encode()) + get(b"/livez"))
    await front.settle(lambda: any(channel.blocked_since is not None for channel in front.site.channels))
    front.house.after(limits.WRITE_STALL_S / 2)
    talker.transport.resumeProducing()
    await talker.until(lambda: len(talker.got) > len(BIG) and talker.got.endswith(b"\r\n\r\nok\n"))
    _, big, small = talker.replies()
    assert (big.status, sha256(big.body).digest()) == (200, sha256(BIG).digest())
    assert small.status == 200
    await front.hang_up(talker)
