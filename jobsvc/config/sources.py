"""F3: the settings in force, put together: the command line before the environment before the file before the defaults.

Everything that is wrong is found in one go, and each setting knows where it comes from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from jobsvc.config import file as files
from jobsvc.config.kinds import PLACE, toml_words
from jobsvc.config.options import CONFIG, OPTIONS, SETTINGS, Option
from jobsvc.config.settings import Config, ConfigError
from jobsvc.model.places import (
    SECRET_KEYS_CREDENTIAL,
    SECRET_KEYS_FILE,
    SERVICE_DIR_VARIABLE,
    SYSTEM_CONFIG_FILE,
    credential,
    default_data_dir,
)

Given = Mapping[str, Sequence[str] | str]
"""Option name → text (repeatable ones: list of texts); absent where the command line is silent."""

PREFIX: Final = "JOBSVC_"
OTHER_VARIABLES: Final = frozenset(
    ("URL", "TOKEN", "TOKEN_FILE", "BOOT", "NODE", "WORKER", "CRASH")
)  # of clients, and marks of our processes
COMMAND_LINE: Final = "command line"
DEFAULT: Final = "default"
_NO_TASKS: Final = (
    "no --tasks: name the module of your tasks, for example --tasks mytasks (JOBSVC_TASKS; in a file, "
    'tasks = ["mytasks"])'
)


class Setting(NamedTuple):
    """The value of one option, and its origin: `command line`, a variable's name, `FILE:LINE` or `default`."""

    value: Any
    origin: str


class Settings(NamedTuple):
    """What was found.

    Attributes:
        by_name: field of `Config` → its setting, defaults included; one that was refused has its default here.
        problems: what cannot be used, each one line. With any, a daemon does not start.
        notes: what is odd but hinders nothing.
        no_tasks: that one of the problems which says that there are no tasks at all; None when they are given.
    """

    by_name: dict[str, Setting]
    problems: list[str]
    notes: list[str]
    no_tasks: str | None

    @property
    def config(self) -> Config:
        """The settings as a value; what was refused, as if it had not been given."""
        return Config(**{name: setting.value for name, setting in self.by_name.items()})


def usable_cpus() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0))


def build(given: Given, environ: Mapping[str, str], system: Path = SYSTEM_CONFIG_FILE) -> Config:
    """The settings of a daemon that is to start. Arguments as for `gather`.

    Raises:
        ConfigError: they cannot be used; names the option, the variable or the file and key, and what it may be.
    """
    settings = gather(given, environ, system)
    if settings.problems:
        raise ConfigError(*settings.problems)
    return settings.config


def gather(
    given: Given, environ: Mapping[str, str], system: Path = SYSTEM_CONFIG_FILE, uid: int | None = None
) -> Settings:
    """All settings, with their origins and with everything that is wrong.

    Args:
        environ: repeatable options are separated by commas there; an empty variable says nothing.
        system: the file that is looked for last.
        uid: whose settings they are to be; who asks, if None. A file of another user is refused.
    """
    problems: list[str] = []
    found: dict[str, Setting] = {}
    place, notes = _place(given, environ, system, problems)
    path, entries = None, {}
    if place is not None:
        found[CONFIG.field], path = place, place.value
        try:
            entries = files.read(place.value, os.geteuid() if uid is None else uid)
        except ConfigError as error:
            problems.append(str(error))
    # A file that cannot be read may name them.
    has_tasks = bool(problems)
    for option in SETTINGS:
        strongest = next(_sources(option, given, environ, path, entries), None)
        if strongest is None:
            continue
        source, origin, parse = strongest
        has_tasks |= option.field == "tasks"
        try:
            found[option.field] = Setting(parse(), origin)
        except ConfigError as error:
            problems.append(f"{source}: {error}")
    problems += _unknown(path, entries)
    notes += _unread(environ)
    if not has_tasks:
        problems.append(_NO_TASKS)
    found.setdefault("tasks", Setting((), DEFAULT))
    return Settings(_with_defaults(found, environ), problems, notes, None if has_tasks else _NO_TASKS)


def _place(
    given: Given, environ: Mapping[str, str], system: Path, problems: list[str]
) -> tuple[Setting | None, list[str]]:
    """Where the file is that is to be read, and what to say of the search."""
    named = next(_sources(CONFIG, given, environ, None, {}), None)
    if named is None:
        path, notes = files.find(environ, system)
        return None if path is None else Setting(path, DEFAULT), notes
    source, origin, parse = named
    try:
        return Setting(parse(), origin), []
    except ConfigError as error:
        problems.append(f"{source}: {error}")
        return None, []


def _sources(
    option: Option,
    given: Given,
    environ: Mapping[str, str],
    path: Path | None,
    entries: Mapping[str, files.Entry],
) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Where an option is given, strongest first: what to call the place in a refusal, the origin, what parses it."""
    kind = option.kind
    raw = given.get(option.name)
    if raw is not None and raw != []:
        texts = [raw] if isinstance(raw, str) else raw
        yield f"--{option.name}", COMMAND_LINE, lambda: _value(option, texts, kind.of_text)
    if text := environ.get(option.variable):
        parts = [part.strip() for part in text.split(",")] if option.repeat else [text]
        yield option.variable, option.variable, lambda: _value(option, filter(None, parts), kind.of_text)
    if option.field in entries:
        value, line = entries[option.field]
        place = f"{path}:{line}" if line else str(path)
        yield f"{place}: {option.field}", place, lambda: _of_file(option, value)


def _value(option: Option, values: Iterator[str] | Sequence[str], parse: Callable[[Any], Any]) -> Any:
    parsed = tuple(map(parse, values))
    return parsed if option.repeat else parsed[-1]


def _of_file(option: Option, value: object) -> Any:
    if not option.repeat:
        place = option.kind.of_toml(value)
        if option.kind is PLACE and not place.is_absolute():
            raise ConfigError(f"{value!r} must be a whole path, from / or ~: a file is read from any folder")
        return place
    if not isinstance(value, list):
        raise ConfigError(f"must be an array, each of it {option.kind.words}, not {toml_words(value)}")
    if not value and not option.empty:
        raise ConfigError("must not be an empty array; leave the key away for the default")
    return _value(option, value, option.kind.of_toml)


def _unknown(path: Path | None, entries: Mapping[str, files.Entry]) -> Iterator[str]:
    known = {option.field for option in SETTINGS}
    for key, (value, line) in entries.items():
        if key in known:
            continue
        place = f"{path}:{line}" if line else str(path)
        if key == CONFIG.field:
            yield f"{place}: {key}: a file cannot name another; use --config or {CONFIG.variable}"
        elif isinstance(value, dict):
            yield f"{place}: {key!r}: there are no tables here; put the keys at the top"
        else:
            near = _nearest(key.lower().replace("-", "_"), known)
            hint = f"did you mean {near}?" if near else "jobsvc config show lists the options"
            yield f"{place}: {key!r} is no option; {hint}"


def _unread(environ: Mapping[str, str]) -> Iterator[str]:
    """Variables that look like options and are none. Other programs may use the prefix: it is not refused."""
    known = {option.field.upper() for option in OPTIONS}
    for name in sorted(environ):
        word = name.removeprefix(PREFIX)
        if word == name or word in known or word in OTHER_VARIABLES:
            continue
        near = _nearest(word, known)
        yield f"{name}: no option reads this variable" + (f"; did you mean {PREFIX}{near}?" if near else "")


def _nearest(word: str, known: Iterable[str]) -> str | None:
    from difflib import get_close_matches  # only mistakes need it

    return next(iter(get_close_matches(word, known, 1)), None)


def _with_defaults(found: dict[str, Setting], environ: Mapping[str, str]) -> dict[str, Setting]:
    """All settings, in the order of `Config`."""
    derived = dict(found)
    derived.setdefault("cpu_workers", Setting(usable_cpus(), DEFAULT))
    if "data_dir" not in derived:
        origin = SERVICE_DIR_VARIABLE if environ.get(SERVICE_DIR_VARIABLE) else DEFAULT
        derived["data_dir"] = Setting(default_data_dir(environ), origin)
    if "secret_key" not in derived:
        given = credential(environ, SECRET_KEYS_CREDENTIAL)
        if given is not None and given.exists():
            derived["secret_key"] = Setting(given, "CREDENTIALS_DIRECTORY")
        else:
            derived["secret_key"] = Setting(derived["data_dir"].value / SECRET_KEYS_FILE, DEFAULT)
    for field in msgspec.structs.fields(Config):
        if field.name not in derived:
            derived[field.name] = Setting(field.default, DEFAULT)
    return {name: derived[name] for name in Config.__struct_fields__}
