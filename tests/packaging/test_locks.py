"""The lock files in requirements/: complete, of one mind, free of addresses, in step with pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ("dev", "runtime", "build")


def lines(lock: str) -> list[str]:
    """The pins of a lock file as they stand."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    return [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]


def pins(lock: str) -> dict[str, Requirement]:
    """Requirement by canonical name."""
    found = [Requirement(line) for line in lines(lock)]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def pyproject() -> dict[str, Any]:
    """The project's metadata."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def group(name: str) -> list[str]:
    """The requirements of a dependency group, its included groups spelled out."""
    wanted = []
    for entry in pyproject()["dependency-groups"][name]:
        wanted += [entry] if isinstance(entry, str) else group(entry["include-group"])
    return wanted


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_pins_one_version_and_names_no_registry(lock: str) -> None:
    """A line is a name, one exact version and at most a marker: nothing that ties the lock to an index."""
    assert lines(lock)
    for line in lines(lock):
        requirement = Requirement(line)
        assert [specifier.operator for specifier in requirement.specifier] == ["=="], line
        assert requirement.url is None
        assert "://" not in line


@pytest.mark.parametrize("lock", ["runtime", "build"])
def test_smaller_locks_agree_with_the_full_one(lock: str) -> None:
    """People who only run the daemon get the versions that were tested."""
    full = pins("dev")
    for name, requirement in pins(lock).items():
        assert full[name].specifier == requirement.specifier if name in full else requirement.marker


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("runtime", pyproject()["project"]["dependencies"]),
        ("build", group("build")),
        ("dev", pyproject()["project"]["dependencies"] + group("dev")),
    ],
)
def test_lock_answers_every_requirement(lock: str, wanted: list[str]) -> None:
    """A requirement added or raised in pyproject.toml fails here until `make lock` was run."""
    locked = pins(lock)
    for text in wanted:
        requirement = Requirement(text)
        (pin,) = locked[canonicalize_name(requirement.name)].specifier
        assert requirement.specifier.contains(pin.version), f"{text} but {pin.version} is locked: make lock"
