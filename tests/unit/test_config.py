"""The options of the daemon: command line before environment before defaults, and one clear line for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobsvc.config import LISTEN, OPTIONS, Config, ConfigError, build, usable_cpus
from jobsvc.model.task import NO_LIMITS, Limits
from jobsvc.tap import Options


def test_defaults() -> None:
    config = build({"tasks": ["mytasks"]}, {"JOBSVC_DATA_DIR": "/srv/x"})
    assert config == Config(
        tasks=("mytasks",), data_dir=Path("/srv/x"), cpu_workers=usable_cpus(), listen=(LISTEN,),
        secret_key=Path("/srv/x/secret-keys"),
    )  # fmt: skip
    assert (config.durability, config.drain_s, config.keep_s) == ("power", 30.0, 7 * 86_400.0)


def test_the_command_line_beats_the_environment() -> None:
    environ = {"JOBSVC_TASKS": "a,b", "JOBSVC_THREADS": "5", "JOBSVC_RELOAD": "1", "JOBSVC_DATA_DIR": "/env"}
    config = build({"threads": "7", "data-dir": "/given"}, environ)
    assert (config.tasks, config.threads, config.reload) == (("a", "b"), 7, True)
    assert config.data_dir == Path("/given")


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("300K", 300 * 1024), ("64m", 64 * 1024 * 1024)])
def test_sizes(text: str, size: int) -> None:
    assert build({"tasks": ["t"], "args-max": text}, {}).args_max == size


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("700M", 700 * 1024**2), ("2g", 2 * 1024**3)])
def test_sizes_of_memory(text: str, size: int) -> None:
    assert build({"tasks": ["t"], "recycle-rss": text}, {}).recycle_rss == size


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("cpu-workers", "0"),
        ("cpu-workers", "two"),
        ("threads", "-1"),
        ("loop-slots", "-1"),
        ("keep-s", "soon"),
        ("keep-s", "nan"),
        ("drain-s", "-0.1"),
        ("args-max", "65M"),
        ("args-max", "K"),
        ("max-rss", "1M"),
        ("max-rss", "2 cows"),
        ("max-rss", "-1"),
        ("max-cpu-s", "0"),
        ("max-cpu-s", "1.5"),
        ("max-open-files", "3"),
        ("max-file-size", "0"),
        ("max-file-size", "2000T"),
        ("launcher-prefix", "bwrap 'unclosed"),
        ("launcher-prefix", " "),
        ("durability", "strong"),
        ("recycle-jobs", "-1"),
        ("recycle-age", "old"),
        ("recycle-rss", "2X"),
        ("tasks", "my-tasks"),
        ("tasks", "mytasks.py"),
        ("allowed-host", "https://jobs.example"),
        ("allowed-host", "jobs.example:8787"),
        ("allowed-host", "*.example"),
        ("allowed-host", "jöbs.example"),
        ("allowed-host", "-x"),
        ("behind-proxy", "perhaps"),
        ("queue-max", "-1"),
        ("queue-max", "1e6"),
        ("submit-rate", "inf"),
        ("submit-rate", "-1"),
        ("worker-env", "A=b"),
        ("worker-env", "my var"),
        ("worker-env", "JOBSVC_TOKEN"),
        ("worker-env", "NOTIFY_SOCKET"),
        ("audit", "perhaps"),
        ("audit-keep", "-1"),
        ("audit-keep", "90d"),
        ("audit-keep", "1000000"),
        ("secret-key", "~nobody-of-this-name/keys"),
        ("log-format", "xml"),
        ("log-level", "warning"),
        ("listen", "tcp:0\nX"),
        ("data-dir", " "),
    ],
)
def test_a_bad_value_is_told_by_the_name_it_came_by(option: str, text: str) -> None:
    repeat = next(known.repeat for known in OPTIONS if known.name == option)
    values: dict[str, list[str] | str] = {"tasks": ["t"]}
    values[option] = [text] if repeat else text
    with pytest.raises(ConfigError, match=f"^--{option}: .") as given:
        build(values, {})
    assert "\n" not in str(given.value)
    if option != "tasks":
        variable = "JOBSVC_" + option.upper().replace("-", "_")
        with pytest.raises(ConfigError, match=f"^{variable}: ."):
            build({"tasks": ["t"]}, {variable: text})


def test_no_tasks_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="--tasks mytasks"):
        build({}, {})


def test_every_option_names_its_variable_in_the_help() -> None:
    text = " ".join(str(Options()).split())
    for option in OPTIONS:
        assert f"--{option.name}" in text
        assert f"[env: {option.variable}]" in text


def test_limits_of_what_jobs_may_use() -> None:
    """None by default; each by its own option or variable."""
    assert build({"tasks": ["t"]}, {}).limits == NO_LIMITS
    given = {"tasks": ["t"], "max-rss": "512M", "max-file-size": "1G"}
    config = build(given, {"JOBSVC_MAX_CPU_S": "60", "JOBSVC_MAX_OPEN_FILES": "256"})
    assert config.limits == Limits(512 * 1024 * 1024, 60, 256, 1024 * 1024 * 1024)


def test_the_launcher_prefix_is_split_as_a_shell_does() -> None:
    config = build({"tasks": ["t"], "launcher-prefix": "bwrap --setenv GREETING 'good morning'"}, {})
    assert config.launcher_prefix == ("bwrap", "--setenv", "GREETING", "good morning")


def test_an_empty_variable_says_nothing() -> None:
    """As a unit file or a compose file leaves it: not a data directory in the current folder."""
    names = [option.variable for option in OPTIONS]
    assert build({"tasks": ["t"]}, dict.fromkeys(names, "") | {"HOME": "/home/ada"}) == build(
        {"tasks": ["t"]}, {"HOME": "/home/ada"}
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Jobs.Example", "jobs.example"),
        ("10.0.0.7", "10.0.0.7"),
        ("::1", "[::1]"),
        ("[FE80:0::1]", "[fe80::1]"),
        ("my_host", "my_host"),
    ],
)
def test_names_of_this_server(text: str, name: str) -> None:
    """As a Host header spells them."""
    assert build({"tasks": ["t"], "allowed-host": [text]}, {}).allowed_host == (name,)


def test_options_of_the_front_door() -> None:
    """What stands for all of them by default, and that each can be given."""
    config = build({"tasks": ["t"]}, {})
    assert (config.allowed_host, config.behind_proxy, config.audit, config.worker_env) == (
        (),
        False,
        True,
        None,
    )
    assert (config.queue_max, config.submit_rate, config.audit_keep) == (1_000_000, 0.0, 90)
    assert (config.log_format, config.log_level) == ("auto", "info")
    given = {
        "tasks": ["t"], "behind-proxy": "1", "audit": "off", "audit-keep": "0", "queue-max": "0", "submit-rate": "2.5",
        "log-format": "json", "log-level": "debug", "worker-env": ["AWS_*", "LC_ALL"], "secret-key": "/etc/keys",
    }  # fmt: skip
    config = build(given, {})
    assert (config.behind_proxy, config.audit, config.worker_env) == (True, False, ("AWS_*", "LC_ALL"))
    assert (config.queue_max, config.submit_rate, config.audit_keep) == (0, 2.5, 0)
    assert (config.log_format, config.log_level) == ("json", "debug")
    assert config.secret_key == Path("/etc/keys")


def test_a_home_folder_is_found_wherever_a_path_is_given() -> None:
    """The shell does it on the command line only."""
    config = build({"tasks": ["t"]}, {"JOBSVC_DATA_DIR": "~/jobs", "JOBSVC_SECRET_KEY": "~/keys"})
    assert (config.data_dir, config.secret_key) == (Path.home() / "jobs", Path.home() / "keys")


@pytest.mark.parametrize("option", ["threads", "data-dir", "config", "keep-s", "durability"])
def test_an_empty_text_on_the_command_line_is_a_mistake(option: str) -> None:
    """As of a variable of a script that is not set; unlike in the environment, somebody has written it."""
    with pytest.raises(ConfigError, match=f"^--{option}: "):
        build({"tasks": ["t"], option: ""}, {})
