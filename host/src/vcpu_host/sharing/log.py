# SPDX-License-Identifier: Apache-2.0
"""What a process that works for others tells its log, without -v, too: stderr, which systemd has the journal keep."""

from __future__ import annotations

import sys
from contextlib import suppress

from ..core.text import printable

#: The longest line, in characters: a reason may repeat words of a file.
_LONGEST = 2000


def tell(text: str) -> None:
    """Write a line. A log that takes none ends nothing."""
    with suppress(OSError):
        sys.stderr.write(f"vcpuctl: {printable(text, _LONGEST)}\n")
        sys.stderr.flush()
