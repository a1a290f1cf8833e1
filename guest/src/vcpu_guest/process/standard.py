# SPDX-License-Identifier: Apache-2.0
"""The standard streams, where the process was started without some of them."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

#: What Python has for each, by its descriptor.
_STREAMS = ("stdin", "stdout", "stderr")


def open_closed() -> None:
    """Have those that are closed lead nowhere. The entry of the process calls it before anything else is opened.

    The descriptor of a closed one would be that of the next file or socket, into which gRPC would then log.
    """
    for number, name in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))


def say(line: str) -> None:
    """Write a last line to stderr, if that takes it: the exit status says the same."""
    with suppress(OSError):
        sys.stderr.write(f"{line}\n")
