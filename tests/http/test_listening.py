"""Listeners: who may be reached how, TLS as a scanner sees it, certificates replaced under way, Unix sockets."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
import pytest_twisted
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactor

from jobsvc.http.certificates import BadCertificate
from jobsvc.http.endpoints import BACKLOG, EndpointError, TcpEndpoint, UnixEndpoint, parse, roomy
from jobsvc.http.listening import Listeners, ListenRefused
from jobsvc.runtime.threads import NamedPool
from tests.http.certs import START, write_pair
from tests.http.house import House

T = TypeVar("T")
LIMIT_S = 20.0
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def the_reactor() -> Any:
    from twisted.internet import reactor

    return cast("Any", reactor)


class Stage:
    """Listeners on the real reactor, and blocking clients in threads."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.listeners = Listeners(the_reactor())
        self._clients = NamedPool(the_reactor(), "test-clients", 2, 4)

    def open(self, description: str) -> int:
        self.listeners.open(description, self.house.site)
        url, _unix = self.listeners.address()
        return int((url or "x:0").rpartition(":")[2])

    async def client(self, function: Callable[[], T]) -> T:
        return await self._clients.run(function).addTimeout(LIMIT_S, the_reactor())

    async def close(self) -> None:
        await self.listeners.close()
        await self._clients.stop()


@pytest_twisted.async_yield_fixture
async def stage(house: House) -> Any:
    made = Stage(house)
    yield made
    await made.close()


def trusting(*certificates: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    for each in certificates:
        context.load_verify_locations(each)
    return context


def dial(port: int, context: ssl.SSLContext, name: str = "localhost") -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
    return context.wrap_socket(plain, server_hostname=name)


def answer(sock: socket.socket) -> bytes:
    sock.sendall(LIVEZ)
    got = b""
    while b"\r\n\r\n" not in got or not got.endswith(b"\n"):
        piece = sock.recv(4096)
        if not piece:
            break
        got += piece
    return got


def before_us(end: datetime, days: int) -> int:
    return int((end - timedelta(days=days)).timestamp() * 1e6)


def shown(sock: ssl.SSLSocket) -> bytes:
    der = sock.getpeercert(binary_form=True)
    assert der is not None
    return der


# -- who may be reached


@pytest.mark.parametrize("description", ["tcp:0", "tcp:0:interface=0.0.0.0", "tcp6:0:interface=\\:\\:"])
def test_an_open_address_is_refused_unless_a_proxy_encrypts(description: str, house: House) -> None:
    """P01: nothing others reach is opened in clear; the operator has to say that a proxy stands in front."""
    with pytest.raises(ListenRefused, match=r"open to other machines and not encrypted.*--behind-proxy"):
        Listeners(the_reactor()).open(description, house.site)


@pytest_twisted.ensureDeferred
async def test_behind_a_proxy_every_address_is_taken(house: House) -> None:
    """The option is the operator's word for it."""
    listeners = Listeners(the_reactor(), behind_proxy=True)
    listeners.open("tcp:0", house.site)
    assert listeners.address()[0] is not None
    await listeners.close()


# -- TLS


@pytest_twisted.ensureDeferred
async def test_tls_1_2_is_the_floor(stage: Stage, tmp_path: Path) -> None:
    """P23: 1.2 and 1.3 are spoken, 1.1 is not, and nobody may renegotiate."""
    key, cert = write_pair(tmp_path, "localhost")
    port = stage.open(f"ssl:0:privateKey={key}:certKey={cert}:interface=127.0.0.1")

    def speak(version: ssl.TLSVersion) -> tuple[str | None, bytes]:
        context = trusting(cert)
        context.set_ciphers("ALL:@SECLEVEL=0")  # the client would take anything
        context.minimum_version = context.maximum_version = version
        with dial(port, context) as sock:
            return sock.version(), answer(sock)

    assert (await stage.client(lambda: speak(ssl.TLSVersion.TLSv1_3)))[0] == "TLSv1.3"
    version, reply = await stage.client(lambda: speak(ssl.TLSVersion.TLSv1_2))
    assert version == "TLSv1.2"
    assert reply.startswith(b"HTTP/1.1 200 ")
    with pytest.raises(ssl.SSLError), pytest.warns(DeprecationWarning, match="TLSv1_1"):
        await stage.client(lambda: speak(ssl.TLSVersion.TLSv1_1))


@pytest_twisted.ensureDeferred
async def test_renegotiation_is_refused(stage: Stage, tmp_path: Path) -> None:
    """P23: a client that asks for a second handshake on TLS 1.2 does not get one."""
    from OpenSSL import SSL

    key, cert = write_pair(tmp_path, "localhost")
    port = stage.open(f"ssl:0:privateKey={key}:certKey={cert}:interface=127.0.0.1")

    def ask_again() -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as plain:
            plain.setblocking(True)
            connection = SSL.Connection(context, plain)
            connection.set_connect_state()
            connection.do_handshake()
            assert connection.renegotiate()
            connection.do_handshake()

    with pytest.raises(SSL.Error):
        await stage.client(ask_again)


@pytest_twisted.ensureDeferred
async def test_a_renewed_certificate_is_shown_without_closing_a_connection(
    stage: Stage, tmp_path: Path
) -> None:
    """P23: after the reload new connections see the new one; the open one goes on."""
    key, cert = write_pair(tmp_path, "localhost")
    port = stage.open(f"ssl:0:privateKey={key}:certKey={cert}:interface=127.0.0.1")
    old = trusting(cert)
    kept = await stage.client(lambda: dial(port, old))
    before = shown(kept)
    assert (await stage.client(lambda: answer(kept))).startswith(b"HTTP/1.1 200 ")
    write_pair(tmp_path, "localhost", days=40_000)
    assert stage.listeners.reload_certificates() == []
    fresh = await stage.client(lambda: dial(port, trusting(cert)))
    assert shown(fresh) != before
    end = START + timedelta(days=40_000)
    assert stage.listeners.certificates_expire == end
    assert stage.listeners.certificate_check(lambda: before_us(end, 15))[0]
    well, words = stage.listeners.certificate_check(lambda: before_us(end, 13))
    assert (well, "ends on" in words, "SIGHUP" in words) == (False, True, True)
    assert (await stage.client(lambda: answer(kept))).startswith(b"HTTP/1.1 200 ")
    assert (await stage.client(lambda: answer(fresh))).startswith(b"HTTP/1.1 200 ")
    kept.close()
    fresh.close()


@pytest_twisted.ensureDeferred
async def test_a_bad_new_certificate_leaves_the_old_one_in_use(stage: Stage, tmp_path: Path) -> None:
    """A key of another certificate is told in the log, and nothing changes for clients."""
    key, cert = write_pair(tmp_path, "localhost")
    good = cert.read_bytes()
    port = stage.open(f"ssl:0:privateKey={key}:certKey={cert}:interface=127.0.0.1")
    _other_key, other = write_pair(tmp_path, "localhost", "other")
    cert.write_bytes(other.read_bytes())
    [problem] = stage.listeners.reload_certificates()
    assert f"the key in {key} does not belong to the certificate in {cert}" in problem
    assert "the certificate in use stays" in problem
    with pytest.raises(BadCertificate, match="the certificate in use stays"):
        stage.listeners.reread_certificates()
    well, words = stage.listeners.certificate_check(lambda: 0)
    assert (well, problem in words, "send SIGHUP" in words) == (False, True, True)
    cert.write_bytes(good)
    assert "good until" in (stage.listeners.reread_certificates() or "")
    assert stage.listeners.certificate_check(lambda: 0)[0]
    with await stage.client(lambda: dial(port, trusting(cert))) as sock:
        assert (await stage.client(lambda: answer(sock))).startswith(b"HTTP/1.1 200 ")


@pytest_twisted.ensureDeferred
async def test_a_folder_of_certificates_is_chosen_from_by_name(stage: Stage, tmp_path: Path) -> None:
    """`tls:`: the server name picks the file, the first file serves others; a new file counts from the reload on."""

    def put(name: str) -> Path:
        key, cert = write_pair(tmp_path, name, name)
        pem = tmp_path / f"{name}.pem"
        pem.write_bytes(key.read_bytes() + cert.read_bytes())
        pem.chmod(0o600)
        return cert

    a, b = put("a.example"), put("b.example")
    port = stage.open(f"tls:{tmp_path}:port=0:interface=127.0.0.1")

    async def served(name: str, *trusted: Path) -> bytes:
        sock = await stage.client(lambda: dial(port, trusting(*trusted), name))
        with sock:
            return shown(sock)

    assert await served("a.example", a) != await served("b.example", b)
    assert await served("c.example", a) == await served("a.example", a)
    c = put("c.example")
    assert stage.listeners.reload_certificates() == []
    assert await served("c.example", c) not in {await served("a.example", a), await served("b.example", b)}


@pytest_twisted.ensureDeferred
async def test_clients_can_be_asked_for_a_certificate(stage: Stage, tmp_path: Path) -> None:
    """With clientCA only who shows one of that authority is served."""
    key, cert = write_pair(tmp_path, "localhost")
    client_key, client_cert = write_pair(tmp_path, "client", "client")
    port = stage.open(f"ssl:0:privateKey={key}:certKey={cert}:clientCA={client_cert}:interface=127.0.0.1")

    def ask(*, with_certificate: bool) -> bytes:
        context = trusting(cert)
        if with_certificate:
            context.load_cert_chain(client_cert, client_key)
        with dial(port, context) as sock:
            return answer(sock)

    assert (await stage.client(lambda: ask(with_certificate=True))).startswith(b"HTTP/1.1 200 ")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await stage.client(lambda: ask(with_certificate=False))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda key, _cert: key.unlink(), "cannot be read: No such file"),
        (lambda key, _cert: key.chmod(0o644), "readable by everyone: chmod 600"),
        (lambda _key, cert: cert.write_text("nothing"), "holds no certificate in PEM form"),
        (lambda key, _cert: key.write_text("nothing"), "holds no private key in PEM form"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_named(
    spoil: Callable[[Path, Path], object], words: str, tmp_path: Path, house: House
) -> None:
    """A start with it is refused in one line that names option and file."""
    key, cert = write_pair(tmp_path, "localhost")
    spoil(key, cert)
    with pytest.raises(ListenRefused, match=rf"^--listen ssl:0.*{words}"):
        Listeners(the_reactor()).open(f"ssl:0:privateKey={key}:certKey={cert}", house.site)


# -- Unix sockets


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A name that fits into a socket's address, whatever the tests' folder is called."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="jobsvc-") as folder:
        yield Path(folder) / "s"


def remove(path: Path) -> None:
    path.unlink()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("text", "mode"), [("", 0o660), (":mode=600", 0o600)])
@pytest_twisted.ensureDeferred
async def test_a_unix_socket_has_its_mode(short_path: Path, stage: Stage, text: str, mode: int) -> None:
    """Closed to others unless the operator says otherwise, whatever the umask."""
    umask = os.umask(0)
    try:
        stage.open(f"unix:{short_path}{text}")
    finally:
        os.umask(umask)
    assert mode_of(short_path) == mode


@pytest_twisted.ensureDeferred
async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(short_path: Path, stage: Stage) -> None:
    """A killed daemon's socket is no reason to refuse; one that somebody listens on is."""
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(short_path))
    stage.open(f"unix:{short_path}")
    with pytest.raises(ListenRefused, match="another process listens on"):
        stage.open(f"unix:{short_path}")

    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(short_path))
            return answer(sock)

    assert (await stage.client(ask)).startswith(b"HTTP/1.1 200 ")


@pytest_twisted.ensureDeferred
async def test_a_socket_that_somebody_removed_does_not_hinder_the_stop(
    short_path: Path, house: House
) -> None:
    """The listener is closed like any other."""
    listeners = Listeners(the_reactor())
    listeners.open(f"unix:{short_path}", house.site)
    remove(short_path)
    await listeners.close()


@pytest.mark.parametrize(
    ("text", "number", "words"),
    [
        (
            "tcp:80:interface=127.0.0.1",
            errno.EADDRINUSE,
            "in use by another program; stop it, or take another port",
        ),
        ("tcp:80:interface=127.0.0.1", errno.EACCES, "not allowed for this user"),
        ("tcp:80:interface=127.0.0.9", errno.EADDRNOTAVAIL, "this machine has no such address"),
        ("unix:/nowhere/x", errno.ENOENT, "the folder of the socket is not there; make it first"),
        ("unix:/nowhere/x", errno.ENOTDIR, "Not a directory"),
    ],
)
def test_what_cannot_be_opened_says_what_to_do(house: House, text: str, number: int, words: str) -> None:
    """In words for the operator: the address stands there once, as it was given."""

    class Refusing(MemoryReactor):
        def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:  # noqa: N802
            raise CannotListenError(interface, port, OSError(number, os.strerror(number)))

        def listenUNIX(self, address: str, factory: Any, *_: Any, **__: Any) -> Any:  # noqa: N802
            raise CannotListenError("any", address, OSError(number, os.strerror(number)))

    with pytest.raises(ListenRefused, match=f"^--listen {text}: {words}"):
        Listeners(Refusing()).open(text, house.site)


def test_a_file_that_is_no_socket_stays(short_path: Path, house: House) -> None:
    """A typing error must not cost a file."""
    short_path.write_text("precious")
    with pytest.raises(ListenRefused, match="is there and is no socket"):
        Listeners(the_reactor()).open(f"unix:{short_path}", house.site)
    assert short_path.read_text() == "precious"


# -- texts


def test_texts_are_taken_apart() -> None:
    """Twisted's grammar, with the defaults of its own endpoints but for the backlog and the mode of a Unix socket."""
    assert parse("tcp:8787") is None
    assert parse("unix:/run/a\\:b") == UnixEndpoint(Path("/run/a:b"), 0o660, BACKLOG)
    assert roomy("tcp:8787:interface=\\:\\:1") == f"tcp:8787:interface=\\:\\:1:backlog={BACKLOG}"
    for text in ("tcp:8787:backlog=7", "tcp:8787:127.0.0.1:7", "systemd:domain=INET:index=0"):
        assert roomy(text) == text
    found = parse("ssl:8787:privateKey=k.pem:interface=\\:\\:")
    assert isinstance(found, TcpEndpoint)
    assert (found.port, found.interface) == (8787, "::")
    assert found.source == parse("ssl:1:privateKey=k.pem:certKey=k.pem").source  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tcp:eight", "port=eight: a number from 0"),
        ("tcp:8787:iface=::1", "tcp: has no option iface; it has backlog, interface"),
        ("tcp6:interface=\\:\\:1", "tcp6: needs a port"),
        ("tcp:1:\\:\\:1:50:x", "'x' has no name"),
        ("tcp:1:interface=::1", r"interface is empty; a colon within an address is written \\:, as"),
        ("ssl:1:interface=::1", "interface is empty"),
        ("8787", "tcp:8787:interface=127.0.0.1"),
        ("ssl:8787:sslmethod=SSLv3", "has no option sslmethod"),
        ("ssl:", "needs a port"),
        ("ssl:eight", "a number from 0"),
        ("ssl:99999", "from 0 to 65535"),
        ("unix:/run/x:mode=999", "an octal number"),
        ("unix:/run/x:7", "has no name"),
    ],
)
def test_a_text_that_is_wrong_is_named(text: str, words: str) -> None:
    """Each with the option it is about."""
    with pytest.raises(EndpointError, match=words):
        parse(text)


def test_without_tls_no_certificate_ends(house: House) -> None:
    """`certificates_expire` is what readiness warns by."""
    assert Listeners(the_reactor()).certificates_expire is None
