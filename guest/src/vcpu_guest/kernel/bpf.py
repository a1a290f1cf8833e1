# SPDX-License-Identifier: Apache-2.0
"""A socket filter that lets only the events of CPUs through.

Events of other devices then neither wake the agent up nor fill its buffer. A new CPU causes a dozen of them.

libudev's own filter does not help with the kernel's group: it recognises udevd's messages by their header, passes all
others, and drops them only after they were read (systemd, sd-device/device-monitor.c).

The kernel's messages begin with "ACTION@DEVPATH", for example "add@/devices/system/cpu/cpu3" (lib/kobject_uevent.c).
Linux' Documentation/networking/filter.rst describes the filter's language.
"""

from __future__ import annotations

import ctypes
import socket
import struct

_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE = 0x20, 0x28, 0x30
_IF_EQUAL, _IF_GREATER, _IF_AT_LEAST, _RETURN = 0x15, 0x25, 0x35, 0x06
_ALL, _NONE = 0xFFFFFFFF, 0
#: The same number on every architecture of our platforms (asm-generic/socket.h; Python has no name for it).
_SO_ATTACH_FILTER = 26

_PATH = b"@/devices/system/cpu/cpu"
#: Lengths of the kernel's names of actions: add; bind, move; remove, change, online, unbind; offline.
_LENGTHS = (3, 4, 6, 7)

_Instruction = tuple[int, int, int, int]


def program() -> list[_Instruction]:
    """Return the filter as (code, jump if true, jump if false, constant). Messages of an unknown form pass."""
    instructions: list[_Instruction] = []
    for length in _LENGTHS:
        block = _block(length)
        # Without an "@" here, jump to the block of the next length.
        instructions += [(_LOAD_BYTE, 0, 0, length), (_IF_EQUAL, 0, len(block), _PATH[0]), *block]
    return [*instructions, (_RETURN, 0, 0, _ALL)]


def _block(length: int) -> list[_Instruction]:
    """Return the part that passes "cpuN" (the last instruction but one) and drops the rest (the last one)."""
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
    """Let only such messages into the socket from now on. Raise OSError if the kernel does not take the filter."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program())
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions, and where they are.
    given = struct.pack("HP", len(code) // 8, ctypes.addressof(buffer))
    receiver.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, given)
