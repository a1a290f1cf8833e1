# SPDX-License-Identifier: Apache-2.0
"""What options' values may be: each function makes a value of a text, or says what would be one."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

_TIME = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?|\.[0-9]{1,9})(ms|s|m|h)?", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 86400.0  # seconds


def node(text: str) -> int:
    """The number of a NUMA node."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ArgumentTypeError(f"{text!r} is not the number of a NUMA node")
    return int(text)


def positive(text: str) -> int:
    """A count."""
    if not (text.isascii() and text.isdigit() and len(text) <= 18) or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def seconds(text: str) -> float:
    """A time, in seconds if no unit is given."""
    match = _TIME.fullmatch(text)
    value = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if not 0 < value <= _LONGEST:
        raise ArgumentTypeError(f"{text!r} is not a time: 30, 30s, 500ms, 2m or 1h, above 0 and at most a day")
    return value
