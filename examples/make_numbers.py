"""Writes a large file of numbers, ten on a line: `python examples/make_numbers.py numbers.txt --lines 200000`.

It is the same file each time. What it prints, the sum of all numbers, is computed while they are made and not from
the file, so it can prove what a job read there.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

NUMBERS_PER_LINE = 10
LARGEST = 999_999
LINES = 200_000
"""About 14 MB; its stream takes a few seconds to read on a small machine."""
CHUNK_LINES = 5_000
"""So many lines are made at once: quick, without holding the file in memory."""
SEED = 20_261_124


def make_numbers(path: Path, lines: int = LINES) -> int:
    """Write the file; the sum of all its numbers."""
    source = random.Random(SEED)
    total = 0
    with path.open("w") as file:
        for start in range(0, lines, CHUNK_LINES):
            count = min(CHUNK_LINES, lines - start)
            numbers = source.choices(range(LARGEST + 1), k=count * NUMBERS_PER_LINE)
            total += sum(numbers)
            texts = iter(map(str, numbers))
            file.writelines(" ".join(group) + "\n" for group in zip(*[texts] * NUMBERS_PER_LINE, strict=True))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a large file of numbers and print their sum.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--lines", type=int, default=LINES, help=f"lines of ten numbers [default: {LINES}]")
    options = parser.parse_args()
    print(make_numbers(options.path, options.lines))


if __name__ == "__main__":
    main()
