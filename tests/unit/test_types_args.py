"""Arguments against a signature: what is accepted, and where and in which words the rest is refused."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import decimal
import json
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsvc.model.describe import describe
from jobsvc.model.types import NAME_SHOWN_CHARS, ArgsError, checker, signature_node
from jobsvc.model.typetree import FieldNode, to_bytes


@dataclasses.dataclass
class Scene:
    size: tuple[int, int]
    name: str = ""
    next: Scene | None = None


class Circle(msgspec.Struct, tag=True):
    r: int


class Square(msgspec.Struct, tag=True):
    a: float


class Line(msgspec.Struct, tag=True, array_like=True):
    length: int


Check = Callable[[bytes], None]


def check_of(*fields: tuple[str, Any] | tuple[str, Any, str]) -> Check:
    """A checker as the daemon builds it; a third member marks `optional` or `named` (optional, by name only)."""
    nodes = []
    for name, annotation, *how in fields:
        named = "named" in "".join(how)
        required = how in ([], ["required named"])
        nodes.append(FieldNode(name, describe(annotation), required=required, named_only=named))
    return checker(to_bytes(signature_node(nodes)))


def refusal(check: Check, raw: bytes) -> tuple[str, str]:
    with pytest.raises(ArgsError) as error:
        check(raw)
    return error.value.pointer, error.value.detail


TWO = check_of(("width", int), ("height", int, "optional"))


@pytest.mark.parametrize(
    "raw", [b'{"width":1}', b'{"height":2,"width":1}', b"[1]", b"[1,2]", b' \n{"width":1}', b"\t[1]"]
)
def test_fitting_arguments_pass(raw: bytes) -> None:
    TWO(raw)


@pytest.mark.parametrize(
    ("raw", "pointer", "words"),
    [
        (b'{"width":"x"}', "/width", "Expected `int`, got `str`"),
        (b"{}", "/width", "missing required argument `width`"),
        (b'{"width":1,"zz":1}', "/zz", "unknown argument `zz`; the task takes `width`, `height`"),
        (b'{"width":1,"a/b~":1}', "/a~1b~0", "unknown argument `a/b~`"),
        (b"[]", "/0", "missing required argument `width`"),
        (b'[1,"x"]', "/1", "Expected `int`, got `str` (argument `height`)"),
        (b"[1,2,3]", "/2", "too many arguments: 3"),
        (b"null", "", "Expected `object` or `array`, got `null`"),
        (b'"x"', "", "Expected `object` or `array`, got `str`"),
        (b"", "", "not JSON"),
        (b'{"width":1', "", "not JSON"),
        (b'{"width":1} x', "", "not JSON"),
        (b'{"width":NaN}', "", "not JSON"),
        (b'{"width":1e999}', "/width", "out of range"),
        (b'{"width":true}', "/width", "Expected `int`, got `bool`"),
        (b'{"width":4.5}', "/width", "Expected `int`, got `float`"),
        (b"[4.5]", "/0", "Expected `int`, got `float` (argument `width`)"),
        (b'{"width":"\xff"}', "", "not UTF-8"),
        (b'{"\xff":1}', "", "not UTF-8"),
        (b"[1,2,3", "", "Expected `array`"),
    ],
)
def test_refusal_names_place_and_reason(raw: bytes, pointer: str, words: str) -> None:
    found, detail = refusal(TWO, raw)
    assert found == pointer
    assert words in detail


def test_unknown_name_is_not_repeated_at_length() -> None:
    """A client cannot make the answer as large as its question."""
    pointer, detail = refusal(TWO, b'{"width":1,"%s":1}' % (b"x" * 10_000))
    assert len(pointer) < NAME_SHOWN_CHARS + 3
    assert len(detail) < 200


def test_task_without_arguments_says_so() -> None:
    check = check_of()
    check(b"{}")
    check(b"[]")
    assert refusal(check, b'{"a":1}') == ("/a", "unknown argument `a`; the task takes none")
    assert refusal(check, b"[1]")[0] == "/0"


@pytest.mark.parametrize(
    ("raw", "pointer", "words"),
    [
        (b'{"scene":{"size":["x",1]}}', "/scene/size/0", "Expected `int`, got `str`"),
        (b'{"scene":{"size":[1]}}', "/scene/size", "`array` of length 2"),
        (b'{"scene":{}}', "/scene/size", "missing required field `size`"),
        (b'{"scene":{"size":[1,1],"next":{"size":[1,2],"next":{"size":[1,null]}}}}',
         "/scene/next/next/size/1", "got `null`"),
        (b'[{"size":[1,{}]}]', "/0/size/1", "Expected `int`, got `object` (argument `scene`)"),
        (b"[{}]", "/0/size", "missing required field `size`"),
    ],
)  # fmt: skip
def test_pointer_leads_into_nested_values(raw: bytes, pointer: str, words: str) -> None:
    found, detail = refusal(check_of(("scene", Scene)), raw)
    assert found == pointer
    assert words in detail


def test_pointer_through_a_dict_ends_there_and_says_so() -> None:
    """The decoder does not tell which key it was."""
    check = check_of(("counts", dict[str, list[int]]), ("by", dict[int, int], "optional"))
    assert refusal(check, b'{"counts":{"a":["x"]}}') == (
        "/counts",
        "Expected `int`, got `str` (in one of its values)",
    )
    assert refusal(check, b'{"counts":{},"by":{"x":1}}') == ("/by", "Expected `int`, got `str` (in a key)")


def test_names_with_dots_and_brackets_are_found() -> None:
    class Odd(msgspec.Struct, rename={"a": "x.y[0]", "b": "x"}):
        a: int
        b: int = 0

    check = check_of(("odd", Odd))
    assert refusal(check, b'{"odd":{"x":1,"x.y[0]":"s"}}')[0] == "/odd/x.y[0]"


def test_by_name_only_arguments() -> None:
    check = check_of(("a", int), ("b", int, "named"))
    check(b'{"a":1,"b":2}')
    check(b"[1]")
    assert refusal(check, b"[1,2]")[0] == "/1"
    required = check_of(("a", int), ("b", int, "required named"))
    assert refusal(required, b"[1]") == ("", "argument `b` can only be given by name: send an object")


# -- what JSON Schema calls an integer ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", [b"4.0", b"4.000", b"4e0", b"0.4e1", b"-0.0", b"1E+2", b"12300e-2", b"1e30", b"1e300"]
)
def test_integral_floats_are_integers(number: bytes) -> None:
    TWO(b'{"width":%s}' % number)
    TWO(b"[%s]" % number)
    check_of(("all", list[dict[str, int | None]]))(b'[[{"a":%s}]]' % number)
    check_of(("scene", Scene))(b'{"scene":{"size":[1,%s]}}' % number)
    check_of(("scene", Scene))(b'{"scene":{"size":[1,1],"next":{"size":[%s,1]}}}' % number)
    check_of(("shape", Circle | Square))(b'{"shape":{"type":"Circle","r":%s}}' % number)
    check_of(("line", Line))(b'{"line":["Line",%s]}' % number)


@pytest.mark.parametrize(
    "number",
    [
        b"4.5",
        b"1e-1",
        b"1e999",
        b"9007199254740993.5",
        b"1e400000000",
        b"1e-400000000",
        b"1e-99999999999999999999",
    ],
)
def test_other_floats_are_not(number: bytes) -> None:
    assert refusal(TWO, b'{"width":%s}' % number)[0] == "/width"


def test_integral_float_keeps_to_limits_and_literals() -> None:
    check = check_of(("level", Literal[1, 2]))
    check(b'{"level":2.0}')
    assert refusal(check, b'{"level":3.0}') == ("/level", "Invalid enum value 3")


def test_one_integral_float_does_not_hide_another_error() -> None:
    assert refusal(TWO, b'{"width":4.0,"height":"x"}')[0] == "/height"


def test_strings_that_look_like_numbers_stay_strings() -> None:
    assert refusal(TWO, b'{"width":"4.0"}') == ("/width", "Expected `int`, got `str`")


def test_many_integral_floats_take_one_pass() -> None:
    """20,000 of them: a decode for each would take minutes."""
    check_of(("all", list[int]))(b"[[" + b",".join([b"4.0"] * 20_000) + b"]]")


# -- hostile text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("annotation", [Any, int, list[Any], Scene, msgspec.Raw, decimal.Decimal | None])
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"size":[1,2],"next":', b'{"junk":'])
def test_depth_bomb_is_a_refusal(annotation: Any, opening: bytes) -> None:
    """RecursionError is no error of the decoder's own; it must not escape."""
    check = check_of(("a", annotation))
    with pytest.raises(ArgsError):
        check(b'{"a":' + opening * 100_000)
    with pytest.raises(ArgsError):
        check(b"[" + opening * 100_000)


@pytest.mark.parametrize("annotation", [msgspec.Raw, Any, Scene, str])
def test_bad_utf8_is_refused_wherever_it_stands(annotation: Any) -> None:
    """Also in what the decoder skips or keeps raw."""
    assert refusal(check_of(("a", annotation)), b'{"a":{"size":[1,2],"junk":"\xff"}}') == ("", "not UTF-8")


def test_infinite_number_in_raw_json_is_refused() -> None:
    check = check_of(("a", msgspec.Raw))
    check(b'{"a":[1e99]}')
    assert "out of range" in refusal(check, b'{"a":[1e999]}')[1]


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "sNaN", "inf", "\\u004eaN", "+infinity"])
def test_non_finite_decimals_are_refused(text: str) -> None:
    check = check_of(("all", list[decimal.Decimal | None]), ("word", str, "optional"))
    check(b'{"all":["1.10",1e999,null],"word":"infinity"}')
    assert refusal(check, f'{{"all":[1,"{text}"]}}'.encode()) == (
        "/all/1",
        "NaN and infinities are not accepted",
    )
    assert refusal(check, f'[[1,"{text}"]]'.encode())[0] == "/0/1"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
ANY_CHECK = check_of(
    ("scene", Scene), ("shape", Circle | Square | None, "optional"), ("raw", msgspec.Raw, "optional"),
    ("sum", decimal.Decimal, "optional"), ("counts", dict[str, int], "optional"),
)  # fmt: skip
NAMES = st.sampled_from(["scene", "shape", "raw", "sum", "counts", "zz"])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_do_more_than_refuse(raw: bytes) -> None:
    """Whatever comes, it passes or it is an `ArgsError`."""
    for check in (TWO, ANY_CHECK):
        with contextlib.suppress(ArgsError):
            check(raw)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, JSON, max_size=4) | st.lists(JSON, max_size=6))
def test_no_json_does_more_than_refuse(value: Any) -> None:
    """And the pointer of a refusal leads to the place, or to what lacks it."""
    raw = json.dumps(value).encode()
    try:
        ANY_CHECK(raw)
    except ArgsError as error:
        for part in error.pointer.split("/")[1:-1]:
            name = part.replace("~1", "/").replace("~0", "~")
            value = value[int(name)] if isinstance(value, list) else value[name]


def test_error_survives_being_copied() -> None:
    """As pytest-xdist and process pools do with exceptions."""
    error = copy.copy(ArgsError("/a", "wrong"))
    assert (error.pointer, error.detail, str(error)) == ("/a", "wrong", "/a: wrong")
