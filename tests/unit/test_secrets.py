"""Secret arguments: the type, its place in signatures, encryption, keys, and what is taken out of words."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobsvc import Secret, command, task
from jobsvc.authoring.results import NotSerialisable, encode_loosely, encode_result
from jobsvc.authoring.signature import Signature
from jobsvc.model.errors import JobError
from jobsvc.model.sealing import KeyRing, SecretUnreadable, key_line, masked, opened, read_keys
from jobsvc.model.types import ArgsError
from jobsvc.store.folder import FolderRefused
from jobsvc.store.secret_keys import key_ring
from jobsvc.worker.redaction import Veil

ID, OTHER_ID = bytes(range(16)), bytes(16)


def random_bytes() -> Callable[[int], bytes]:
    """Never the same twice, and the same in every run."""
    numbers = itertools.count(1)
    return lambda count: next(numbers).to_bytes(count, "big")


def ring(*ids: str) -> KeyRing:
    return KeyRing({each: each.encode() * 4 for each in ids or ("aaaaaaaa",)}, random_bytes())


class Login(msgspec.Struct):
    user: str
    password: Secret[str]


def takes(
    first: Secret[str], logins: list[Login] | None = None, by_name: dict[str, Secret[str]] | None = None,
    maybe: Secret[str] | None = None, number: Any = None,
) -> None: ...  # fmt: skip


SIGNATURE = Signature(takes, globals())
ARGS: dict[str, Any] = {
    "first": "one",
    "logins": [{"user": "u", "password": "two"}],
    "by_name": {"a/b": "three"},
    "maybe": None,
    "number": [1.50, 12345678901234567890123, 1e400],
}
TEXT = json.dumps(ARGS).replace("Infinity", "1e400").encode()


# -- the type


def test_a_secret_shows_itself_only_when_asked() -> None:
    """Not in any form in which a value slips into a text."""
    secret = Secret("hunter2")
    assert secret.reveal() == "hunter2"
    shown = (repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", repr([secret]), f"{secret:>20}")
    assert all("hunter2" not in text and "***" in text for text in shown)
    assert copy.deepcopy(secret) == secret == Secret("hunter2") != Secret("hunter3")
    assert "hunter2" not in encode_loosely({"a": secret}).decode()


def test_a_secret_is_not_encoded_by_accident() -> None:
    """Neither as JSON nor as a pickle."""
    with pytest.raises(NotSerialisable):
        encode_result({"a": Secret("hunter2")})
    with pytest.raises(TypeError):
        json.dumps(Secret("hunter2"))
    with pytest.raises(TypeError, match="not pickled"):
        Secret("hunter2").__reduce_ex__(4)


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        ("Secret[int]", "write Secret\\[str\\]"),
        ("Secret[bytes]", "write Secret\\[str\\]"),
        ("Secret[str] | str", "custom type"),
        ("dict[Secret[str], int]", "cannot be the key of a dict"),
    ],
)
def test_where_a_secret_cannot_be_kept_the_decoration_says_so(hint: str, words: str) -> None:
    """With the parameter, as for every hint that does not work."""

    def fn(password: Any) -> None: ...

    fn.__annotations__["password"] = hint
    with pytest.raises(TypeError, match=f"parameter password: .*{words}"):
        Signature(fn, globals())


def test_a_command_has_no_secrets() -> None:
    """Everybody on the machine can read a command line: a placeholder is a plain value, and no object fits it."""
    made = command("login", ["login", "{password}"])
    with pytest.raises(ArgsError):
        made.bind(b'{"password":{"$secret":"x"}}')


def test_clients_are_told_by_the_schema() -> None:
    """A string that is written and never read."""
    password = {"type": "string", "format": "password", "writeOnly": True}

    @task
    def login(password: Secret[str]) -> None: ...

    assert msgspec.json.decode(login.spec().args_schema)["properties"]["password"] == password


# -- encryption


def test_what_is_stored_holds_no_secret_and_all_the_rest() -> None:
    """Nested ones too; numbers keep their text; replies show three stars in place."""
    sealed = ring().seal(SIGNATURE.node, TEXT, ID)
    for secret in (b"one", b"two", b"three"):
        assert secret not in sealed
    assert b"1.5,12345678901234567890123,1e400" in sealed
    assert json.loads(masked(sealed)) == ARGS | {
        "first": "***", "logins": [{"user": "u", "password": "***"}], "by_name": {"a/b": "***"},
        "number": [1.5, 12345678901234567890123, float("inf")],
    }  # fmt: skip
    assert masked(TEXT) == TEXT


def test_the_worker_gets_the_values_back() -> None:
    """As `Secret`s where the hints say so, by the key of this job alone."""
    keys = ring()
    sealed = keys.seal(SIGNATURE.node, TEXT.replace(b", 1e400", b""), ID)
    text, found = opened(SIGNATURE.node, sealed, ID, keys.key_for(sealed, ID))
    assert sorted(found) == ["one", "three", "two"]
    values, _ = SIGNATURE.bind(text)
    assert values[:4] == [Secret("one"), [Login("u", Secret("two"))], {"a/b": Secret("three")}, None]


def test_arguments_by_position_are_encrypted_too() -> None:
    """An array is as good as an object."""
    keys = ring()
    sealed = keys.seal(SIGNATURE.node, b'["one",null]', ID)
    assert masked(sealed) == b'["***",null]'
    assert keys.unseal(SIGNATURE.node, sealed, ID) == b'["one",null]'


def test_an_envelope_is_of_no_use_elsewhere() -> None:
    """Of another job, in another place, or changed: it does not open."""
    keys = ring()
    sealed = json.loads(keys.seal(SIGNATURE.node, b'{"first":"one","maybe":"two"}', ID))
    swapped = json.dumps({"first": sealed["maybe"], "maybe": sealed["first"]}, separators=(",", ":")).encode()
    changed = json.dumps(sealed, separators=(",", ":")).replace(".", ".AAA", 2).encode()
    for text, job_id in (
        (swapped, ID),
        (changed, ID),
        (json.dumps(sealed, separators=(",", ":")).encode(), OTHER_ID),
    ):
        with pytest.raises(SecretUnreadable, match="was changed, or belongs to another job"):
            opened(SIGNATURE.node, text, job_id, keys.key_for(text, job_id) or bytes(32))


def test_a_new_key_in_front_encrypts_and_the_old_one_still_decrypts() -> None:
    """Rotation; a key that is gone is named; fingerprints stay as long as the oldest key does."""
    old, both, new = ring("aaaaaaaa"), ring("bbbbbbbb", "aaaaaaaa"), ring("bbbbbbbb")
    sealed = old.seal(SIGNATURE.node, b'{"first":"one"}', ID)
    assert both.unseal(SIGNATURE.node, sealed, ID) == b'{"first":"one"}'
    assert b'"bbbbbbbb.' in both.seal(SIGNATURE.node, b'{"first":"one"}', ID)
    with pytest.raises(SecretUnreadable, match=r"'aaaaaaaa'.*secret-keys"):
        new.unseal(SIGNATURE.node, sealed, ID)
    digest = bytes(32)
    assert old.fingerprint(digest) == both.fingerprint(digest) != new.fingerprint(digest)
    assert old.fingerprint(digest) != digest


# -- keys


def test_the_first_start_makes_the_keys(tmp_path: Path) -> None:
    """For the owner's eyes; the next start reads the same."""
    first = key_ring(tmp_path, None, random_bytes())
    file = tmp_path / "secret-keys"
    assert file.stat().st_mode & 0o777 == 0o600
    sealed = first.seal(SIGNATURE.node, b'{"first":"one"}', ID)
    assert key_ring(tmp_path, None, random_bytes()).unseal(SIGNATURE.node, sealed, ID) == b'{"first":"one"}'


def test_keys_that_are_kept_elsewhere_are_read_and_never_made(tmp_path: Path) -> None:
    """A credential of systemd, for one: without it the start is refused, and no other keys are used instead."""
    elsewhere = tmp_path / "credentials" / "jobsvc-secret-keys"
    with pytest.raises(FolderRefused, match="jobsvc-secret-keys: No such file"):
        key_ring(tmp_path, elsewhere, random_bytes())
    elsewhere.parent.mkdir()
    elsewhere.write_text(key_line(random_bytes()))
    elsewhere.chmod(0o440)
    key_ring(tmp_path, elsewhere, random_bytes())
    assert not (tmp_path / "secret-keys").exists()


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("", 0o600, "there is no key in it"),
        ("# nothing\n\nxyz\n", 0o600, "line 3 is no key"),
        (key_line(random_bytes()) * 2, 0o600, "line 2 has the id 00000001 again"),
        (key_line(random_bytes()), 0o640, "open to others: chmod 600"),
    ],
)
def test_keys_that_cannot_be_used_are_refused(tmp_path: Path, text: str, mode: int, words: str) -> None:
    """In one line that names file and line."""
    file = tmp_path / "secret-keys"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(FolderRefused, match=f"secret-keys.*{words}"):
        key_ring(tmp_path, None, random_bytes())


def test_keys_may_be_commented() -> None:
    """As a person keeps them."""
    assert list(read_keys("# new\n" + key_line(random_bytes()) + "\n")) == ["00000001"]


# -- what an attempt says


@pytest.mark.parametrize(
    "secret",
    [
        "hunter2",
        'a"quoted\\one',
        "tabs\tand\nlines of text",
        "ünder the sea",
        "-----BEGIN-----\nabcdefghijkl\nmnopqrstuvwx",
    ],
)
def test_a_secret_is_taken_out_in_every_form_that_python_writes(secret: str) -> None:
    """Itself, its repr, its JSON, its ASCII; of several lines each."""
    veil = Veil([secret])
    said = f"{secret}|{secret!r}|{secret!a}|{json.dumps(secret)}|{KeyError(secret)}"
    assert not any(part in veil.text(said) for part in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]))
    assert secret.encode() not in veil.json(msgspec.json.encode({"message": said}))
    assert msgspec.json.decode(veil.json(msgspec.json.encode({"message": said})))["message"].startswith(
        "***|"
    )
    for line in secret.splitlines():
        assert len(line) < 8 or line not in veil.text(f"<{line}>")


def test_errors_lose_it_too() -> None:
    """Message and traceback."""
    veiled = Veil(["hunter2"]).error(
        JobError("task_error", "ValueError", "no hunter2", traceback="x\nhunter2\n")
    )
    assert (veiled.message, veiled.traceback) == ("no ***", "x\n***\n")


def test_a_very_short_secret_leaves_the_words_whole() -> None:
    """Three letters are in every other word; the holes would tell them."""
    assert Veil(["the"]).text("the other") == "the other"
