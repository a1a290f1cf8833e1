# SPDX-License-Identifier: Apache-2.0
"""JSON values out of a byte stream, as QEMU's parser finds them: by their brackets, newlines mean nothing."""

from __future__ import annotations

_SPACE = b" \t\r\n"


class Splitter:
    """Feed it bytes, take whole values (as text, perhaps not valid JSON: whoever reads them finds out)."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._depth = 0
        self._string = False
        self._escaped = False

    def feed(self, data: bytes) -> list[bytes]:
        """The values that these bytes complete."""
        found = []
        for byte in data:
            if not self._text and byte in _SPACE:
                continue
            self._text.append(byte)
            if self._string:
                self._in_string(byte)
            elif byte == 0x22:
                self._string = True
            elif byte in b"{[":
                self._depth += 1
            elif byte in b"}]":
                self._depth -= 1
            if not self._string and self._depth <= 0 and (byte in b"}]" or byte in _SPACE):
                found.append(bytes(self._text).strip())
                self._text.clear()
                self._depth = 0
        return found

    def _in_string(self, byte: int) -> None:
        if self._escaped:
            self._escaped = False
        elif byte == 0x5C:
            self._escaped = True
        elif byte == 0x22:
            self._string = False
