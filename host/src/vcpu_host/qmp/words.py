# SPDX-License-Identifier: Apache-2.0
"""Text that comes from QEMU, made fit to be shown.

Some of it has its origin in the guest or with whoever wrote QEMU's command line, so nothing that a terminal would act
on may pass, and nothing may be longer than a paragraph (promise 6).
"""

from __future__ import annotations

_LIMIT = 400


def clean(text: object, limit: int = _LIMIT) -> str:
    """Return ``text`` on one line, every unprintable character replaced by "?", at most ``limit`` characters."""
    # Cut before the work, so that a hostile megabyte costs nothing; four is the most that one ANSI escape saves.
    raw = str(text)[: 4 * limit]
    line = " ".join(raw.split())
    line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"
