# SPDX-License-Identifier: Apache-2.0
"""Frames of the link: encoding, and a decoder that finds its feet again from any byte position.

On the wire a frame is ``7E stuffed(body) 7E``. 7E occurs nowhere else, so any 7E is a boundary, and what a torn frame
or a stranger left behind is cut off by the next one. Inside, 7D 5E stands for 7E and 7D 5D for 7D (the stuffing of
HDLC, RFC 1662 section 4.2).

The body is ``version << 4 | kind`` (u8), session token (8 bytes), sequence number (u32), payload (0..16384 bytes),
CRC-32 of all that precedes it (u32, zlib's). Numbers are big-endian. See docs/protocol.md.

Nothing here does IO, keeps time or draws random numbers.
"""

from __future__ import annotations

import enum
import struct
import zlib
from typing import NamedTuple

#: The version of the link that this code speaks (1..15). The layout of a frame is the same in every version.
VERSION = 1
#: Bytes in a session token, an instance id and a nonce.
TOKEN_BYTES = 8
#: The token of frames that belong to no session.
NO_TOKEN = bytes(TOKEN_BYTES)
#: Most bytes that one frame carries.
MAX_PAYLOAD = 16 * 1024

_HEADER = struct.Struct(">B8sI")
_CRC = struct.Struct(">I")
_LEAST_BODY = _HEADER.size + _CRC.size
_MOST_BODY = _LEAST_BODY + MAX_PAYLOAD
#: Most bytes between two flags of a valid frame: every byte of the body escaped.
MAX_ENCODED = 2 * _MOST_BODY

_FLAG = b"\x7e"
_ESCAPE = b"\x7d"
_FLAG_INSIDE = b"\x7d\x5e"
_ESCAPE_INSIDE = b"\x7d\x5d"


class Kind(enum.IntEnum):
    """What a frame is. Numbers are never reused; a receiver ignores kinds that it does not know."""

    OPEN = 1
    ACCEPT = 2
    DATA = 3
    CLOSE = 4
    RESET = 5
    PING = 6
    PONG = 7
    BEACON = 8


class Frame(NamedTuple):
    """One frame. ``kind`` is a plain int, for a newer peer may send kinds that Kind does not have."""

    kind: int
    token: bytes
    seq: int = 0
    payload: bytes = b""
    version: int = VERSION


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame, flags included.

    Raise ValueError for a frame that no decoder would take (payload too long, token of another length, kind or version
    beyond four bits, sequence number beyond 32).
    """
    kind, token, seq, payload, version = frame
    if len(payload) > MAX_PAYLOAD or len(token) != TOKEN_BYTES:
        raise ValueError(f"no frame has a payload of {len(payload)} bytes and a token of {len(token)}")
    if not (0 <= kind <= 15 and 0 <= version <= 15 and 0 <= seq < 1 << 32):
        raise ValueError(f"no frame has kind {kind}, version {version} and sequence number {seq}")
    body = _HEADER.pack(version << 4 | kind, token, seq) + payload
    body += _CRC.pack(zlib.crc32(body))
    # The escape first, or the escapes made for the flags would be escaped again.
    return _FLAG + body.replace(_ESCAPE, _ESCAPE_INSIDE).replace(_FLAG, _FLAG_INSIDE) + _FLAG


class Decoder:
    """Turns bytes into frames. Takes anything, raises on nothing, and holds at most MAX_ENCODED bytes between calls.

    ``dropped_bytes`` and ``dropped_frames`` count what was no valid frame (flags not counted): stretches between two
    flags that were too short, too long, wrongly escaped or had another checksum.
    """

    def __init__(self) -> None:
        self.dropped_bytes = 0
        self.dropped_frames = 0
        self._partial = bytearray()
        self._skipping = False

    @property
    def held(self) -> int:
        """Bytes kept for the frame that is not complete yet."""
        return len(self._partial)

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that these bytes complete, in order. Time is linear in len(data)."""
        stretches = data.split(_FLAG)
        self._hold(stretches[0])
        if len(stretches) == 1:
            return []
        frames: list[Frame] = []
        self._finish(frames)
        for stretch in stretches[1:-1]:
            if stretch:
                self._parse(stretch, frames)
        self._hold(stretches[-1])
        return frames

    def _hold(self, stretch: bytes) -> None:
        if self._skipping:
            self.dropped_bytes += len(stretch)
        elif len(self._partial) + len(stretch) > MAX_ENCODED:
            self.dropped_bytes += len(self._partial) + len(stretch)
            self._partial.clear()
            self._skipping = True
        elif stretch:
            self._partial += stretch

    def _finish(self, frames: list[Frame]) -> None:
        """Take what was held as complete: a flag came."""
        if self._skipping:
            self._skipping = False
            self.dropped_frames += 1
        elif self._partial:
            stretch = bytes(self._partial)
            self._partial.clear()
            self._parse(stretch, frames)

    def _parse(self, stretch: bytes, frames: list[Frame]) -> None:
        body = _unstuff(stretch)
        if body is None or not _LEAST_BODY <= len(body) <= _MOST_BODY:
            self._drop(stretch)
            return
        (checksum,) = _CRC.unpack_from(body, len(body) - _CRC.size)
        covered = body[: -_CRC.size]
        if zlib.crc32(covered) != checksum:
            self._drop(stretch)
            return
        first, token, seq = _HEADER.unpack_from(covered)
        frames.append(Frame(first & 0x0F, token, seq, covered[_HEADER.size :], first >> 4))

    def _drop(self, stretch: bytes) -> None:
        self.dropped_bytes += len(stretch)
        self.dropped_frames += 1


def _unstuff(stretch: bytes) -> bytes | None:
    """Undo the stuffing.

    Return None if anything but 5D or 5E follows an escape: a frame has one spelling only.
    """
    escapes = stretch.count(_ESCAPE)
    if not escapes:
        return stretch
    if stretch.count(_ESCAPE_INSIDE) + stretch.count(_FLAG_INSIDE) != escapes:
        return None
    # The flag first: 7D 5D 5E stands for 7D 5E, and undoing 7D 5D first would make a flag of it.
    return stretch.replace(_FLAG_INSIDE, _FLAG).replace(_ESCAPE_INSIDE, _ESCAPE)
