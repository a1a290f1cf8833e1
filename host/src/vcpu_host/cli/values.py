# SPDX-License-Identifier: Apache-2.0
"""The values that options take: each function returns the value of a text, or raises BadValueError."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

#: What --output takes.
FORMS = ("table", "wide", "json")
_TIME = r"([0-9]{1,9}(?:\.[0-9]{1,9})?|\.[0-9]{1,9})(ms|s|m|h)?"  # compiled where it is used: few runs need it
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 86400.0  # seconds


class BadValueError(ArgumentTypeError):
    """A text that is no value of its option. ``hint`` says what to write instead; {prog} in it is the command."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


def node(text: str) -> int:
    """Return the number of a NUMA node."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BadValueError(f"{text!r} is not the number of a NUMA node")
    return int(text)


def positive(text: str) -> int:
    """Return a count."""
    if not (text.isascii() and text.isdigit() and len(text) <= 18) or int(text) < 1:
        raise BadValueError(f"{text!r} is not a number of at least 1")
    return int(text)


def amount(text: str) -> int:
    """Return a count that stands alone, where users may expect to name a slot."""
    if text[:1].isalpha() or "=" in text:
        raise BadValueError(f"{text!r} is not a number of vCPUs", f"slots are named by --slot: {{prog}} --slot {text}")
    return positive(text)


def seconds(text: str) -> float:
    """Return a time in seconds. A number without a unit is in seconds."""
    match = re.fullmatch(_TIME, text, re.ASCII)
    value = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if not 0 < value <= _LONGEST:
        raise BadValueError(f"{text!r} is not a time: 30, 30s, 500ms, 2m or 1h, above 0 and at most a day")
    return value


def percent(text: str) -> float:
    """Return a percentage."""
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", text, re.ASCII) or float(text) > 100:
        raise BadValueError(f"{text!r} is not a percentage from 0 to 100")
    return float(text)


def lines(text: str) -> int | str:
    """Return how many of the newest entries, or "all"."""
    return text if text == "all" else positive(text)
