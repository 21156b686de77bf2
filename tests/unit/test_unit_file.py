"""The systemd unit that is shipped: nothing of it can be bent by what somebody puts into environment or folders."""

from __future__ import annotations

import re
from pathlib import Path

UNIT = Path(__file__).parents[2] / "deploy" / "jobsvc.service"


def lines(key: str) -> list[str]:
    """The values of a key, without those that are commented out."""
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)


def test_p24_commands_are_whole_paths_without_a_shell() -> None:
    """P24: no search path, no shell, no variable decides what runs."""
    commands = [
        command for key in ("ExecStart", "ExecReload", "ExecStartPre", "ExecStop") for command in lines(key)
    ]
    assert commands
    for command in commands:
        assert command.startswith("/")
        assert "$" not in command
        assert not re.search(r"\b(sh|bash|env)\b", command)


def test_p24_settings_come_from_places_of_root() -> None:
    """P24: files below /etc, nothing passed on from who starts systemd, no settings in the folder of the tasks."""
    assert lines("PassEnvironment") == []
    for file in lines("EnvironmentFile"):
        assert file.removeprefix("-").startswith("/etc/")
    (work,) = lines("WorkingDirectory")
    assert not any(file.removeprefix("-").startswith(work) for file in lines("EnvironmentFile"))


def test_p24_what_the_service_makes_is_its_own() -> None:
    """P24, and what the doctor asks for: private files, no new privileges, a user of its own."""
    assert lines("UMask") == ["0077"]
    assert lines("NoNewPrivileges") == ["yes"]
    assert lines("StateDirectoryMode") == ["0700"]
    assert lines("DynamicUser") == ["yes"] or lines("User") not in ([], ["root"])
