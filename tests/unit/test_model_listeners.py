"""From where a listener can be reached, by its text."""

from __future__ import annotations

import pytest

from jobsvc.model.listeners import reach_of


@pytest.mark.parametrize(
    ("text", "reach"),
    [
        ("tcp:8787:interface=127.0.0.1", "machine"),
        ("tcp:8787:interface=127.9.9.9", "machine"),
        ("tcp6:8787:interface=\\:\\:1", "machine"),
        ("tcp:port=8787:interface=127.0.0.1", "machine"),
        ("tcp:8787:127.0.0.1", "machine"),
        ("unix:/run/jobsvc.sock:mode=660", "machine"),
        ("tcp:8787", "open"),
        ("tcp6:8787", "open"),
        ("tcp:8787:interface=", "open"),
        ("tcp:8787:interface=0.0.0.0", "open"),
        ("tcp:8787:interface=10.0.0.7", "open"),
        ("tcp6:8787:interface=\\:\\:", "open"),
        ("tcp6:8787:interface=fe80\\:\\:1%eth0", "open"),
        ("ssl:443:privateKey=k.pem", "encrypted"),
        ("tls:/etc/certs:port=443", "encrypted"),
        ("systemd:domain=INET:name=http", "unknown"),
        ("tcp:8787:interface=jobs.example", "unknown"),
        ("fd:3", "unknown"),
    ],
)
def test_reach(text: str, reach: str) -> None:
    assert reach_of(text) == reach
