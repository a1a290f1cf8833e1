# SPDX-License-Identifier: Apache-2.0
"""Imports that leave out what a library takes and never uses with us: it would take time at each start, and memory."""

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


@contextmanager
def standing_in(name: str, **attributes: object) -> Iterator[None]:
    """Let what is imported in the block find a module of this name that has these attributes and nothing else.

    It is for a library that takes a name of the module and does not use it, as for an annotation. A module that the
    process has already stays, and after the block the real one can be imported as ever.
    """
    if name in sys.modules:
        yield
        return
    module = ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module
    try:
        yield
    finally:
        if sys.modules.get(name) is module:
            del sys.modules[name]
