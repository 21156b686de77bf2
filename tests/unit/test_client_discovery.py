"""Where the daemon is and by what token: the order of the places, and clear words when there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobsvc.client.discovery import find_target, pid_alive
from jobsvc.client.errors import Unreachable
from jobsvc.model.places import default_data_dir


def folder(tmp_path: Path, **endpoint: Any) -> Path:
    """A data directory as a listening daemon leaves it."""
    fields = {"url": "http://127.0.0.1:8787", "unix": None, "pid": os.getpid(), "boot": "b", **endpoint}
    (tmp_path / "endpoint.json").write_text(json.dumps(fields))
    (tmp_path / "token").write_text("jobsvc_1.local\n")
    return tmp_path


def test_the_data_directory_knows_url_and_token(tmp_path: Path) -> None:
    """What the daemon of this machine wrote is enough."""
    target = find_target(data_dir=folder(tmp_path), environ={})
    assert target == ("http://127.0.0.1:8787", None, "jobsvc_1.local")
    assert find_target(environ={"JOBSVC_DATA_DIR": str(tmp_path)}) == target


def test_arguments_win_over_environment_and_environment_over_files(tmp_path: Path) -> None:
    """URL and token, each by itself."""
    place = folder(tmp_path)
    (tmp_path / "other").write_text(" from-file\n")
    environ = {
        "JOBSVC_URL": "http://127.0.0.1:1/",
        "JOBSVC_TOKEN": "env",
        "JOBSVC_TOKEN_FILE": str(tmp_path / "other"),
    }
    assert find_target("http://[::1]:2", "arg", place, environ=environ) == ("http://[::1]:2", None, "arg")
    assert find_target(data_dir=place, environ=environ) == ("http://127.0.0.1:1", None, "env")
    del environ["JOBSVC_TOKEN"]
    assert find_target(data_dir=place, environ=environ).token == "from-file"
    del environ["JOBSVC_TOKEN_FILE"]
    assert find_target(data_dir=place, environ=environ).token == "jobsvc_1.local"


def test_a_part_of_the_service_finds_the_token_that_systemd_gave(tmp_path: Path) -> None:
    """As ExecReload= does: the credential goes before the data directory's own token, which the daemon did not take."""
    place = folder(tmp_path)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "cred")}
    assert find_target(data_dir=place, environ=environ).token == "jobsvc_1.local"
    (tmp_path / "cred").mkdir()
    (tmp_path / "cred" / "jobsvc-token").write_text("jobsvc_2.given\n")
    assert find_target(data_dir=place, environ=environ).token == "jobsvc_2.given"
    assert find_target("https://jobs.example", data_dir=place, environ=environ).token is None


def test_the_local_token_never_leaves_the_machine(tmp_path: Path) -> None:
    """A URL elsewhere gets only a token that was meant for it."""
    place = folder(tmp_path)
    assert find_target("https://jobs.example", data_dir=place, environ={}).token is None
    assert find_target("https://jobs.example", data_dir=place, environ={"JOBSVC_TOKEN": "t"}).token == "t"


def test_unix_sockets(tmp_path: Path) -> None:
    """By URL, as an endpoint string, and from endpoint.json when the daemon listens nowhere else."""
    place = folder(tmp_path, url=None, unix="/run/jobsvc.sock")
    assert find_target(data_dir=place, environ={}) == (
        "http://localhost",
        "/run/jobsvc.sock",
        "jobsvc_1.local",
    )
    assert find_target("unix:/x.sock:mode=660", data_dir=place, environ={}).unix == "/x.sock"


def test_no_daemon_is_said_clearly(tmp_path: Path) -> None:
    """Which file was looked for, and what to do."""
    with pytest.raises(Unreachable, match=r"there is no .*endpoint\.json\. Start one"):
        find_target(data_dir=tmp_path, environ={})


def test_a_stale_endpoint_is_said_clearly(tmp_path: Path) -> None:
    """The daemon was killed and left its file: not a connection refused, but what happened."""
    with pytest.raises(Unreachable, match="pid 4242\\) is gone: it was killed"):
        find_target(data_dir=folder(tmp_path, pid=4242), environ={}, alive=lambda pid: pid != 4242)


def test_broken_files_are_said_clearly(tmp_path: Path) -> None:
    """Half a file, or a token file that is not there."""
    (tmp_path / "endpoint.json").write_text("{")
    with pytest.raises(Unreachable, match="cannot read"):
        find_target(data_dir=tmp_path, environ={})
    with pytest.raises(Unreachable, match="JOBSVC_TOKEN_FILE"):
        find_target("http://localhost:1", environ={"JOBSVC_TOKEN_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize("url", ["localhost:8787", "ftp://x", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match="is no URL of a daemon"):
        find_target(url, environ={})


def test_a_process_is_alive_or_not() -> None:
    """This one is; one that has been waited for is not."""
    assert pid_alive(os.getpid())
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    child.wait()
    assert not pid_alive(child.pid)


def test_default_data_dir_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Named, then the service manager's, then the user's folder for state."""
    both = {"JOBSVC_DATA_DIR": "/named", "STATE_DIRECTORY": "/var/lib/jobsvc:/var/lib/more"}
    assert default_data_dir(both) == Path("/named")
    assert default_data_dir({"STATE_DIRECTORY": both["STATE_DIRECTORY"]}) == Path("/var/lib/jobsvc")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_data_dir({}) == tmp_path / "jobsvc"
