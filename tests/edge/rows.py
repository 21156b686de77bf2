"""The catalogue of bad input: each row by its number, with the cases that stand for it.

A case is what a client sends on one connection, and the status (or one of several) of the only reply to it.
"""

from __future__ import annotations

from tests.edge.body_rows import BODIES
from tests.edge.door_rows import DOORS
from tests.edge.framing_rows import FRAMING

ROWS = FRAMING | BODIES | DOORS
