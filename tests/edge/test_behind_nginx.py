"""Broken framing through a proxy: it and this server agree on what is one request (security check P08)."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol

from tests.edge.cases import CHUNKED, GOOD, get, head, post
from tests.edge.framing_rows import FRAMING
from tests.edge.talk import Front, Talker
from tests.needed import program

CONFIG = """\
{user}
pid nginx.pid;
error_log error.log;
worker_processes 1;
events {{ worker_connections 512; }}
http {{
    log_format passed '$upstream_status $request_uri';
    access_log access.log passed;
    lingering_close off;
    client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    upstream jobsvc {{ server 127.0.0.1:{port}; keepalive 2; }}
    server {{
        listen unix:{folder}/nginx.sock;
        location / {{
            proxy_pass http://jobsvc;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_request_buffering off;
        }}
    }}
}}
"""
SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
TRICKS = [
    head(b"Content-Length: %d" % len(SMUGGLED), CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    head(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n" + SMUGGLED),
    head(b"Transfer-Encoding: xchunked", body=SMUGGLED),
    head(b"Transfer-Encoding:\x0bchunked", body=b"0\r\n\r\n" + SMUGGLED),
    head(b"X: y\r\n Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
    head(b"Transfer-Encoding : chunked", b"Content-Length: 5", body=b"0\r\n\r\n" + SMUGGLED),
    head(b"Content-Length: 0\r\nContent-Length: %d" % len(SMUGGLED), body=SMUGGLED),
    head(CHUNKED, body=b"f;x=\n" + GOOD + b"\r\n0\r\n\r\n" + SMUGGLED),
    head(CHUNKED, body=b"0\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED)),
    head(CHUNKED, body=b"0\r\nX: y\n\r\n" + SMUGGLED),
    head(CHUNKED, body=b"0\r\nX: y\n\n" + SMUGGLED + b"\r\n"),
    head(CHUNKED, body=b"1" + b"0" * 16 + b"\r\n" + GOOD + b"\r\n0\r\n\r\n" + SMUGGLED),
    post(GOOD) + get(b"/v1/info") + post(GOOD),
    get(b"/v1/info") * 5,
]
"""What desynchronises two servers that read differently."""

UNSENT = ("B07", "B26")
"""Rows that announce a body and do not send it: a proxy waits for it."""


@pytest.fixture
def nginx(front: Front, tmp_path: Path) -> Iterator[Path]:
    """A proxy in front of the server; its folder, with its socket and its log."""
    user = "user root;" if os.geteuid() == 0 else ""
    config = tmp_path / "nginx.conf"
    config.write_text(CONFIG.format(user=user, port=front.port("tcp"), folder=tmp_path))
    command = [program("nginx"), "-p", str(tmp_path), "-c", str(config)]
    subprocess.run(command, check=True, capture_output=True)  # returns when it listens
    yield tmp_path
    subprocess.run([*command, "-s", "stop"], check=True, capture_output=True)


@pytest_twisted.ensureDeferred
async def test_p08_both_sides_count_the_same_requests(front: Front, nginx: Path) -> None:
    """What the proxy passed on was seen here, each once; what hides in a body only if the proxy too took it for one."""
    from twisted.internet import reactor

    seen: Counter[bytes] = Counter()
    observe = front.house.api.observe

    def count(request: Any, elapsed_s: float) -> None:
        seen[request.path] += 1
        observe(request, elapsed_s)

    front.house.api.observe = count  # type: ignore[method-assign]
    broken = [case.data for row in FRAMING if row not in UNSENT for case in FRAMING[row]]
    for data in [*TRICKS, *broken]:
        talker = Talker()
        await connectProtocol(UNIXClientEndpoint(reactor, str(nginx / "nginx.sock")), talker)
        talker.send(data + get(b"/livez", b"Connection: close") * 2)
        await talker.until(lambda: False)
    front.house.api.observe = observe  # type: ignore[method-assign]
    log = (nginx / "access.log").read_text(errors="replace").splitlines()
    passed = [line for line in log if not line.startswith("- ")]
    assert len(passed) > len(TRICKS)
    assert sum(seen.values()) == len(passed)
    assert seen[b"/v1/smuggled"] == sum(line.endswith(" /v1/smuggled") for line in passed)
