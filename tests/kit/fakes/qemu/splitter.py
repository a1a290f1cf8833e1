# SPDX-License-Identifier: Apache-2.0
"""JSON values out of a byte stream, as QEMU's parser finds them: by their brackets, newlines mean nothing."""

from __future__ import annotations

import re

#: What means something: in a string, between brackets, and outside of all.
_STRING, _NESTED, _BARE = re.compile(rb'["\\]'), re.compile(rb'["{}\[\]]'), re.compile(rb'["{}\[\] \t\r\n]')


class Splitter:
    """Feed it bytes, take whole values (as text, perhaps not valid JSON: whoever reads them finds out)."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._at = 0  # what lies before has been looked at; after a backslash at the end, one more
        self._depth = 0
        self._string = False

    def feed(self, data: bytes) -> list[bytes]:
        """The values that these bytes complete."""
        found = []
        self._text += data
        while (hit := self._pattern().search(self._text, self._at)) is not None:
            self._at = hit.end()
            if self._meets(hit.group()):
                value = bytes(self._text[: self._at]).strip()
                del self._text[: self._at]
                self._at = self._depth = 0
                if value:
                    found.append(value)
        self._at = max(self._at, len(self._text))
        return found

    def _pattern(self) -> re.Pattern[bytes]:
        if self._string:
            return _STRING
        return _NESTED if self._depth > 0 else _BARE

    def _meets(self, byte: bytes) -> bool:
        """Whether a value, or the space before one, ends with this byte."""
        if byte == b"\\":
            self._at += 1
            return False
        if byte == b'"':
            self._string = not self._string
            return False
        if byte in b"{[":
            self._depth += 1
            return False
        if byte in b"}]":
            self._depth -= 1
        return self._depth <= 0
