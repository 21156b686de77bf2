"""F3: the kinds of values that options have: what they are called, how text becomes one, which TOML types do.

Text from the command line and the environment, and the values of a file, go through the same parser, so that all
three mean the same and are refused in the same words.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any, Final, NamedTuple

from jobsvc.config.settings import ConfigError
from jobsvc.model.environment import is_secret
from jobsvc.model.limits import USE_MOST_BYTES
from jobsvc.model.sizes import parse_size, size_text

_TOML_WORDS: Final = {
    bool: "true or false", int: "a whole number", float: "a number with a fraction", str: "text", list: "an array",
    dict: "a table",
}  # fmt: skip
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?", re.ASCII)
_VARIABLE: Final = re.compile(r"[A-Za-z_*?\[][A-Za-z0-9_*?\[\]!-]*", re.ASCII)


class Kind(NamedTuple):
    """One kind of value.

    Attributes:
        words: what it is called in a refusal.
        toml: Python types that it may have in a TOML file; exactly these, so that `true` is no number.
        parse: the value of a text. Raises `ConfigError` without the option's name, which the caller adds.
    """

    words: str
    toml: tuple[type, ...]
    parse: Callable[[str], Any]

    def of_text(self, text: str) -> Any:
        """The value of a text from the command line or the environment. Raises `ConfigError`."""
        if _CONTROL.search(text):
            raise ConfigError(f"{text!r} has a control character in it")
        return self.parse(text)

    def of_toml(self, value: object) -> Any:
        """The value of what stands in a file. Raises `ConfigError`."""
        if type(value) not in self.toml:
            raise ConfigError(f"must be {self.words}, not {toml_words(value)}")
        return self.of_text(str(int(value)) if isinstance(value, bool) else str(value))


def toml_words(value: object) -> str:
    """What a value of a TOML file is, for people."""
    words = _TOML_WORDS.get(type(value), "a date or a time")
    return f"{words} ({value!r})" if isinstance(value, str | float) or type(value) is int else words


def whole(low: int, high: int) -> Kind:
    """A whole number within these bounds."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ConfigError(f"{text!r} is not a whole number") from None
        if not low <= value <= high:
            raise ConfigError(f"{value} is not between {low} and {high}")
        return value

    return Kind("a whole number", (int,), parse)


def number(high: float, unit: str) -> Kind:
    """A number from 0 on."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ConfigError(f"{text!r} is not a number of {unit}") from None
        if not (isfinite(value) and 0 <= value <= high):
            raise ConfigError(f"{text} is not between 0 and {high:.0f} {unit}")
        return value

    return Kind(f"a number of {unit}", (int, float), parse)


def size(least: int, most: int = USE_MOST_BYTES) -> Kind:
    """A number of bytes; in a file a number, or text with a unit."""

    def parse(text: str) -> int:
        try:
            found = parse_size(text)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if not least <= found <= most:
            raise ConfigError(f"{text} is not between {size_text(least)} and {size_text(most)}")
        return found

    return Kind('a number of bytes or a text such as "512M"', (int, str), parse)


def choice(*names: str) -> Kind:
    """One of these words."""

    def parse(text: str) -> str:
        if text not in names:
            raise ConfigError(f"{text!r} is none of {', '.join(names)}")
        return text

    return Kind(f"one of {', '.join(names)}", (str,), parse)


def _switch(text: str) -> bool:
    if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        raise ConfigError(f"{text!r} is neither on nor off (1 and 0, true and false, yes and no)")
    return text.lower() in ("1", "true", "yes", "on")


def _words(text: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise ConfigError(f"{text!r} cannot be split into words as a shell does: {error}") from None
    if not words:
        raise ConfigError("names no program; for example: bwrap --dev-bind / /")
    return words


def _text(text: str) -> str:
    if not text.strip():
        raise ConfigError("is empty")
    return text


def _place(text: str) -> Path:
    try:
        return Path(_text(text)).expanduser()
    except RuntimeError:
        raise ConfigError(f"{text!r} begins with the home folder of a user that is not known") from None


def _module(text: str) -> str:
    if text.endswith(".py") or not all(part.isidentifier() for part in text.split(".")):
        hint = f"; did you mean {Path(text).stem}?" if text.endswith(".py") else ""
        raise ConfigError(f"{text!r} is not a module name{hint}")
    return text


def _host(text: str) -> str:
    if "//" in text:
        raise ConfigError(f"{text!r} is a URL; give its host name alone")
    if not text.isascii():
        raise ConfigError(f"{text!r} is not as a Host header spells it; write its ASCII form (xn--…)")
    from ipaddress import IPv6Address  # 10 ms that the help need not pay

    try:
        return f"[{IPv6Address(text.strip('[]'))}]"
    except ValueError:
        pass  # then it must be a name or an IPv4 address
    name, colon, _port = text.partition(":")
    if colon:
        raise ConfigError(f"{text!r} names a port; give the host name alone, it holds for every port")
    if not _HOST.fullmatch(name):
        raise ConfigError(f"{text!r} is not a host name; each must be written out, there are no patterns")
    return name.lower()


def _variable(text: str) -> str:
    if "=" in text:
        raise ConfigError(f"{text!r} gives a value; give the name alone, the value is that of the daemon")
    if not _VARIABLE.fullmatch(text):
        raise ConfigError(f"{text!r} is not the name of an environment variable, or a pattern such as LC_*")
    if is_secret(text):
        raise ConfigError(f"{text!r} is the daemon's own and never handed to workers")
    return text


SWITCH: Final = Kind("true or false", (bool,), _switch)
WORDS: Final = Kind("text, split into words as a shell does", (str,), _words)
TEXT: Final = Kind("text", (str,), _text)
PLACE: Final = Kind("the path of a file or folder", (str,), _place)
MODULE: Final = Kind("the name of a module", (str,), _module)
HOST: Final = Kind("a host name", (str,), _host)
VARIABLE: Final = Kind("the name of an environment variable", (str,), _variable)
