"""The configuration file: found where only its owner can put it, read strictly, under the environment."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobsvc.config import OPTIONS, SETTINGS, Config, ConfigError, build, gather
from jobsvc.config.file import FILE_MAX_BYTES, read, trust
from jobsvc.model.places import config_files

EVERYTHING = """
tasks = ["a", "b.c"]
path = ["/srv/lib"]
listen = ["unix:/run/jobsvc.sock", "tcp:0:interface=127.0.0.1"]
allowed_host = ["Jobs.example"]
behind_proxy = true
data_dir = "/srv/data"
cpu_workers = 3
threads = 5
loop_slots = 7
durability = "process"
args_max = "1M"
queue_max = 0
submit_rate = 12.5
drain_s = 4
keep_s = 86400.5
max_rss = "512M"
max_cpu_s = 60
max_open_files = 256
max_file_size = 4096
launcher_prefix = "bwrap --dev-bind / /"
recycle_jobs = 9
recycle_age = 60
recycle_rss = "1G"
reload = true
worker_env = []
audit = false
audit_keep = 30
secret_key = "/srv/keys"
log_format = "human"
log_level = "warn"
"""

ME = os.geteuid()


class Place:
    """A file of one's own, in a folder of one's own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "jobsvc.toml"

    def write(self, text: str | bytes) -> Path:
        self.path.write_bytes(text.encode() if isinstance(text, str) else text)
        self.path.chmod(0o600)
        return self.path

    def build(self, text: str | bytes, **environ: str) -> Config:
        return build({"config": str(self.write(text))}, environ)

    def problems(self, text: str | bytes) -> list[str]:
        """What is wrong with it, without the file's name."""
        path = self.write(text)
        found = gather({"config": str(path), "tasks": ["t"]}, {}).problems
        assert all(problem.startswith(str(path)) for problem in found), found
        assert all("\n" not in problem for problem in found), found
        return [problem.removeprefix(str(path)) for problem in found]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_every_option_can_stand_in_a_file(place: Place) -> None:
    """The text above has each of them, with a value that is not the default."""
    config = place.build(EVERYTHING)
    assert config == Config(
        config=place.path, tasks=("a", "b.c"), path=("/srv/lib",), allowed_host=("jobs.example",), behind_proxy=True,
        listen=("unix:/run/jobsvc.sock", "tcp:0:interface=127.0.0.1"), data_dir=Path("/srv/data"), cpu_workers=3,
        threads=5, loop_slots=7, durability="process", args_max=1024**2, queue_max=0, submit_rate=12.5, drain_s=4.0,
        keep_s=86400.5, max_rss=512 * 1024**2, max_cpu_s=60, max_open_files=256, max_file_size=4096,
        launcher_prefix=("bwrap", "--dev-bind", "/", "/"), recycle_jobs=9, recycle_age=60.0, recycle_rss=1024**3,
        reload=True, worker_env=(), audit=False, audit_keep=30, secret_key=Path("/srv/keys"), log_format="human",
        log_level="warn",
    )  # fmt: skip
    plain = build({"tasks": ["t"]}, {"HOME": "/h"})
    for option in SETTINGS:
        assert f"\n{option.field} = " in EVERYTHING
        assert getattr(config, option.field) != getattr(plain, option.field)


def test_precedence_and_origins(place: Place) -> None:
    """Command line before environment before file before default; each setting tells which."""
    path = place.write('# mine\ntasks = ["of_file"]\nthreads = 5\n\nloop_slots = 6\ncpu_workers = 7\n')
    environ = {"JOBSVC_CONFIG": str(path), "JOBSVC_THREADS": "8", "JOBSVC_LOOP_SLOTS": "9"}
    settings = gather({"loop-slots": "10"}, environ)
    assert settings.problems == []
    found = {name: tuple(settings.by_name[name]) for name in ("config", "tasks", "threads", "loop_slots")}
    assert found == {
        "config": (path, "JOBSVC_CONFIG"),
        "tasks": (("of_file",), f"{path}:2"),
        "threads": (8, "JOBSVC_THREADS"),
        "loop_slots": (10, "command line"),
    }
    assert settings.by_name["cpu_workers"] == (7, f"{path}:6")
    assert settings.by_name["drain_s"] == (30.0, "default")
    assert list(settings.by_name) == list(Config.__struct_fields__)
    assert {option.field for option in OPTIONS} == set(settings.by_name)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("thread = 3", ":2: 'thread' is no option; did you mean threads?"),
        ("data-dir = '/x'", ":2: 'data-dir' is no option; did you mean data_dir?"),
        ("Threads = 3", ":2: 'Threads' is no option; did you mean threads?"),
        ("zzz = 3", ":2: 'zzz' is no option; jobsvc config show lists the options"),
        ("[jobsvc]\nthreads = 3", ":2: 'jobsvc': there are no tables here; put the keys at the top"),
        ("jobsvc.threads = 3", ":2: 'jobsvc': there are no tables here; put the keys at the top"),
        ('config = "/x"', ":2: config: a file cannot name another; use --config or JOBSVC_CONFIG"),
        ('threads = "3"', ":2: threads: must be a whole number, not text ('3')"),
        ("threads = 3.0", ":2: threads: must be a whole number, not a number with a fraction (3.0)"),
        ("threads = true", ":2: threads: must be a whole number, not true or false"),
        ("threads = 0", ":2: threads: 0 is not between 1 and 4096"),
        ("threads = [3]", ":2: threads: must be a whole number, not an array"),
        ("threads = 2030-01-01", ":2: threads: must be a whole number, not a date or a time"),
        ("submit_rate = -1", ":2: submit_rate: -1 is not between 0 and 1000000 jobs per second"),
        ("drain_s = nan", ":2: drain_s: nan is not between 0 and 86400 seconds"),
        ('drain_s = "30s"', ":2: drain_s: must be a number of seconds, not text ('30s')"),
        ('max_rss = "2 cows"', ":2: max_rss: '2 cows' is no number of bytes; write 4096, 64K, 512M or 1G"),
        (
            "max_rss = 5e20",
            ':2: max_rss: must be a number of bytes or a text such as "512M", not a number with a fraction (5e+20)',
        ),
        ("reload = 1", ":2: reload: must be true or false, not a whole number (1)"),
        ('reload = "yes"', ":2: reload: must be true or false, not text ('yes')"),
        ('path = "/x"', ":2: path: must be an array, each of it text, not text ('/x')"),
        ("path = [1]", ":2: path: must be text, not a whole number (1)"),
        ("listen = []", ":2: listen: must not be an empty array; leave the key away for the default"),
        (
            'data_dir = "data"',
            ":2: data_dir: 'data' must be a whole path, from / or ~: a file is read from any folder",
        ),
        (
            'worker_env = ["JOBSVC_TOKEN"]',
            ":2: worker_env: 'JOBSVC_TOKEN' is the daemon's own and never handed to workers",
        ),
        ('listen = ["tcp:1\\u0000"]', ":2: listen: 'tcp:1\\x00' has a control character in it"),
        ("threads = ", ": is no TOML: Invalid value (at line 2, column 11)"),
        ("threads = 1\nthreads = 2", ": is no TOML: Cannot overwrite a value (at line 3, column 12)"),
    ],
)
def test_a_mistake_is_told_with_its_line(place: Place, line: str, words: str) -> None:
    """File, line, key, and what it may be."""
    assert place.problems(f"# a comment: thread = 1\n{line}\n") == [words]


def test_all_mistakes_are_found_in_one_go(place: Place) -> None:
    """From every source; the error of a start is the first, and says how many there are."""
    path = place.write('threds = 1\nkeep_s = "soon"\nlisten = []\n')
    given = {"config": str(path), "cpu-workers": "0"}
    settings = gather(given, {"JOBSVC_LOG_LEVEL": "loud"})
    assert [problem.split(" ")[0] for problem in settings.problems] == [
        f"{path}:3:", "--cpu-workers:", f"{path}:2:", "JOBSVC_LOG_LEVEL:", f"{path}:1:", "no",
    ]  # fmt: skip
    assert settings.config.keep_s == 7 * 86_400.0
    with pytest.raises(ConfigError, match=r"and 5 more: jobsvc config check lists them\)$") as given_error:
        build(given, {"JOBSVC_LOG_LEVEL": "loud"})
    assert given_error.value.problems == tuple(settings.problems)


def test_the_line_of_a_key_is_not_taken_from_a_text(place: Place) -> None:
    """A text over many lines may hold anything."""
    text = 'launcher_prefix = """\nthreads = 1\nthreads = 2\n"""\n"threads" = 0\n'
    assert ":5: threads: 0 is not between 1 and 4096" in place.problems(text)
    many = 'launcher_prefix = """\n' + "threads = 1\n" * 1_000 + '"""\nthreads = 0\n'
    assert ": threads: 0 is not between 1 and 4096" in place.problems(many)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\xef\xbb\xbfthreads = 0", ":1: threads: 0 is not"),
        (b"# \xe4\nthreads = 3", ":1: is not UTF-8 text"),
        (b"\n\nx = '\xff'", ":3: is not UTF-8 text"),
        (b"x = " + b"[" * 100_000, ": is nested too deeply"),
        (b"threads = " + b"1" * 5_000, ": is no TOML: "),
        (b"#" * (FILE_MAX_BYTES + 1), ": is larger than 256 KiB"),
    ],
)
def test_what_is_no_text_of_ours(place: Place, body: bytes, words: str) -> None:
    """Bytes, depth, digits, length."""
    (problem,) = place.problems(body)
    assert problem.startswith(words)


# -- where it is looked for ------------------------------------------------------------------------------------------


def test_the_search_path() -> None:
    """The service's own, the user's, the machine's; never the current folder, and no relative one."""
    system = Path("/etc/jobsvc/jobsvc.toml")
    assert config_files({}) == [system]
    assert config_files({"HOME": "/home/ada"}) == [Path("/home/ada/.config/jobsvc/jobsvc.toml"), system]
    environ = {"HOME": "/home/ada", "XDG_CONFIG_HOME": "/conf", "CREDENTIALS_DIRECTORY": "/run/cred"}
    assert config_files(environ) == [
        Path("/run/cred/jobsvc.toml"),
        Path("/conf/jobsvc/jobsvc.toml"),
        system,
    ]
    assert config_files({"HOME": "", "XDG_CONFIG_HOME": "conf", "CREDENTIALS_DIRECTORY": "."}) == [system]


def test_a_file_in_the_current_folder_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P24: whoever can write where a daemon is started would choose its code."""
    monkeypatch.chdir(tmp_path)
    for name in ("jobsvc.toml", ".jobsvc.toml"):
        (tmp_path / name).write_text("threads = 3\n")
    settings = gather({"tasks": ["t"]}, {"XDG_CONFIG_HOME": "."}, tmp_path / "none")
    assert settings.by_name["config"] == (None, "default")
    assert settings.by_name["threads"].origin == "default"


def test_the_first_file_is_read_alone(tmp_path: Path) -> None:
    """What the machine's file says is not mixed with the user's."""
    system = tmp_path / "system.toml"
    system.write_text("threads = 3\nloop_slots = 3\n")
    own = tmp_path / "jobsvc" / "jobsvc.toml"
    own.parent.mkdir()
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert build({"tasks": ["t"]}, environ, system).threads == 3
    own.write_text("threads = 4\n")
    config = build({"tasks": ["t"]}, environ, system)
    assert (config.config, config.threads, config.loop_slots) == (own, 4, 4096)
    credentials = tmp_path / "cred"
    credentials.mkdir()
    (credentials / "jobsvc.toml").write_text("threads = 5\n")
    environ["CREDENTIALS_DIRECTORY"] = str(credentials)
    assert build({"tasks": ["t"]}, environ, system).threads == 5


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    """Also the link of a search path that leads nowhere: somebody wanted a file to be read."""
    with pytest.raises(ConfigError, match=r"/none\.toml: cannot be read \(No such file or directory\)$"):
        build({"tasks": ["t"], "config": str(tmp_path / "none.toml")}, {})
    link = tmp_path / "system.toml"
    link.symlink_to(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"system\.toml: cannot be read"):
        build({"tasks": ["t"]}, {}, link)


def test_a_folder_that_is_hidden_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ProtectHome= hides them: said, and no reason not to start."""
    looked = Path.lstat

    def hidden(self: Path) -> os.stat_result:
        if str(self).startswith("/hidden"):
            raise PermissionError(13, "Permission denied")
        return looked(self)

    monkeypatch.setattr(Path, "lstat", hidden)
    settings = gather({"tasks": ["t"]}, {"HOME": "/hidden"}, tmp_path / "none")
    assert settings.problems == []
    assert settings.notes == [
        "/hidden/.config/jobsvc/jobsvc.toml: passed over, it cannot be looked at (Permission denied)"
    ]


# -- whom it is believed ---------------------------------------------------------------------------------------------


def test_p24_a_file_that_others_can_write_is_refused(place: Place) -> None:
    """P24: itself writable, or its folder, so that another can be put in its place. What to do is said."""
    path = place.write("threads = 3\n")
    path.chmod(0o646)
    with pytest.raises(ConfigError, match=rf"can be written by everyone: chmod o-w {path}$"):
        read(path, ME)
    path.chmod(0o644)
    assert read(path, ME)["threads"].value == 3
    path.parent.chmod(0o777)
    with pytest.raises(ConfigError, match=rf"chmod o-w {path.parent}$"):
        read(path, ME)
    path.parent.chmod(0o1777)  # as /tmp is: others can add files there, but not replace ours
    assert read(path, ME)["threads"].value == 3


def test_p24_a_link_out_of_a_safe_folder(tmp_path: Path) -> None:
    """P24: the folder of the file itself counts as well as the one of the link."""
    shared = tmp_path / "shared"
    shared.mkdir()
    real = shared / "real.toml"
    real.write_text("threads = 3\n")
    shared.chmod(0o777)
    link = tmp_path / "jobsvc.toml"
    link.symlink_to(real)
    with pytest.raises(ConfigError, match=rf"chmod o-w {shared}$"):
        read(link, ME)


def test_p24_a_file_of_somebody_else_is_refused(place: Place) -> None:
    """P24: only root and who runs the daemon are believed."""
    path = place.write("threads = 3\n")
    me = path.stat().st_uid
    assert trust(path, me) is None
    if me != 0:
        assert trust(path, me + 1) == (
            f"{path}: belongs to another user (uid {me}): chown it to root or to uid {me + 1}"
        )
    else:
        os.chown(path, 4_242, -1)
        with pytest.raises(ConfigError, match="belongs to another user \\(uid 4242\\)"):
            read(path, ME)
        assert trust(path, 4_242) is None


def test_p24_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """P24: a pipe would hold up the start, a folder is a mistake."""
    pipe = tmp_path / "jobsvc.toml"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(ConfigError, match=r"is no regular file$"):
            read(path, ME)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JOBSVC_LISTEN", "tcp:1\r\nX-Evil: 1"),
        ("JOBSVC_TASKS", "os;import evil"),
        ("JOBSVC_TASKS", "../evil"),
        ("JOBSVC_LAUNCHER_PREFIX", "a\x1b[2J"),
        ("JOBSVC_LAUNCHER_PREFIX", "sh -c 'unclosed"),
        ("JOBSVC_CONFIG", "/dev/null\x7f"),
        ("JOBSVC_CONFIG", "/dev/zero"),
        ("JOBSVC_WORKER_ENV", "LD_PRELOAD=/tmp/x.so"),
        ("JOBSVC_ALLOWED_HOST", "*"),
    ],
)
def test_p24_injection_by_the_environment_is_refused(name: str, value: str) -> None:
    """P24: a variable's text is one value and never more: no second line, option, module or pattern for all hosts."""
    given: dict[str, Any] = {} if name == "JOBSVC_TASKS" else {"tasks": ["t"]}
    with pytest.raises(ConfigError) as error:
        build(given, {name: value})
    assert str(error.value).isprintable()
    assert str(error.value).startswith((name, "/dev/zero: is no regular file"))


def test_a_variable_that_no_option_reads_is_told() -> None:
    """Not refused: other programs may use the prefix."""
    environ = {"JOBSVC_THREDS": "3", "JOBSVC_ZZZ": "1", "JOBSVC_TOKEN": "x", "JOBSVC_URL": "y", "OTHER": "z"}
    assert gather({"tasks": ["t"]}, environ).notes == [
        "JOBSVC_THREDS: no option reads this variable; did you mean JOBSVC_THREADS?",
        "JOBSVC_ZZZ: no option reads this variable",
    ]


def test_keys_for_secrets_come_from_systemd_when_it_gives_them(tmp_path: Path) -> None:
    """A credential goes before the data directory, an option before both."""
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "JOBSVC_DATA_DIR": "/srv"}
    assert build({"tasks": ["t"]}, environ).secret_key == Path("/srv/secret-keys")
    keys = tmp_path / "jobsvc-secret-keys"
    keys.touch()
    settings = gather({"tasks": ["t"]}, environ)
    assert settings.by_name["secret_key"] == (keys, "CREDENTIALS_DIRECTORY")
    assert build({"tasks": ["t"], "secret-key": "/x"}, environ).secret_key == Path("/x")


# -- whatever stands in it -------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=20), st.datetimes(),
    st.sampled_from(("512M", "~", "/x", "::1", "power", "on", "JOBSVC_TOKEN", "a b", "")),
)  # fmt: skip
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=3), st.lists(st.lists(SCALARS, max_size=2), max_size=2)
)
KEYS = st.one_of(st.sampled_from([option.field for option in OPTIONS]), st.text(min_size=1, max_size=10))


def spelled(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, list):
        return f"[{', '.join(map(spelled, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(char):08x}" for char in value) + '"'
    return value.isoformat() if isinstance(value, datetime) else repr(value)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_values_are_taken_or_refused_in_one_line_each(place: Place, table: dict[str, Any]) -> None:
    """Whatever TOML says: a setting of the type that `Config` declares, or a line that names the key's place."""
    text = "".join(f"{spelled(key)} = {spelled(value)}\n" for key, value in table.items())
    path = place.write(text)
    found = gather({"config": str(path)}, {})
    for problem in found.problems:
        assert problem.isprintable()
        assert problem.startswith((str(path), "no --tasks"))
    plain = msgspec.to_builtins(found.config, enc_hook=str)
    again = msgspec.convert(plain, Config, dec_hook=lambda kind, text: kind(text))
    assert again == found.config


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_are_taken_or_refused(place: Place, body: bytes) -> None:
    """No traceback, no second line."""
    for problem in place.problems(body):
        assert problem.isprintable()


def test_the_example_of_the_documentation(place: Place) -> None:
    """`docs/configuration.md` shows a file that a daemon would take."""
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    examples = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert examples
    for example in examples:
        assert gather({"config": str(place.write(example))}, {}).problems == []
