# SPDX-License-Identifier: Apache-2.0
"""The kernel's CPU list format: "0-3,8", "" for none (lib/bitmap.c, bitmap_list_string)."""

from __future__ import annotations

from collections.abc import Iterable

#: More than any kernel's NR_CPUS; a list beyond it is not believed.
LIMIT = 65536


def parse(text: str) -> frozenset[int]:
    """Read a list. Empty means none, and so does "(null)", which 6.1 prints for a mask that was never allocated.

    Raises ValueError for anything else that is not a CPU list.
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
    """Write a list as the kernel would, for example {0, 1, 2, 5} as "0-2,5"."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def _plain(text: str) -> bool:
    # int() would also take "+1", " 1", "1_0" and other scripts' digits.
    return text.isascii() and text.isdigit() and len(text) <= 6
