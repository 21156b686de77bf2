"""F3: the refusals of one minute: few are written down one by one, the others are counted.

Of those who showed a good token, few of each address. Of strangers, few of all together: they come from as many
addresses as they like, and what they leave in the audit log must not push out the history of changes.
"""

from __future__ import annotations

from typing import Final

from jobsvc.model.audit import Entry
from jobsvc.model.errors import Code

ADDRESS_REFUSALS: Final = 10
"""A minute, of one address with a principal; the rest is one record with its count."""
STRANGER_REFUSALS: Final = 5
"""A minute, of all strangers together; the rest is one record for each code. There are four codes for them, so a flood
that never ends and is of every kind writes 9 records of 500 bytes a minute, 6 MB a day: it takes six weeks to fill the
quarter of a gigabyte that is kept. With 10 of each address it took an hour."""
ADDRESSES_MAX: Final = 1_000
"""So many addresses are told apart, of principals and of the strangers of each code: some 100 KB. A number of addresses
that is as high as this means: so many or more."""
LEFT_OUT: Final = "audit.left_out"
"""What the log says of refusals that were only counted."""


class _Joined:
    """Refusals of strangers that share a record."""

    def __init__(self) -> None:
        self.count = 0
        self.addresses: set[str] = set()

    def add(self, source: str) -> None:
        self.count += 1
        if len(self.addresses) < ADDRESSES_MAX:
            self.addresses.add(source)


class Tally:
    """See the module; one for each window."""

    def __init__(self) -> None:
        self._by_address: dict[str, int] = {}  # of those with a principal
        self._strangers = 0
        self._joined: dict[Code | None, _Joined] = {}

    def admits(self, source: str, code: Code | None, *, stranger: bool) -> bool:
        """Count a refusal; whether it gets a record of its own."""
        if not stranger:
            if source not in self._by_address and len(self._by_address) >= ADDRESSES_MAX:
                source = "others"
            count = self._by_address[source] = self._by_address.get(source, 0) + 1
            return count <= ADDRESS_REFUSALS
        if self._strangers < STRANGER_REFUSALS:
            self._strangers += 1
            return True
        if code not in self._joined:
            self._joined[code] = _Joined()
        self._joined[code].add(source)
        return False

    def left_out(self, at: int) -> list[Entry]:
        """The records of what got none of its own. `at`: microseconds."""
        entries = [
            Entry(at, "daemon", None, source, LEFT_OUT, None, count - ADDRESS_REFUSALS, count, "refused")
            for source, count in self._by_address.items()
            if count > ADDRESS_REFUSALS
        ]
        for code, joined in self._joined.items():
            only = next(iter(joined.addresses)) if len(joined.addresses) == 1 else None
            entries.append(
                Entry(
                    at, "daemon", None, only, LEFT_OUT, None, joined.count, None, "refused", code,
                    addresses=len(joined.addresses),
                )
            )  # fmt: skip
        return entries
