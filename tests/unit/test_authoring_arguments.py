"""The arguments of a task: bound in the worker, checked in the daemon, refused alike."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from jobsvc import Context, task
from jobsvc.model.types import ArgsError, checker
from tests.unit.authoring_harness import call, refusal

# -- arguments ----------------------------------------------------------------------------------------------------


@task
def layout(at: Later, /, sizes: list[int], *, label: str = "x", open: Any = None) -> list[Any]:
    return [at, sizes, label, open]


@dataclasses.dataclass
class Later:
    """Defined below the task that names it."""

    x: int
    inner: Later | None = None


def test_annotation_may_name_what_is_defined_later() -> None:
    assert call(layout, {"at": {"x": 1, "inner": {"x": 2}}, "sizes": [], "label": "y", "open": {"k": [1]}}) == [
        Later(1, Later(2)), [], "y", {"k": [1]},
    ]  # fmt: skip
    assert call(layout, [{"x": 1}, [2]]) == [Later(1), [2], "x", None]


def test_annotation_may_name_a_class_of_the_function_around() -> None:
    @dataclasses.dataclass
    class Local:
        a: int

    @task
    def one(local: Local) -> int:
        return local.a

    assert call(one, {"local": {"a": 4}}) == 4


@pytest.mark.parametrize(
    ("raw", "pointer", "words"),
    [
        (b'{"at":{"x":1}}', "/sizes", "missing required argument `sizes`"),
        (b'{"at":{"x":"1"},"sizes":[]}', "/at/x", "Expected `int`"),
        (b'{"at":{"x":1},"sizes":[1,{}]}', "/sizes/1", "Expected `int`, got `object`"),
        (b'{"at":{"x":1},"sizes":[],"label":null}', "/label", "got `null`"),
        (b'{"at":{"x":1},"sizes":[],"lable":"z"}', "/lable", "the task takes `at`, `sizes`, `label`, `open`"),
        (b'[{"x":1},[],"y"]', "/2", "too many arguments: 3; by position the task takes 2"),
        (b'[{"x":1}]', "/1", "missing required argument `sizes`"),
        (b'[{"x":1.5},[]]', "/0/x", "(argument `at`)"),
        (b"5", "", "`object` or `array`"),
    ],
)
def test_worker_and_daemon_refuse_alike(raw: bytes, pointer: str, words: str) -> None:
    found, detail = refusal(layout, raw)
    assert found == pointer
    assert words in detail


def test_default_is_the_very_object_of_the_function() -> None:
    marker: list[int] = [1, 2]

    @task
    def keeps(a: list[int] = marker, b: Any = Later) -> Any:
        return a, b

    assert call(keeps, {})[0] is marker
    assert call(keeps, {})[1] is Later


def test_integral_float_reaches_the_function_as_an_integer() -> None:
    @task
    def width(width: int) -> int:
        return width

    result = call(width, {"width": 4.0})
    assert result == 4
    assert type(result) is int


def test_wrapped_function_keeps_its_signature() -> None:
    def loud(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return fn(*args, **kwargs), "!"

        return inner

    @task
    @loud
    def say(word: str, ctx: Context, times: int = 1) -> str:
        return word * times

    assert call(say, {"word": "a", "times": 2}) == ("aa", "!")
    assert refusal(say, b'{"word":1}')[0] == "/word"


# -- classes that check themselves --------------------------------------------------------------------------------


class Wrong(Exception):
    """As pydantic's ValidationError, as far as we look at it."""

    def errors(self) -> list[dict[str, Any]]:
        return [{"loc": ("n",), "msg": "must be even"}, {"loc": (), "msg": "no"}]


class Even:
    """Behaves like a model of pydantic."""

    def __init__(self, n: int) -> None:
        self.n = n

    @classmethod
    def model_validate(cls, value: Any) -> Even:
        if value["n"] % 2:
            raise Wrong
        return cls(value["n"])

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {"title": "Even", "type": "object"}


@task
def evens(
    one: Even, more: dict[str, list[Even]] | None = None, here: pathlib.PurePath = pathlib.Path()
) -> Any:
    return one.n, more, here


def test_model_is_checked_in_the_worker_and_passes_the_daemon() -> None:
    assert call(evens, {"one": {"n": 2}})[0] == 2
    raw = b'{"one":{"n":2},"more":{"a":[{"n":4},{"n":3}]}}'
    checker(evens.spec().args_tree)(raw)
    with pytest.raises(ArgsError) as refused:
        evens.bind(raw)
    assert refused.value.pointer == "/more"
    assert refused.value.detail == "n: must be even; value: no (in one of its values)"
    assert json.loads(evens.spec().args_schema)["properties"]["one"] == {"title": "Even", "type": "object"}


def test_model_that_fails_in_its_own_way_is_a_refusal() -> None:
    with pytest.raises(ArgsError) as refused:
        evens.bind(b'{"one":5}')
    assert refused.value.pointer == "/one"
    assert "TypeError" in refused.value.detail


def test_path_is_made_of_a_string() -> None:
    assert call(evens, {"one": {"n": 2}, "here": "a/b"})[2] == pathlib.PurePosixPath("a/b")
    assert refusal(evens, b'{"one":{"n":2},"here":5}')[0] == "/here"


def test_real_pydantic_models_work() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Size", w=(int, ...), h=(int, 3))

    def area(size) -> int:  # type: ignore[no-untyped-def]
        made: int = size.w * size.h
        return made

    area.__annotations__["size"] = model
    made = task(area)
    assert call(made, {"size": {"w": 2}}) == 6
    with pytest.raises(ArgsError) as refused:
        made.bind(b'{"size":{"w":"x"}}')
    assert refused.value.pointer == "/size"
    assert refused.value.detail.startswith("w: ")


@dataclasses.dataclass
class Picky:
    a: int

    def __post_init__(self) -> None:
        if self.a == 1:
            raise ValueError("a must not be 1")
        if self.a == 2:
            raise LookupError("nor 2")


@task
def picks(picky: Picky) -> int:
    return picky.a


def test_check_of_a_dataclass_itself_is_a_refusal() -> None:
    with pytest.raises(ArgsError, match="/picky: a must not be 1"):
        picks.bind(b'{"picky":{"a":1}}')
    with pytest.raises(ArgsError, match=r"LookupError: .*nor 2"):
        picks.bind(b'{"picky":{"a":2}}')
