# SPDX-License-Identifier: Apache-2.0
"""Sets of guest CPUs as ints, with a bit for each number: read from the kernel's lists, and written as such."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

#: More than any kernel's NR_CPUS.
LIMIT = 65536


def of(numbers: Iterable[int]) -> int:
    """Return the set of these numbers, all below LIMIT, in linear time."""
    known = tuple(numbers)
    least = min(known, default=0)
    bits = bytearray((max(known, default=0) - least >> 3) + 1)
    for number in known:
        bits[number - least >> 3] |= 1 << (number - least & 7)
    return int.from_bytes(bits, "little") << least


def parse(text: str) -> int:
    """Return the set that a kernel's list such as "0-3,8" names. Raise ValueError if it is none."""
    bits = bytearray(LIMIT // 8)
    for part in text.split(",") if text.strip() else ():
        first, dash, last = part.strip().partition("-")
        low, high = _number(first), _number(last if dash else first)
        if low > high:
            raise ValueError(f"not a list of CPUs: {text[:40]!r}")
        begin, end = low >> 3, high >> 3
        head, tail = 0xFF << (low & 7) & 0xFF, (2 << (high & 7)) - 1
        if begin == end:
            bits[begin] |= head & tail
        else:
            bits[begin] |= head
            bits[begin + 1 : end] = b"\xff" * (end - begin - 1)
            bits[end] |= tail
    return int.from_bytes(bits, "little")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < LIMIT):
        raise ValueError(f"not a number of a CPU: {text[:40]!r}")
    return int(text)


def numbers(cpus: int) -> list[int]:
    """Return the numbers of a set, in ascending order."""
    return [number for run in _runs(cpus) for number in run]


def _runs(cpus: int) -> Iterator[range]:
    """Yield the ranges of a set, in linear time: a guest may name 65,536 CPUs."""
    for run in re.finditer("1+", f"{cpus:b}"[::-1]):
        yield range(run.start(), run.end())


def text(cpus: int, most: int = 16) -> str:
    """Return the set as the kernel writes it; after ``most`` ranges it is cut, with "..."."""
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in islice(_runs(cpus), most + 1)]
    return ",".join(parts if len(parts) <= most else [*parts[:most], "..."])


def named(cpus: int) -> str:
    """Return the set with its noun: "CPU 3", "CPUs 2-3"."""
    return f"CPU{'s' * (cpus.bit_count() != 1)} {text(cpus) or 'none'}"
