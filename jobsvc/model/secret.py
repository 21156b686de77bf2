"""F0: `Secret`: an argument that nobody but the task's own code gets to see."""

from __future__ import annotations

from typing import Any, Final, Generic, NoReturn, TypeVar

T = TypeVar("T", bound=str)

MASK: Final = "***"
"""What is shown in place of a secret."""


class Secret(Generic[T]):
    """A text that is encrypted wherever it lies and shown nowhere: `def login(password: Secret[str]): ...`.

    Clients send a plain string. The database holds it encrypted, replies show `***`, and what the attempt logs, prints
    or raises has `***` in its place. What the task returns, yields or writes elsewhere is its author's affair.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        if not isinstance(value, str):
            raise TypeError(f"a Secret holds a str, not {type(value).__name__}")
        self._value: T = value

    def __class_getitem__(cls, item: Any) -> Any:
        if item is not str and not isinstance(item, TypeVar):
            raise TypeError(f"a secret argument is text: write Secret[str], not Secret[{item!r}]")
        return super().__class_getitem__(item)  # type: ignore[misc]  # typing.Generic has it

    def reveal(self) -> T:
        """The text itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        from hmac import compare_digest  # most workers never need it, and it brings OpenSSL along

        mine, its = (each.encode("utf-8", "surrogatepass") for each in (self._value, other.reveal()))
        return compare_digest(mine, its)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Secret is not pickled: it would lie in the open; give on what reveal() returns if you must"
        )

    def __copy__(self) -> Secret[T]:
        return self

    def __deepcopy__(self, memo: Any) -> Secret[T]:
        return self
