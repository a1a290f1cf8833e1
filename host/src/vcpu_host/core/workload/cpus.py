# SPDX-License-Identifier: Apache-2.0
"""Sets of guest CPUs as ints, with a bit for each number: read from the kernel's lists, and written as such."""

from __future__ import annotations

from collections.abc import Iterable

#: More than any kernel's NR_CPUS.
LIMIT = 65536


def of(numbers: Iterable[int]) -> int:
    """Return the set of these numbers."""
    found = 0
    for number in numbers:
        found |= 1 << number
    return found


def parse(text: str) -> int:
    """Return the set that a kernel's list such as "0-3,8" names. Raise ValueError if it is none."""
    found = 0
    for part in text.split(",") if text.strip() else ():
        first, dash, last = part.strip().partition("-")
        low, high = _number(first), _number(last if dash else first)
        if low > high:
            raise ValueError(f"not a list of CPUs: {text[:40]!r}")
        found |= (1 << high - low + 1) - 1 << low
    return found


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < LIMIT):
        raise ValueError(f"not a number of a CPU: {text[:40]!r}")
    return int(text)


def numbers(cpus: int) -> list[int]:
    """Return the numbers of a set, in ascending order."""
    found = []
    while cpus:
        low = cpus & -cpus
        found.append(low.bit_length() - 1)
        cpus ^= low
    return found


def text(cpus: int, most: int = 16) -> str:
    """Return the set as the kernel writes it; after ``most`` ranges it is cut, with "..."."""
    parts: list[list[int]] = []
    for number in numbers(cpus):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    shown = ["-".join(map(str, dict.fromkeys(part))) for part in parts[:most]]
    return ",".join(shown + ["..."] * (len(parts) > most))


def named(cpus: int) -> str:
    """Return the set with its noun: "CPU 3", "CPUs 2-3"."""
    return f"CPU{'s' * (cpus.bit_count() != 1)} {text(cpus) or 'none'}"
