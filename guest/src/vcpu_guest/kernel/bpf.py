# SPDX-License-Identifier: Apache-2.0
"""A socket filter that lets the events of CPUs through.

So those of other devices neither wake the agent up nor take room in its buffer. A CPU that comes brings a dozen.

libudev's own filter does not do that for the kernel's group: it knows udevd's messages by their head and passes all
others, to throw them away when they have been read (systemd, sd-device/device-monitor.c).

The kernel's begin with "ACTION@DEVPATH", for example "add@/devices/system/cpu/cpu3" (lib/kobject_uevent.c). The
language is that of Linux' Documentation/networking/filter.rst.
"""

from __future__ import annotations

import ctypes
import socket
import struct

_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE = 0x20, 0x28, 0x30
_IF_EQUAL, _IF_GREATER, _IF_AT_LEAST, _RETURN = 0x15, 0x25, 0x35, 0x06
_ALL, _NONE = 0xFFFFFFFF, 0
#: Its number on every architecture that has our platforms (asm-generic/socket.h; Python has no name for it).
_SO_ATTACH_FILTER = 26

_PATH = b"@/devices/system/cpu/cpu"
#: Lengths of the kernel's actions: add; bind, move; remove, change, online, unbind; offline.
_LENGTHS = (3, 4, 6, 7)

_Instruction = tuple[int, int, int, int]


def program() -> list[_Instruction]:
    """As (code, jump if true, jump if false, constant). A message that begins otherwise than it knows passes."""
    instructions: list[_Instruction] = []
    for length in _LENGTHS:
        block = _block(length)
        # To the next length's block if there is no "@" here.
        instructions += [(_LOAD_BYTE, 0, 0, length), (_IF_EQUAL, 0, len(block), _PATH[0]), *block]
    return [*instructions, (_RETURN, 0, 0, _ALL)]


def _block(length: int) -> list[_Instruction]:
    """Passes "cpuN", drops the rest: the last instruction but one and the last."""
    compared: list[_Instruction] = []
    offset = 0
    while offset < len(_PATH):
        size, load = next(
            (size, load)
            for size, load in ((4, _LOAD_WORD), (2, _LOAD_HALF), (1, _LOAD_BYTE))
            if offset + size <= len(_PATH)
        )
        wanted = int.from_bytes(_PATH[offset : offset + size], "big")
        compared += [(load, 0, 0, length + offset), (_IF_EQUAL, 0, -1, wanted)]
        offset += size
    compared += [
        (_LOAD_BYTE, 0, 0, length + offset),
        (_IF_AT_LEAST, 0, -1, ord("0")),
        (_IF_GREATER, -1, 0, ord("9")),
        (_RETURN, 0, 0, _ALL),
        (_RETURN, 0, 0, _NONE),
    ]
    last = len(compared) - 1

    def resolved(index: int, jump: int) -> int:
        return last - index - 1 if jump < 0 else jump

    return [
        (code, resolved(index, true), resolved(index, false), constant)
        for index, (code, true, false, constant) in enumerate(compared)
    ]


def attach(receiver: socket.socket) -> None:
    """From now on only such messages get into the socket. Raises OSError if the kernel does not take the filter."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program())
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions, and where they are.
    given = struct.pack("HP", len(code) // 8, ctypes.addressof(buffer))
    receiver.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, given)
