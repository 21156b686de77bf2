"""F5: arguments of a task from the words of a command line."""

from __future__ import annotations

import re
import sys
from typing import Any

import click


def json_or_text(text: str) -> Any:
    """JSON if it parses, otherwise the text itself: `width=200` is a number, `path=a.png` a string."""
    import msgspec

    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def pairs(words: tuple[str, ...], option: str) -> dict[str, str]:
    """`name=value` words as a mapping. Raises `click.BadParameter` (exit code 2)."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{word!r} is not NAME=VALUE", param_hint=option)
        found[name] = value
    return found


def task_arguments(text: str | None, words: tuple[str, ...]) -> Any:
    """The arguments that `[JSON]` (`-`: standard input) and `-a name=value` together mean; None: none were given.

    JSON given alone is passed on as it stands, to the last digit.
    """
    import msgspec
    from msgspec import Raw

    named = {name: json_or_text(value) for name, value in pairs(words, "-a").items()}
    if text is None:
        return named or None
    raw = sys.stdin.buffer.read() if text == "-" else text.encode()
    try:
        value = msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise click.BadParameter(f"no JSON: {error}", param_hint="JSON") from None
    if not isinstance(value, dict | list):
        raise click.BadParameter("must be an object (by name) or an array (by position)", param_hint="JSON")
    if not named:
        return Raw(raw.strip())
    if not isinstance(value, dict):
        raise click.BadParameter("an array cannot be joined with -a", param_hint="JSON")
    return {**value, **named}


_UNIT_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)")


def duration_s(text: str, option: str) -> float:
    """`30d`, `12h`, `90m`, `45s`, `2w` as seconds; a bare number is seconds. Raises `click.BadParameter`."""
    found = _DURATION.fullmatch(text.strip().lower())
    unit = None if found is None else _UNIT_S.get(found[2] or "s")
    if found is None or unit is None:
        raise click.BadParameter(
            f"{text!r} is no length of time, such as 30d, 12h, 90m, 45s", param_hint=option
        )
    return float(found[1]) * unit
