"""Starts that are refused: one line on stderr that says what to do, a bad status, and nothing left behind."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.daemon import TASKS_MODULE, clean_environ
from tests.integration.launching import BOTH, TASKS, TWIST, TWISTD
from tests.integration.processes import processes_in

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import StartDaemon
    from tests.integration.daemon import WheelEnv

REFUSAL_DEADLINE_S = 60.0


# -- starts that are refused --------------------------------------------------------------------------------------


def refused(
    wheel_env: WheelEnv,
    folder: Path,
    *options: str,
    launcher: tuple[str, ...] = TWISTD,
    environ: dict[str, str] | None = None,
    tasks: str | None = TASKS,
) -> list[str]:
    """Start a daemon that must refuse. The lines on stderr, after having seen that nothing was left behind."""
    if tasks is not None:
        (folder / f"{TASKS_MODULE}.py").write_text(tasks)
    program, *words = launcher
    try:
        done = subprocess.run(
            [wheel_env.program(program), *words, "jobsvc", *options],
            cwd=folder,
            env=clean_environ(folder, environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=REFUSAL_DEADLINE_S,
            check=False,
        )
    finally:
        left = processes_in(folder)
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert not left
    assert not list(folder.rglob("endpoint.json"))
    lines = done.stderr.splitlines()
    assert lines[0].startswith("jobsvc: "), done.stderr
    return lines


def start_options(folder: Path, *more: str, listen: str = "tcp:0:interface=127.0.0.1") -> list[str]:
    """What a start needs, and more."""
    return ["--tasks", TASKS_MODULE, "--data-dir", str(folder / "data"), "--listen", listen, *more]


@BOTH
def test_no_tasks(wheel_env: WheelEnv, tmp_path: Path, launcher: tuple[str, ...]) -> None:
    """One line that says what is missing, and how to give it; nothing is written."""
    (line,) = refused(wheel_env, tmp_path, launcher=launcher, tasks=None)
    assert "--tasks mytasks" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--threads", "many"], "--threads: 'many'"),
        (["--cpu-workers", "0"], "--cpu-workers: 0"),
        (["--durability", "some"], "--durability: 'some'"),
        (["--drain-s", "nan"], "--drain-s: nan"),
        (["--tasks", "my/tasks.py"], "'my/tasks.py' is not a module name"),
        (["--frobnicate"], "--frobnicate"),
        (["stray"], "Wrong number of arguments"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_option(wheel_env: WheelEnv, tmp_path: Path, options: list[str], word: str) -> None:
    """One line that names the option and its value; no data directory is made."""
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path, *options))
    assert word in line
    assert not (tmp_path / "data").exists()


def test_bad_option_under_twist(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """The same line, not the whole help."""
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path, "--threads", "many"), launcher=TWIST)
    assert "--threads: 'many'" in line


@pytest.mark.parametrize(
    "environ", [{"JOBSVC_THREADS": "many"}, {"JOBSVC_RELOAD": "perhaps"}], ids=lambda value: next(iter(value))
)
def test_bad_environment_variable(wheel_env: WheelEnv, tmp_path: Path, environ: dict[str, str]) -> None:
    """One line that names the variable."""
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path), environ=environ)
    ((name, value),) = environ.items()
    assert f"{name}: {value!r}" in line


@BOTH
def test_port_in_use(wheel_env: WheelEnv, tmp_path: Path, launcher: tuple[str, ...]) -> None:
    """One line that names the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = start_options(tmp_path, listen=f"tcp:{port}:interface=127.0.0.1")
        (line,) = refused(wheel_env, tmp_path, *options, launcher=launcher)
    assert str(port) in line
    assert "in use" in line


@pytest.mark.parametrize(
    ("listen", "word"),
    [
        ("tcp:0:interface=0.0.0.0", "open to other machines"),
        ("tcp6:0:interface=\\:\\:", "open to other machines"),
        ("nonsense:1", "nonsense"),
        ("unix:no/such/folder/socket", "no/such/folder"),
        ("systemd:domain=INET:name=http", "LISTEN_FDS"),
    ],
)
def test_bad_listener(wheel_env: WheelEnv, tmp_path: Path, listen: str, word: str) -> None:
    """One line that names it; a port open to other machines is refused unless it is encrypted."""
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path, listen=listen))
    assert listen in line
    assert word in line


@BOTH
def test_module_that_is_not_there(wheel_env: WheelEnv, tmp_path: Path, launcher: tuple[str, ...]) -> None:
    """One line that names it and says what to do."""
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path), launcher=launcher, tasks=None)
    assert TASKS_MODULE in line
    assert "--path" in line


@pytest.mark.parametrize(
    ("text", "first", "more"),
    [
        ("import no_such_library\n", "No module named 'no_such_library'", "line 1, in <module>"),
        ("def oops(:\n", "SyntaxError", "def oops(:"),
        ("x = 1\nraise ValueError('why me')\n", "ValueError: why me", "line 2, in <module>"),
        ("raise SystemExit(3)\n", "SystemExit", "line 1, in <module>"),
    ],
    ids=["import", "syntax", "error", "exit"],
)
def test_module_that_does_not_load(
    wheel_env: WheelEnv, tmp_path: Path, text: str, first: str, more: str
) -> None:
    """A line that names the module and the error, then its traceback."""
    line, *rest = refused(wheel_env, tmp_path, *start_options(tmp_path), tasks=text)
    assert TASKS_MODULE in line
    assert first in line
    shown = "\n".join(rest)
    assert more in shown
    assert f"{TASKS_MODULE}.py" in shown
    assert "jobsvc/worker" not in shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            TASKS + '\n@task(name="greet")\ndef other() -> None: ...\n',
            ("two tasks are called 'greet'", "other"),
        ),
        ("x = 1\n", ("it names no tasks",)),
        ("import os\nos._exit(7)\n", ("status 7",)),
    ],
    ids=["two of one name", "no task", "os._exit"],
)
def test_module_that_is_no_use(
    wheel_env: WheelEnv, tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    """One line."""
    line, *_ = refused(wheel_env, tmp_path, *start_options(tmp_path), tasks=text)
    for word in words:
        assert word in line


def test_two_modules_with_tasks_of_one_name(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """The line names both places."""
    (tmp_path / "second.py").write_text(TASKS)
    line, *_ = refused(wheel_env, tmp_path, *start_options(tmp_path, "--tasks", "second"))
    assert f"{TASKS_MODULE}.greet" in line
    assert "second.greet" in line


def test_data_directory_in_use(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """The line names who holds it; who holds it is not troubled."""
    daemon = start_daemon(TASKS)
    folder = tmp_path / "second"
    folder.mkdir()
    options = start_options(folder)
    options[3] = str(daemon.data_dir)
    (line,) = refused(daemon.env, folder, *options)
    assert f"pid {daemon.pid}" in line
    assert "--data-dir" in line
    assert daemon.is_ready()


def data_folder(folder: Path) -> Path:
    """An empty data directory."""
    data = folder / "data"
    data.mkdir(mode=0o700)
    return data


@pytest.mark.parametrize(
    "content",
    [b"this is no database, whatever its name says\n" * 200, b"SQLite format 3\0" + b"\0" * 4080],
    ids=["text", "header"],
)
def test_file_that_is_no_database(wheel_env: WheelEnv, tmp_path: Path, content: bytes) -> None:
    """One line that names it; the file is left as it was."""
    database = data_folder(tmp_path) / "jobsvc.db"
    database.write_bytes(content)
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path))
    assert str(database) in line
    assert database.read_bytes() == content


def test_database_of_another_program(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """One line that says so; the file is left as it was."""
    database = data_folder(tmp_path) / "jobsvc.db"
    with closing(sqlite3.connect(database)) as other:
        other.execute("CREATE TABLE jobs (x)")
        other.commit()
    before = database.read_bytes()
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path))
    assert str(database) in line
    assert database.read_bytes() == before


def test_directory_open_to_everyone(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """Writable by everyone: refused with the command that mends it, and not used."""
    data = data_folder(tmp_path)
    data.chmod(0o777)
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path))
    assert f"chmod 700 {data}" in line
    assert list(data.iterdir()) == []


@pytest.mark.parametrize("text", ["", "secret\n"], ids=["empty", "other"])
def test_token_file_that_holds_no_token(wheel_env: WheelEnv, tmp_path: Path, text: str) -> None:
    """One line that says how to mend it."""
    (data_folder(tmp_path) / "token").write_text(text)
    (line,) = refused(wheel_env, tmp_path, *start_options(tmp_path))
    assert "token" in line
    assert "remove it" in line


def test_background_start_tells_the_terminal(wheel_env: WheelEnv, tmp_path: Path) -> None:
    """Without -n: the one who waits hears why, and no pid file stays."""
    (tmp_path / f"{TASKS_MODULE}.py").write_text(TASKS)
    options: Any = start_options(tmp_path, listen="tcp:0:interface=0.0.0.0")
    with (tmp_path / "said").open("w") as said:  # a file: the child in the background would hold a pipe
        done = subprocess.run(
            [wheel_env.program("twistd"), "jobsvc", *options],
            cwd=tmp_path, env=clean_environ(tmp_path), stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            timeout=REFUSAL_DEADLINE_S, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "--listen tcp:0:interface=0.0.0.0" in (tmp_path / "said").read_text()  # twistd cuts the rest
    assert not (tmp_path / "twistd.pid").exists()
