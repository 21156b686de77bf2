"""Keys that stand twice: found wherever they are and however they are spelt, and never where they are not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsvc.http.duplicates import check_unique, may_repeat
from jobsvc.model.errors import JobsvcError


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        (b'{"a":1,"a":2}', "/a"),
        (b'{"a":1,"\\u0061":2}', "/a"),
        (b'{"a" :1, "b":"a", "a"\n:2}', "/a"),
        (b'[{"x":1},{"x":1,"y":{"z":[0,{"k":1,"k":1}]}}]', "/1/y/z/1/k"),
        (b'{"a/b~c":1,"a/b~c":1}', "/a~1b~0c"),
        (b'{"":1,"":1}', "/"),
        (b'{"x":[[[{"a":1,"a":1}]]]}', "/x/0/0/0/a"),
    ],
)
def test_a_repeated_key_is_named(text: bytes, pointer: str) -> None:
    """400 with the pointer of the second one."""
    with pytest.raises(JobsvcError) as caught:
        check_unique(text)
    assert caught.value.code == "bad_json"
    assert caught.value.context["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    "text",
    [
        b'{"task":"task","args":{"task":1}}',
        b'[{"x":1},{"x":2}]',
        b'{"a":"b","c":":","d":"a"}',
        b'{"a":"\\"a\\":1"}',
        b'"a"',
        b"",
        b'{"a":1,"a"',  # no JSON: that is for its decoder to say
        b"\xff",
        b"[" * 5000,
        b'{"a":"\\u0000"}',
    ],
)
def test_what_is_not_repeated_passes(text: bytes) -> None:
    """The same word as a value, or in another object, is no second key."""
    check_unique(text)


def test_most_texts_are_not_looked_at_twice() -> None:
    """The quick look is what keeps a submit cheap."""
    assert not may_repeat(b'{"task":"echo","args":{"x":1},"labels":{"user":"echo"},"key":"echo"}')
    assert may_repeat(b'{"task":"echo","task":1}')
    assert may_repeat(b'{"task":"e\\n"}')


keys = st.sampled_from(["a", "b", ":", "", ',"', "a\\", "\u20ac", "{"])
words = st.one_of(keys, st.text(max_size=3))
values = st.recursive(
    st.one_of(st.integers(0, 9), words),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.lists(st.tuples(keys, inner), max_size=3)
    ),
    max_leaves=12,
)


def written(value: object) -> str:
    """As JSON; a list is an object's members, a tuple an array."""
    if isinstance(value, list):
        return "{" + ", ".join(f"{json.dumps(key)} : {written(member)}" for key, member in value) + "}"
    if isinstance(value, tuple):
        return "[" + ",".join(written(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def repeats(value: object) -> bool:
    """Whether a key stands twice in it."""
    if isinstance(value, list):
        return len({key for key, _ in value}) < len(value) or any(repeats(member) for _, member in value)
    return isinstance(value, tuple) and any(repeats(item) for item in value)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(value=values)
def test_found_exactly_when_there(value: object) -> None:
    """Against a plain walk over what was written."""
    text = written(value).encode()
    try:
        check_unique(text)
    except JobsvcError:
        assert repeats(value)
    else:
        assert not repeats(value)
