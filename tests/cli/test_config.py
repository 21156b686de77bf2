"""`jobsvc config`: what a daemon started here would have, and everything that is wrong with it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from jobsvc.cli.root import run
from jobsvc.cli.shell import Shell
from jobsvc.config import OPTIONS, SETTINGS

NO_TASKS = (
    "no --tasks: name the module of your tasks, for example --tasks mytasks (JOBSVC_TASKS; in a file, "
    'tasks = ["mytasks"])'
)
INSTEAD = (
    "listen on 127.0.0.1, on unix:, or on ssl: and tls: endpoints; "
    "behind_proxy says that a proxy in front encrypts"
)


class Command:
    """Runs `jobsvc …` in this process, in an environment of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, *words: str, terminal: bool = False) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""

        def no_daemon() -> Any:
            raise AssertionError("no daemon is asked")

        code = run(list(words), Shell(no_daemon, terminal=terminal))
        out, err = self._capsys.readouterr()
        return code, out, err

    def shown(self, *words: str) -> dict[str, Any]:
        code, out, err = self("config", "show", "--origin", *words)
        assert (code, err) == (0, "")
        rows = map(json.loads, out.splitlines())
        return {row["option"]: (row["value"], row["origin"]) for row in rows}


@pytest.fixture
def jobsvc(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    for name in [name for name in os.environ if name.startswith("JOBSVC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "conf"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path, capsys)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_show_tells_every_setting_and_its_origin(jobsvc: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the help; the global --data-dir counts as one of its options."""
    path = write(jobsvc.folder / "conf/jobsvc/jobsvc.toml", 'tasks = ["mine"]\nthreads = 3\n')
    monkeypatch.setenv("JOBSVC_THREADS", "4")
    monkeypatch.setenv("JOBSVC_DATA_DIR", "/env")
    shown = jobsvc.shown("--behind-proxy", "--listen", "tcp:1", "--listen", "unix:/x")
    assert list(shown) == [option.field for option in OPTIONS]
    assert shown["config"] == (str(path), "default")
    assert shown["tasks"] == (["mine"], f"{path}:1")
    assert shown["threads"] == (4, "JOBSVC_THREADS")
    assert shown["behind_proxy"] == (True, "command line")
    assert shown["listen"] == (["tcp:1", "unix:/x"], "command line")
    assert shown["data_dir"] == ("/env", "JOBSVC_DATA_DIR")
    assert shown["max_rss"] == (None, "default")
    code, out, _ = jobsvc("--data-dir", "/global", "config", "show")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {"option": "data_dir", "value": "/global"} in rows
    code, out, _ = jobsvc("config", "show", "--origin", terminal=True)
    assert code == 0
    assert out.splitlines()[0].split() == ["OPTION", "ORIGIN", "VALUE"]
    assert ["tasks", "jobsvc.toml:1", '["mine"]'] in [line.split() for line in out.splitlines()]
    assert ["threads", "JOBSVC_THREADS", "4"] in [line.split() for line in out.splitlines()]


def test_show_prints_no_secret(jobsvc: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tokens and keys the names of files at most."""
    secret = "jobsvc_1.hidden"
    monkeypatch.setenv("JOBSVC_TOKEN", secret)
    keys = write(jobsvc.folder / "data/secret-keys", secret)
    write(jobsvc.folder / "data/token", secret)
    for words in (("config", "show", "--origin"), ("config", "check"), ("doctor",)):
        for terminal in (False, True):
            code, out, err = jobsvc("--data-dir", str(jobsvc.folder / "data"), *words, terminal=terminal)
            assert "hidden" not in out + err
            assert code in (0, 1)
    assert jobsvc.shown("--data-dir", str(keys.parent))["secret_key"] == (str(keys), "default")


def test_show_goes_on_past_what_is_wrong(jobsvc: Command) -> None:
    """The default in its place, the mistake on standard error, exit 1."""
    code, out, err = jobsvc("config", "show", "--threads", "0")
    assert code == 1
    assert len(out.splitlines()) == len(OPTIONS)
    assert err == "jobsvc: --threads: 0 is not between 1 and 4096\n"


def test_check_of_good_settings(jobsvc: Command) -> None:
    """Exit 0, in both forms; nothing is made."""
    path = write(jobsvc.folder / "j.toml", 'tasks = ["mine"]\nmax_rss = "512M"\n')
    code, out, err = jobsvc("config", "check", str(path))
    assert (code, err) == (0, "")
    assert json.loads(out) == {"file": str(path), "ok": True, "problems": [], "notes": []}
    assert jobsvc("config", "check", str(path), terminal=True)[:2] == (0, f"{path}: good\n")
    assert [file.name for file in jobsvc.folder.iterdir()] == ["j.toml"]


def test_check_tells_everything_in_one_go(jobsvc: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """From every source, also what a start would refuse of the listeners; exit 1."""
    path = write(jobsvc.folder / "j.toml", 'thread = 3\nlisten = ["tcp:8787"]\nqueue_max = -1\n')
    monkeypatch.setenv("JOBSVC_AUDIT", "perhaps")
    monkeypatch.setenv("JOBSVC_TASK", "mine")
    code, out, _ = jobsvc("config", "check", str(path), "--keep-s", "long")
    report = json.loads(out)
    assert (code, report["ok"]) == (1, False)
    assert report["problems"] == [
        f"{path}:3: queue_max: -1 is not between 0 and 1000000000",
        "--keep-s: 'long' is not a number of seconds",
        "JOBSVC_AUDIT: 'perhaps' is neither on nor off (1 and 0, true and false, yes and no)",
        f"{path}:1: 'thread' is no option; did you mean threads?",
        NO_TASKS,
        f"{path}:2: listen: tcp:8787 is open to other machines and not encrypted; {INSTEAD}",
    ]  # fmt: skip
    assert report["notes"] == ["JOBSVC_TASK: no option reads this variable; did you mean JOBSVC_TASKS?"]
    keys = jobsvc.folder / "keys"
    bad = (
        "--secret-key",
        str(keys),
        "--listen",
        "tcp:eight:interface=127.0.0.1",
        "--listen",
        "8787",
        "--tasks",
        "t",
    )
    code, out, _ = jobsvc("config", "check", *bad)
    assert json.loads(out)["problems"] == [
        "JOBSVC_AUDIT: 'perhaps' is neither on nor off (1 and 0, true and false, yes and no)",
        "command line: listen: tcp:eight:interface=127.0.0.1: port=eight: a number from 0 to 65535 is expected",
        "command line: listen: 8787: the kind comes first: tcp:8787:interface=127.0.0.1",
        f"command line: secret_key: {keys} is not there; put it back, or leave the option away",
    ]
    broken = write(
        jobsvc.folder / "broken.toml", 'tasks = ["mine"'
    )  # which may well name tasks: nothing on those
    code, out, _ = jobsvc("config", "check", str(broken), "--audit", "on")
    [problem] = json.loads(out)["problems"]
    assert problem.startswith(f"{broken}: is no TOML")
    code, out, _ = jobsvc("config", "check", str(path), "--tasks", "t", terminal=True)
    assert code == 1
    assert out.splitlines()[-1] == f"{path}: 4 to be mended"
    code, _, _ = jobsvc(
        "config", "check", "--tasks", "t", "--listen", "tcp:80", "--behind-proxy", "--audit", "on"
    )
    assert code == 0


def test_check_of_a_file_that_is_not_there(jobsvc: Command) -> None:
    """An error of the settings, not of the command line."""
    code, out, _ = jobsvc("config", "check", "/none/j.toml", "--tasks", "t")
    assert code == 1
    assert json.loads(out)["problems"] == ["/none/j.toml: cannot be read (No such file or directory)"]


@pytest.mark.parametrize("command", [("config", "show"), ("config", "check"), ("doctor",)])
def test_the_help_has_the_options_of_the_daemon(jobsvc: Command, command: tuple[str, ...]) -> None:
    """Every one, with its variable."""
    code, out, _ = jobsvc(*command, "--help")
    text = " ".join(out.split())
    assert code == 0
    for option in SETTINGS:
        assert f"--{option.name}" in text
        assert option.variable in text


def test_commands_find_the_folder_that_the_file_names(
    jobsvc: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the daemon keeps its things when only the file says so."""
    write(jobsvc.folder / "conf/jobsvc/jobsvc.toml", f'data_dir = "{jobsvc.folder}/there"\n')
    code, _, err = jobsvc("db", "check")
    assert code == 1
    assert f"{jobsvc.folder}/there/jobsvc.db" in err
    code, _, err = jobsvc("--data-dir", "/given", "db", "check")
    assert "/given/jobsvc.db" in err
    other = write(jobsvc.folder / "other.toml", f'data_dir = "{jobsvc.folder}/other"\n')
    monkeypatch.setenv("JOBSVC_CONFIG", str(other))
    code, _, err = jobsvc("db", "check")
    assert f"{jobsvc.folder}/other/jobsvc.db" in err
