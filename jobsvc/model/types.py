"""F0: arguments against a signature: read them on the worker, check them in the daemon, by the same code.

Both sides raise the same `ArgsError` for the same text. The fast path is one decode by msgspec; only after a refusal
is the text looked at again, to find the exact place and to accept what JSON Schema accepts and msgspec does not.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from types import NoneType
from typing import Any

import msgspec

from jobsvc.model.typetree import FieldNode, TypeNode, from_bytes, kinds_in, rebuild
from jobsvc.model.typewalk import argument_places, escaped, parse

NAME_SHOWN_CHARS = 64
"""Of a name that a client made up, so much is repeated in an error."""
NAMES_SHOWN = 12
"""Of the arguments of a task, so many are listed in an error."""

Maker = Callable[[type, Any], Any]
"""msgspec's `dec_hook`: makes a value of a class that msgspec does not know."""

_values = msgspec.structs.astuple
_decode_any = msgspec.json.Decoder().decode

_REFUSALS = (msgspec.MsgspecError, ValueError, RecursionError, ArithmeticError)
"""What a decoder raises for bad text: RecursionError and UnicodeDecodeError are not msgspec's own."""


class ArgsError(Exception):
    """Arguments that a task refuses.

    Args:
        pointer: JSON pointer (RFC 6901) into the arguments: "/width", "/scene/size/0"; "" is the whole.
        detail: one sentence for people: what is wrong there.
    """

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(f"{pointer}: {detail}" if pointer else detail)
        self.pointer = pointer
        self.detail = detail

    def __reduce__(self) -> tuple[type[ArgsError], tuple[str, str]]:
        return (ArgsError, (self.pointer, self.detail))


class ArgsReader:
    """Reads the JSON text of arguments: an object gives them by name, an array by position.

    Args:
        node: the signature as a closed `struct` node; `named_only` fields cannot be given by position.
        types: the type of each field: the author's own on the worker, rebuilt ones in the daemon.
        defaults: the default of each field that is not required, in the same order; anything for the others.
        maker: how values of classes are made that msgspec does not know.

    Raises:
        TypeError: msgspec cannot decode one of the types.
        NameError: one of the types names another that is not defined (yet).
    """

    def __init__(
        self, node: TypeNode, types: Sequence[Any], defaults: Sequence[Any], maker: Maker | None = None
    ) -> None:
        self._node = node
        kinds = kinds_in(node)
        self._has_raw = "raw" in kinds
        self._has_decimal = "decimal" in kinds
        self._positional = [field for field in node.fields if not field.named_only]
        fields = [
            (f"f{i}", type_, *(() if field.required else (_default(default),)))
            for i, (field, type_, default) in enumerate(zip(node.fields, types, defaults, strict=True))
        ]
        names = {f"f{i}": field.name for i, field in enumerate(node.fields)}
        self.struct = _signature(fields, rename=names, kw_only=True)
        """Decodes an object; its fields are f0, f1, … in the order of the signature."""
        by_position = [pair for pair, field in zip(fields, node.fields, strict=True) if not field.named_only]
        array = _signature(by_position, array_like=True)
        self._by_name = msgspec.json.Decoder(self.struct, dec_hook=maker).decode
        self._by_position = msgspec.json.Decoder(array, dec_hook=maker).decode

    def read(self, raw: bytes) -> tuple[Any, ...]:
        """The values in the order of the signature; from an array, without those that are given by name only.

        Raises:
            ArgsError: they do not fit.
        """
        if raw[:1] == b"{":
            decode, by_name = self._by_name, True
        else:
            by_name = raw.lstrip()[:1] != b"["
            decode = self._by_name if by_name else self._by_position
        try:
            if not raw.isascii():
                raw.decode()  # msgspec does not look into what it skips or keeps raw
            if self._has_raw:
                _decode_any(raw)
            found = decode(raw)
            if self._has_decimal:
                self._refuse_non_finite(raw)
        except _REFUSALS as refusal:
            found = self._retry(raw, refusal, decode, by_name=by_name)
        if not by_name:
            self._refuse_named_only()
        return _values(found)

    # -- the slow path ---------------------------------------------------------------------------------------------

    def _retry(
        self, raw: bytes, refusal: Exception, decode: Callable[[bytes], Any], *, by_name: bool
    ) -> msgspec.Struct:
        """Decode once more with 4.0 written as 4 where an integer is asked for, or say what is wrong."""
        if isinstance(refusal, msgspec.ValidationError) and "got `float`" in str(refusal):
            text = raw
            with contextlib.suppress(
                *_REFUSALS
            ):  # what hinders a second look is no better reason than the first
                text = self._with_integers(raw)
            if text != raw:
                try:
                    again: msgspec.Struct = decode(text)
                    if self._has_decimal:
                        self._refuse_non_finite(text)
                    return again
                except _REFUSALS as second:
                    refusal = second
        raise self._explain(raw, refusal, by_name=by_name) from None

    def _with_integers(self, raw: bytes) -> bytes:
        value = parse(raw)
        for place in argument_places(self._node, value):
            if isinstance(place.value, msgspec.Raw) and place.node.kind in {"int", "literal"}:
                text = bytes(place.value).decode()
                # The float is looked at first: it is infinite where the integer would have a million digits.
                if float(text).is_integer():
                    number = Decimal(text)
                    whole = number.to_integral_value()
                    if whole == number:
                        place.replace(int(whole))
        return msgspec.json.encode(value)

    def _refuse_non_finite(self, raw: bytes) -> None:
        """Decimals come as strings too, and Python reads "NaN" and "Infinity" among them."""
        lower = raw.lower()
        if not (b"nan" in lower or b"inf" in lower or b"\\u" in lower):
            return
        for place in argument_places(self._node, parse(raw)):
            if (
                place.node.kind == "decimal"
                and isinstance(place.value, str)
                and _NON_FINITE.match(place.value)
            ):
                raise ArgsError(place.pointer, "NaN and infinities are not accepted")

    def _refuse_named_only(self) -> None:
        for field in self._node.fields:
            if field.named_only and field.required:
                raise ArgsError("", f"argument `{field.name}` can only be given by name: send an object")

    def _explain(self, raw: bytes, refusal: Exception, *, by_name: bool) -> ArgsError:
        if isinstance(refusal, RecursionError):
            return ArgsError("", "nested too deeply")
        if isinstance(refusal, UnicodeError):
            return ArgsError("", "not UTF-8")
        if not isinstance(refusal, msgspec.ValidationError):
            what = "not JSON" if isinstance(refusal, msgspec.MsgspecError) else type(refusal).__name__
            return ArgsError("", f"{what}: {refusal}")
        try:
            value = parse(raw)
        except (ValueError, RecursionError):  # it may be no JSON behind the place that was refused
            value = None
        text, in_key, path = _split(str(refusal))
        if not by_name and not path:
            return self._explain_length(value, text)
        pointer, exact = _pointer(path, value)
        if in_key or not exact:
            text = f"{text} (in {'a key' if in_key else 'one of its values'})"
        if (field := _FIELD_PROBLEM.fullmatch(text)) is not None:
            return self._explain_field(pointer, field["name"], missing=field["problem"] != "contains unknown")
        if not path and text.startswith("Expected `object`"):
            text = text.replace("`object`", "`object` or `array`", 1)
        elif not by_name and pointer:
            name = self._positional[int(pointer.split("/")[1])].name
            text = f"{text} (argument `{name}`)"
        return ArgsError(pointer, text)

    def _explain_field(self, pointer: str, name: str, *, missing: bool) -> ArgsError:
        shown = name if len(name) <= NAME_SHOWN_CHARS else f"{name[:NAME_SHOWN_CHARS]}…"
        text = (
            f"{'missing required' if missing else 'unknown'} {'field' if pointer else 'argument'} `{shown}`"
        )
        if not pointer and not missing:
            text = f"{text}; the task takes {self._listed()}"
        return ArgsError(f"{pointer}/{escaped(shown)}", text)

    def _explain_length(self, value: Any, text: str) -> ArgsError:
        """Too many or too few in an array, told by the names of the arguments."""
        if not isinstance(value, list):
            return ArgsError("", text)
        most = len(self._positional)
        if len(value) > most:
            return ArgsError(
                f"/{most}", f"too many arguments: {len(value)}; by position the task takes {most}"
            )
        return ArgsError(f"/{len(value)}", f"missing required argument `{self._positional[len(value)].name}`")

    def _listed(self) -> str:
        names = [f"`{field.name}`" for field in self._node.fields]
        if len(names) > NAMES_SHOWN:
            names[NAMES_SHOWN:] = ["…"]
        return ", ".join(names) or "none"


def checker(args_tree: bytes) -> Callable[[bytes], None]:
    """A check of JSON arguments against a tree of a manifest; it raises `ArgsError`.

    Raises:
        msgspec.MsgspecError: `args_tree` is no type tree.
    """
    node = from_bytes(args_tree)
    types = [rebuild(field.type) for field in node.fields]
    read = ArgsReader(node, types, [None] * len(types)).read

    def check(raw: bytes) -> None:
        read(raw)

    return check


def signature_node(fields: Sequence[FieldNode]) -> TypeNode:
    """The tree of a signature: a closed struct."""
    return TypeNode("struct", fields=tuple(fields), name="arguments", closed=True)


def _signature(fields: Sequence[Any], **options: Any) -> type[msgspec.Struct]:
    return msgspec.defstruct("arguments", fields, forbid_unknown_fields=True, **options)


def _default(value: Any) -> Any:
    """The same object for every call, as a function's default is; msgspec takes only plain values as they are."""
    if type(value) in {int, float, str, bool, bytes, NoneType}:
        return value
    return msgspec.field(default_factory=lambda: value)


# -- msgspec's words to places ------------------------------------------------------------------------------------

_NON_FINITE = re.compile(r"\s*[+-]?(?:s?nan|inf)", re.IGNORECASE)
_WHERE = re.compile(r"(?s)(?P<text>.*?)(?: - at `(?P<key>key` in `)?\$(?P<path>[^`]*)`)?")
_FIELD_PROBLEM = re.compile(r"(?s)Object (?P<problem>missing required|contains unknown) field `(?P<name>.*)`")


def _split(message: str) -> tuple[str, bool, str]:
    """(what is wrong, whether in a key, path without its "$") of a message of msgspec."""
    found = _WHERE.fullmatch(message)
    assert found is not None  # the expression matches everything
    return found["text"], found["key"] is not None, found["path"] or ""


def _pointer(path: str, value: Any) -> tuple[str, bool]:
    """The JSON pointer of a path such as `.scene.size[0]`, and whether it is exact.

    msgspec writes `[...]` for a value of a dict: the pointer ends at that dict then. Names may contain dots and
    brackets, so they are found among the keys of `value`.
    """
    pointer = ""
    while path:
        if path.startswith("[...]"):
            return pointer, False
        if path[0] == "[":
            inside, _, path = path[1:].partition("]")
            key: Any = int(inside)
        else:
            rest = path[1:]
            names = value if isinstance(value, dict) else ()
            fitting = [
                name for name in names if rest.startswith(name) and rest[len(name) :][:1] in {"", ".", "["}
            ]
            key = max(fitting, key=len) if fitting else re.split(r"[.\[]", rest, maxsplit=1)[0]
            path = rest[len(key) :]
        pointer += f"/{escaped(str(key))}"
        try:
            value = value[key]
        except (TypeError, LookupError):
            value = None
    return pointer, True
