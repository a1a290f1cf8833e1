# SPDX-License-Identifier: Apache-2.0
"""The kernel's CPU list format: "0-3,8", "" for none (lib/bitmap.c, bitmap_list_string)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

#: More than any kernel's NR_CPUS; a list with a larger number is rejected.
LIMIT = 65536
#: So many entries of a list stand in a sentence; of a longer one the first few do.
_WHOLE, _NAMED = 8, 3


def parse(text: str) -> frozenset[int]:
    """Return the numbers of a list. "" means none; so does "(null)", which Linux 6.1 prints for an unallocated mask.

    Raise ValueError for anything else that is not a CPU list.
    """
    text = text.strip()
    if text in {"", "(null)"}:
        return frozenset()
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not (_plain(first) and (_plain(last) if dash else True)):
            raise ValueError(f"not a CPU list: {text[:80]!r}")
        low, high = int(first), int(last) if dash else int(first)
        if high < low or high >= LIMIT:
            raise ValueError(f"not a CPU list: {text[:80]!r}")
        numbers.update(range(low, high + 1))
    return frozenset(numbers)


def render(numbers: Iterable[int]) -> str:
    """Return the list as the kernel would write it, for example "0-2,5" for {0, 1, 2, 5}."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def brief(numbers: Collection[int]) -> str:
    """Return the list for a sentence: as the kernel writes it, or its beginning and how many CPUs follow.

    For example "1, 3, 5 and 237 more".
    """
    entries = render(numbers).split(",")
    if len(entries) <= _WHOLE:
        return ",".join(entries)
    named = entries[:_NAMED]
    left = len(set(numbers)) - sum(len(parse(entry)) for entry in named)
    return f"{', '.join(named)} and {left} more"


def _plain(text: str) -> bool:
    # int() would also accept "+1", " 1", "1_0" and digits of other scripts.
    return text.isascii() and text.isdigit() and len(text) <= 6
