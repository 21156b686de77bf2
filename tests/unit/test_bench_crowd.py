"""The crowd of the benchmark against a small server: who hangs on, drips, sips and floods, and what they have seen."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic

from bench.crowd import Guest, Plan, crowd

HELLO = b"HTTP/1.1 200 OK\r\n\r\n"


@contextmanager
def served(talk: Callable[[socket.socket], None], guests: int) -> Iterator[int]:
    """A server that talks to each of so many guests in a thread of its own; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def one(connection: socket.socket) -> None:
        with connection:
            talk(connection)

    def accept() -> None:
        for _ in range(guests):
            threads.append(threading.Thread(target=one, args=(listener.accept()[0],)))
            threads[-1].start()

    host = threading.Thread(target=accept)
    host.start()
    yield listener.getsockname()[1]
    host.join()
    for thread in threads:
        thread.join()
    listener.close()


def read_to_end(connection: socket.socket) -> None:
    with suppress(ConnectionResetError):  # who leaves with bytes unread resets
        while connection.recv(65536):
            pass


def test_those_who_wait_are_told_apart_and_late_ones_are_timed() -> None:
    """Each sends its own request; the moment in what comes is compared with that of its arrival."""
    requests = [b"one", b"two"]
    seen: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        seen.append(connection.recv(100))
        connection.sendall(HELLO + b"at %.6f\n" % monotonic())
        read_to_end(connection)

    with served(talk, 4) as port:
        plan = Plan(
            host="127.0.0.1", port=port, requests=requests, guests=4, greeted=True, marker="at ([0-9.]+)"
        )
        with crowd(plan) as here:
            outcome = here.leave()
    assert sorted(seen) == [b"one", b"one", b"two", b"two"]
    assert [guest.status for guest in outcome.guests] == [200] * 4
    assert len(outcome.late_s) == 4
    assert min(outcome.late_s) >= 0
    assert all(guest.first_at >= guest.began_at and not guest.ended_at for guest in outcome.guests)


def test_one_that_is_sent_away_knows_when() -> None:
    """A server that hangs up on who drips."""

    def talk(connection: socket.socket) -> None:
        got = connection.recv(1)
        while len(got) < 4:
            got += connection.recv(1)
        connection.sendall(b"HTTP/1.1 408 Late\r\n\r\n")

    with served(talk, 1) as port:
        plan = Plan(host="127.0.0.1", port=port, requests=[b"a"], guests=1, greeted=True, drip_every_s=0.01)
        with crowd(plan) as here:
            [guest] = here.leave().guests
    assert (guest.status, guest.sent >= 4) == (408, True)


def test_who_sips_takes_no_more_and_who_floods_sends_what_is_taken() -> None:
    """One byte at a time; a million bytes and more."""

    def pour(connection: socket.socket) -> None:
        connection.sendall(HELLO + bytes(1000))
        read_to_end(connection)

    with served(pour, 1) as port:
        plan = Plan(
            host="127.0.0.1",
            port=port,
            requests=[b"a"],
            guests=1,
            greeted=True,
            sip_bytes=1,
            sip_every_s=0.01,
        )
        with crowd(plan) as here:
            [sipped] = here.leave().guests
    assert 1 <= sipped.received < 1000

    def swallow(connection: socket.socket) -> None:
        left = 1_000_000
        while left > 0:
            left -= len(connection.recv(65536))
        connection.sendall(HELLO)
        read_to_end(connection)

    with served(swallow, 1) as port:
        plan = Plan(host="127.0.0.1", port=port, requests=[b"a"], guests=1, greeted=True, flood=True)
        with crowd(plan) as here:
            [flooded] = here.leave().guests
    assert isinstance(flooded, Guest)
    assert flooded.sent >= 1_000_000
