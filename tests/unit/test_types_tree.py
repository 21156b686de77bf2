"""The type tree: what a worker describes, the daemon checks alike after a trip through msgpack."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import math
import pathlib
import typing
import uuid
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsvc.model.describe import describe, schema
from jobsvc.model.types import signature_node
from jobsvc.model.typetree import FieldNode, TypeNode, from_bytes, kinds_in, rebuild, to_bytes


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    S = 1
    L = 2


class Mode(enum.IntFlag):
    R = 1
    W = 2


class Forgiving(enum.Enum):
    A = "a"

    @classmethod
    def _missing_(cls, value: object) -> Forgiving:
        return cls.A


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0


@dataclasses.dataclass
class Tree:
    label: str
    children: list[Tree] = dataclasses.field(default_factory=list)
    beside: Twig | None = None


@dataclasses.dataclass
class Twig:
    back: Tree | None = None


@attrs.define
class Leaf:
    size: int
    wet: bool = False


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Ring(NamedTuple):
    value: int
    rest: Ring | None = None


class Options(TypedDict):
    depth: int
    note: NotRequired[str]


Odd = TypedDict("Odd", {"content-type": str, "class": NotRequired[int]})


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog", forbid_unknown_fields=True):
    name: str


class Renamed(msgspec.Struct, rename="camel"):
    long_name: int


class Row(msgspec.Struct, array_like=True):
    a: int
    b: str = ""


class Model:
    """Behaves like a model of pydantic."""

    @classmethod
    def model_validate(cls, value: Any) -> Model:
        return cls()

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {"inner": {"$ref": "#/$defs/Inner"}},
            "$defs": {"Inner": {"type": "integer"}},
        }


class Stranger:
    pass


def travelled(annotation: Any) -> TypeNode:
    """The tree as the daemon gets it."""
    return from_bytes(to_bytes(describe(annotation)))


def accepts(type_: Any, raw: bytes) -> bool:
    try:
        msgspec.json.decode(raw, type=type_)
    except (msgspec.ValidationError, ValueError):
        return False
    return True


GOOD_AND_BAD: list[tuple[Any, list[bytes], list[bytes]]] = [
    (int, [b"1", b"-5", b"123456789012345678901234567890"], [b"true", b'"1"', b"1.5", b"null"]),
    (float, [b"1", b"1.5"], [b'"1"', b"1e999", b"true"]),
    (str, [b'"x"'], [b"1"]),
    (bool, [b"true"], [b"1", b'"true"']),
    (bytes, [b'"eA=="'], [b'"?"', b"1"]),
    (bytearray, [b'"eA=="'], [b'"?"']),
    (None, [b"null"], [b"0"]),
    (Any, [b"1", b"[{}]"], [b"1e999"]),
    (dt.datetime, [b'"2026-11-23T10:00:00Z"'], [b'"yesterday"', b"1.5e9x"]),
    (Annotated[dt.datetime, msgspec.Meta(tz=True)], [b'"2026-11-23T10:00:00Z"'], [b'"2026-11-23T10:00:00"']),
    (dt.date, [b'"2026-11-23"'], [b'"2026-13-01"']),
    (dt.time, [b'"10:00:00"'], [b'"25:00:00"']),
    (dt.timedelta, [b'"PT1S"'], [b'"soon"']),
    (uuid.UUID, [b'"00000000-0000-7000-8000-000000000000"'], [b'"0"']),
    (decimal.Decimal, [b'"1.10"', b"1.10"], [b'"x"']),
    (list[int], [b"[]", b"[1]"], [b'["x"]', b"{}"]),
    (set[Pair], [b"[[1]]"], [b'[["x"]]']),
    (frozenset[str], [b'["a","a"]'], [b"[1]"]),
    (tuple[int, ...], [b"[1,2]"], [b'["x"]']),
    (tuple[int, str], [b'[1,"a"]'], [b"[1]", b'[1,"a",2]', b'["a",1]']),
    (tuple[()], [b"[]"], [b"[1]"]),
    (dict[str, int], [b'{"a":1}'], [b'{"a":"b"}', b"[]"]),
    (dict[int, str], [b'{"1":"a"}'], [b'{"x":"a"}']),
    (dict[Colour, int], [b'{"red":1}'], [b'{"green":1}']),
    (collections.abc.Sequence[int], [b"[1]"], [b'["x"]']),
    (collections.abc.Mapping[str, bool], [b'{"a":true}'], [b'{"a":1}']),
    (int | None, [b"1", b"null"], [b'"x"']),
    (int | str | list[int], [b"1", b'"x"', b"[1]"], [b"1.5", b'["x"]']),
    (Literal["a", "b", 3] | None, [b'"a"', b"3", b"null"], [b'"c"', b"4"]),
    (Colour, [b'"red"'], [b'"green"', b"1"]),
    (Size, [b"1"], [b"3", b'"S"']),
    (Annotated[int, msgspec.Meta(ge=1, le=9, multiple_of=2)], [b"2", b"8"], [b"0", b"10", b"3"]),
    (Annotated[float, msgspec.Meta(gt=0, lt=1)], [b"0.5"], [b"0", b"1"]),
    (Annotated[str, msgspec.Meta(min_length=2, max_length=3, pattern="^[a-z]+$")],
     [b'"ab"'], [b'"a"', b'"abcd"', b'"AB"']),
    (Annotated[list[int], msgspec.Meta(max_length=1)], [b"[1]"], [b"[1,2]"]),
    (Annotated[list[Annotated[int, msgspec.Meta(ge=5)]], msgspec.Meta(description="fives")], [b"[5]"], [b"[4]"]),
    (Annotated[dict[str, int], msgspec.Meta(min_length=1)], [b'{"a":1}'], [b"{}"]),
    (Point, [b'{"x":1}', b'{"y":2,"x":1,"z":0}'], [b"{}", b'{"x":"a"}', b'{"x":1,"y":null}', b"[1]"]),
    (Leaf, [b'{"size":1}'], [b'{"size":1,"wet":1}', b"{}"]),
    (Tree, [b'{"label":"a","children":[{"label":"b"}]}'], [b'{"label":"a","children":[{"label":1}]}', b"{}"]),
    (Twig, [b'{"back":{"label":"a","beside":{"back":null}}}'], [b'{"back":{"label":"a","beside":{"back":1}}}']),
    (Pair, [b"[1]", b'[1,"x"]'], [b"[]", b'["x"]', b'[1,"x",2]', b"{}"]),
    (Ring, [b"[1]", b"[1,[2,[3]]]"], [b'[1,[2,["x"]]]']),
    (Options, [b'{"depth":1}', b'{"depth":1,"note":"x"}'], [b'{"note":"x"}', b'{"depth":1,"note":2}']),
    (Odd, [b'{"content-type":"x"}', b'{"content-type":"x","class":1}'], [b"{}", b'{"content-type":"x","class":"y"}']),
    (Cat | Dog, [b'{"type":"cat","lives":9}', b'{"type":"dog","name":"x"}'],
     [b'{"type":"cow"}', b'{"lives":9}', b'{"type":"dog","name":"x","lives":9}', b'{"type":"cat","name":"x"}']),
    (Renamed, [b'{"longName":1}'], [b'{"long_name":1}']),
    (Row, [b"[1]", b'[1,"b"]', b'[1,"b",3]'], [b"[]", b"{}", b"[1,2]"]),
    (list[Point | None], [b'[null,{"x":1}]'], [b"[{}]"]),
    (typing.NewType("UserId", int), [b"1"], [b'"x"']),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "good", "bad"), GOOD_AND_BAD, ids=lambda value: str(value)[:40])
def test_rebuilt_type_accepts_what_the_described_type_accepts(
    annotation: Any, good: list[bytes], bad: list[bytes]
) -> None:
    """For JSON both ways, the daemon says what the worker would say."""
    node = travelled(annotation)
    assert node.kind != "opaque"
    made = rebuild(node)
    for type_ in (annotation, made):
        assert [raw for raw in good if not accepts(type_, raw)] == []
        assert [raw for raw in bad if accepts(type_, raw)] == []


@pytest.mark.parametrize(("annotation", "_good", "bad"), GOOD_AND_BAD, ids=lambda value: str(value)[:40])
def test_rebuilt_type_refuses_in_the_same_words(
    annotation: Any, _good: list[bytes], bad: list[bytes]
) -> None:
    """An author reads one message, whether daemon or worker refused."""

    def words(type_: Any, raw: bytes) -> str:
        with pytest.raises((msgspec.DecodeError, ValueError)) as refusal:
            msgspec.json.decode(raw, type=type_)
        return str(refusal.value)

    made = rebuild(travelled(annotation))
    assert [words(made, raw) for raw in bad] == [words(annotation, raw) for raw in bad]


@pytest.mark.parametrize("annotation", [Model, Mode, Forgiving], ids=repr)
def test_what_only_the_worker_can_check_is_opaque(annotation: Any) -> None:
    """Models, flags and enums that make their own members pass the daemon unchecked, also inside of others."""
    assert travelled(annotation).kind == "opaque"
    inside = travelled(dict[str, list[annotation]])
    assert kinds_in(inside) == {"dict", "str", "list", "opaque"}
    assert accepts(rebuild(inside), b'{"a":[{"any":1},2]}')


@pytest.mark.parametrize(
    "annotation",
    [
        Stranger,
        list[Stranger],
        complex,
        collections.abc.Iterable[int],
        Point | Tree,
        Stranger | int,
    ],
    ids=repr,
)
def test_what_no_json_can_become_is_refused(annotation: Any) -> None:
    """An author learns it when the task is written, not when the first job fails."""
    with pytest.raises(TypeError):
        describe(annotation)


def test_stranger_is_named_with_a_way_out() -> None:
    with pytest.raises(TypeError, match=r"Stranger cannot be made from JSON; use .*dataclass"):
        describe(Stranger)


def test_paths_are_strings_on_the_daemon() -> None:
    assert travelled(pathlib.Path) == TypeNode("str")
    assert schema(pathlib.PurePosixPath) == {"type": "string", "format": "path"}


def test_raw_json_is_checked_as_a_value() -> None:
    """msgspec.Raw itself lets 1e999 pass."""
    assert not accepts(rebuild(travelled(msgspec.Raw)), b"1e999")


def test_shared_class_is_described_once() -> None:
    """A class that two fields name does not double the tree, else deep models would grow without bound."""

    @dataclasses.dataclass
    class Both:
        a: Point
        b: Point

    node = describe(Both)
    assert [field.type.kind for field in node.fields] == ["struct", "ref"]
    made = rebuild(node)
    assert accepts(made, b'{"a":{"x":1},"b":{"x":2}}')
    assert not accepts(made, b'{"a":{"x":1},"b":{"x":"2"}}')


def test_rebuilding_twice_keeps_nothing_in_common() -> None:
    node = travelled(Tree)
    assert rebuild(node) is not rebuild(node)


def test_schema_of_a_model_has_its_definitions_at_the_root() -> None:
    """References such as #/$defs/Inner point to the root, so that is where the definitions must be."""
    made = schema(list[Model])
    assert made["items"]["properties"] == {"inner": {"$ref": "#/$defs/Inner"}}
    assert made["$defs"] == {"Inner": {"type": "integer"}}


def test_schema_knows_formats_and_limits() -> None:
    assert schema(dt.date) == {"type": "string", "format": "date"}
    assert schema(Annotated[int, msgspec.Meta(ge=1)]) == {"type": "integer", "minimum": 1}


def test_tree_of_a_signature_travels() -> None:
    node = signature_node(
        [FieldNode("a", describe(int)), FieldNode("b", describe(str), required=False, named_only=True)]
    )
    assert from_bytes(to_bytes(node)) == node


# -- any type, any value ------------------------------------------------------------------------------------------

LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(st.characters(exclude_categories=["Cs"])),
    bool: st.booleans(),
    bytes: st.binary(max_size=20),
    None: st.none(),
    dt.datetime: st.datetimes(timezones=st.just(dt.UTC)),
    dt.date: st.dates(),
    uuid.UUID: st.uuids(),
    decimal.Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    Point: st.builds(Point, st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
    Colour: st.sampled_from(Colour),
    Pair: st.builds(Pair, st.integers(), st.text(st.characters(exclude_categories=["Cs"]))),
}


def containers(inner: st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]) -> st.SearchStrategy[Any]:
    return st.one_of(
        inner.map(lambda one: (list[one[0]], st.lists(one[1], max_size=3))),  # type: ignore[valid-type]
        inner.map(lambda one: (dict[str, one[0]], st.dictionaries(LEAVES[str], one[1], max_size=3))),  # type: ignore[valid-type]
        inner.map(lambda one: (one[0] | None if one[0] is not None else None, st.none() | one[1])),
        st.tuples(inner, inner).map(
            lambda two: (tuple[two[0][0], two[1][0]], st.tuples(two[0][1], two[1][1]))  # type: ignore[misc]
        ),
    )


TYPED = st.recursive(st.sampled_from([*LEAVES.items()]), containers, max_leaves=4)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_value_of_a_type_passes_its_rebuilt_type(data: st.DataObject) -> None:
    """What msgspec writes of a described type, the daemon accepts: no false refusal."""
    annotation, values = data.draw(TYPED)
    raw = msgspec.json.encode(data.draw(values))
    made = rebuild(travelled(annotation))
    again = msgspec.json.decode(raw, type=made)
    if annotation is float:
        assert math.isclose(again, msgspec.json.decode(raw))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_values_of_another_type_are_judged_alike(data: st.DataObject) -> None:
    """A value of one type against another type: daemon and worker agree."""
    annotation, _ = data.draw(TYPED)
    _, others = data.draw(TYPED)
    raw = msgspec.json.encode(data.draw(others))
    assert accepts(rebuild(travelled(annotation)), raw) == accepts(annotation, raw)
