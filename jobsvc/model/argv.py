"""F0: the command lines of command tasks: `{name}` placeholders, each filling exactly one argv element.

No shell, no splitting. The daemon renders with arguments that were checked; authors get the same checks when they
write the command. Running it is not done here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

ArgvValue = str | int | float | bool
"""What a placeholder takes."""

_TOKEN = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")


class ArgvError(ValueError):
    """A command line that cannot be made: the pattern is wrong, or a value cannot stand in one."""


def placeholders(argv: Sequence[str]) -> tuple[str, ...]:
    """The names in the order of their first use.

    Raises:
        ArgvError: no elements, a NUL byte, or a brace that is neither doubled nor part of a placeholder.
    """
    if not argv:
        raise ArgvError("argv is empty: its first element is the program")
    names: dict[str, None] = {}
    for at, element in enumerate(argv):
        if "\0" in element:
            raise ArgvError(f"argv[{at}] holds a NUL byte")
        for token in _TOKEN.finditer(element):
            if token[0] in {"{", "}"}:
                raise ArgvError(
                    f"argv[{at}] {element!r}: a single {token[0]!r}; a placeholder is {{name}}, a brace is doubled"
                )
            if token[1] is not None:
                names[token[1]] = None
    return tuple(names)


def render_argv(argv: Sequence[str], values: Mapping[str, ArgvValue]) -> list[str]:
    """The command line: as many elements as `argv` has, whatever the values hold.

    Booleans are written true and false, floats in their shortest form. A leading dash is the program's matter.

    Args:
        values: by placeholder; those that `argv` does not name are not used.

    Raises:
        ArgvError: a placeholder without a value, a value of another type, a NUL byte or a lone surrogate.
    """
    return [_TOKEN.sub(lambda token: _filled(token, values), element) for element in argv]


def _filled(token: re.Match[str], values: Mapping[str, ArgvValue]) -> str:
    name = token[1]
    if name is None:
        return token[0][0]  # of a doubled brace one stays
    if name not in values:
        raise ArgvError(f"no value for {{{name}}}")
    value: object = values[name]
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float)):
        raise ArgvError(f"{name}: a {type(value).__name__} cannot stand in a command line")
    text = str(value)
    if "\0" in text:
        raise ArgvError(f"{name}: a NUL byte cannot stand in a command line")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ArgvError(f"{name}: a lone surrogate cannot stand in a command line") from None
    return text
