# SPDX-License-Identifier: Apache-2.0
"""What a command of the fake can answer instead of a value."""

from __future__ import annotations


class QmpError(Exception):
    """A QMP error reply: its class and its text."""

    def __init__(self, cls: str, desc: str) -> None:
        super().__init__(desc)
        self.cls = cls
        self.desc = desc
