# SPDX-License-Identifier: Apache-2.0
"""Imports that leave out what a library takes if it is there and the agent never uses: it would stay in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Let what is imported in the block find no module of these names, as where they are not installed.

    It is for libraries that go on without them. A module that the process has already stays, and after the block each
    can be imported as ever.
    """
    hidden = [name for name in names if name not in sys.modules]
    # None there ends an import with ModuleNotFoundError (Python's language reference, "The module cache").
    cast("dict[str, ModuleType | None]", sys.modules).update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
