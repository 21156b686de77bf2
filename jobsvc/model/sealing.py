"""F0: secret arguments encrypted within the text of the arguments, and taken out again.

In place of a secret stands `{"$secret": "<key id>.<nonce>.<ciphertext>"}`: AES-256-GCM under a key that is derived for
this job alone, with the job's id and the place in the arguments as associated data: an envelope is of no use anywhere
else. A worker gets the key of its job, never those of the ring. Pure; `cryptography` is imported when it is needed.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from json import JSONDecoder
from typing import Any, Final

import msgspec

from jobsvc.model.secret import MASK
from jobsvc.model.typetree import TypeNode
from jobsvc.model.typewalk import Place, argument_places

KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 4
"""Names a key in envelopes and in the file; it need not be hard to guess."""
NONCE_BYTES: Final = 12
"""What AES-GCM takes; a job's own key encrypts a handful of values, so a random one never comes twice."""
ENVELOPE: Final = "$secret"

_SEALED = re.compile(rb'\{"\$secret":"([0-9a-f]{8})\.[A-Za-z0-9_-]{16}\.[A-Za-z0-9_-]{22,}"\}')
_SIGN = b'{"$secret":"'
_MASKED = f'"{MASK}"'.encode()
_KEY_LINE = re.compile(r"([0-9a-f]{8})\s+([A-Za-z0-9_-]{43}=?)")


class SecretUnreadable(Exception):
    """A secret cannot be decrypted; the text says why, and never holds anything of it."""


def masked(args: bytes) -> bytes:
    """The text of arguments as it may be shown."""
    # Within a JSON string no quote stands without a backslash: only an object can look like this.
    return _SEALED.sub(_MASKED, args) if _SIGN in args else args


class KeyRing:
    """The keys of a daemon.

    Args:
        keys: id → 32 bytes; the first encrypts, all decrypt.
        random_bytes: `random_bytes(n)` gives n bytes that nobody can guess.
    """

    def __init__(self, keys: Mapping[str, bytes], random_bytes: Callable[[int], bytes]) -> None:
        self._keys = dict(keys)
        self._first = next(iter(self._keys))
        # A key that is added in front must not make old idempotency keys look used for another body.
        self._oldest = self._keys[next(reversed(self._keys))]
        self._random_bytes = random_bytes

    def seal(self, node: TypeNode, args: bytes, job_id: bytes) -> bytes:
        """Arguments that fit the signature `node`, with their secrets encrypted for this job."""
        key = _derived(self._keys[self._first], job_id)

        def sealed(place: Place) -> Any:
            if not isinstance(place.value, str):
                return place.value
            nonce = self._random_bytes(NONCE_BYTES)
            text = _cipher(key).encrypt(nonce, place.value.encode(), job_id + place.pointer.encode())
            return {ENVELOPE: f"{self._first}.{_base64(nonce)}.{_base64(text)}"}

        return _replaced(node, args, sealed)

    def unseal(self, node: TypeNode, args: bytes, job_id: bytes) -> bytes:
        """The arguments as the client sent them. Raises `SecretUnreadable`."""
        return opened(node, args, job_id, self.key_for(args, job_id))[0]

    def key_for(self, args: bytes, job_id: bytes) -> bytes:
        """The key that opens the secrets in these arguments; empty when the ring has it no more, or there are none."""
        found = _SEALED.search(args)
        key = None if found is None else self._keys.get(found[1].decode())
        return b"" if key is None else _derived(key, job_id)

    def fingerprint(self, digest: bytes) -> bytes:
        """A digest of a body that holds a secret, of no use for guessing it without the key."""
        return hmac.digest(self._oldest, b"jobsvc body\0" + digest, "sha256")


def opened(node: TypeNode, args: bytes, job_id: bytes, key: bytes) -> tuple[bytes, list[str]]:
    """The arguments with their secrets in clear, and these secrets.

    Raises:
        SecretUnreadable: there is no key for them, or they were not encrypted for this place.
    """
    found: list[str] = []

    def plain(place: Place) -> Any:
        value: Any = place.value
        if isinstance(value, dict) and isinstance(text := value.get(ENVELOPE), str):
            value = _decrypted(text, key, job_id + place.pointer.encode())
        if isinstance(value, str):
            found.append(value)
        return value

    return _replaced(node, args, plain), found


def read_keys(text: str) -> dict[str, bytes]:
    """The keys in a file: on each line an id and a key; lines may be empty or begin with #.

    Raises:
        ValueError: a line that is none of these, no key at all, or an id twice; names the line.
    """
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _KEY_LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(
                f"line {number} is no key: 8 hex digits and 43 characters of base64url are expected"
            )
        if match[1] in keys:
            raise ValueError(f"line {number} has the id {match[1]} again")
        keys[match[1]] = urlsafe_b64decode(match[2].rstrip("=") + "=")
    if not keys:
        raise ValueError("there is no key in it")
    return keys


def key_line(random_bytes: Callable[[int], bytes]) -> str:
    """A new key as a line of the file."""
    return f"{random_bytes(KEY_ID_BYTES).hex()} {_base64(random_bytes(KEY_BYTES))}\n"


# Numbers stay their text: to decode them would change what the client sent.
_DECODER = JSONDecoder(
    parse_float=lambda text: msgspec.Raw(text.encode()), parse_int=lambda text: msgspec.Raw(text.encode())
)


def _replaced(node: TypeNode, args: bytes, change: Callable[[Place], Any]) -> bytes:
    """`args` with every secret place changed."""
    value = _DECODER.decode(args.decode())
    for place in argument_places(node, value):
        if place.node.kind == "secret":
            place.replace(change(place))
    return msgspec.json.encode(value)


def _decrypted(text: str, key: bytes, place: bytes) -> str:
    from cryptography.exceptions import InvalidTag

    key_id, _, rest = text.partition(".")
    if not key:
        raise SecretUnreadable(
            f"the key {key_id!r} of its secret arguments is not among the daemon's secret-keys"
        )
    nonce, _, sealed = rest.partition(".")
    try:
        plain: bytes = _cipher(key).decrypt(_plain_bytes(nonce), _plain_bytes(sealed), place)
        return plain.decode()
    except (InvalidTag, ValueError):  # the second: no base64, a nonce of another length, no UTF-8
        raise SecretUnreadable("a secret argument was changed, or belongs to another job") from None


def _derived(key: bytes, job_id: bytes) -> bytes:
    return hmac.digest(key, b"jobsvc secret arguments\0" + job_id, "sha256")


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _plain_bytes(text: str) -> bytes:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except Base64Error as error:
        raise ValueError(str(error)) from None
