# SPDX-License-Identifier: Apache-2.0
"""RTAS event records: parses the hotplug section of one, and picks the latest of many for each core.

A record from the kernel's error_log is a 4-byte sequence number in the host's byte order (not used here), then a log in
big-endian (PAPR, "Event Scan"): a fixed header of 8 bytes, the version 6 header of 16 bytes, then sections. Each
section begins with its id and its length, 2 bytes each (arch/powerpc/include/asm/rtas.h, struct rtas_error_log,
rtas_ext_event_log_v6, pseries_errorlog; what QEMU writes is in hw/ppc/spapr_events.c).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

#: The sequence number before the log.
_SEQUENCE = 4
_FIXED = struct.Struct(">BBBBI")  # version, severity and flags, initiator and target, type, length of what follows
_EXTENDED = 0x04
_TYPE_HOTPLUG = 0xE5
_V6 = struct.Struct(">B1xB9x4s")  # flags, 1 reserved, format in the low 4 bits, 9 more, the company's id
_V6_VALID, _V6_FORMAT, _V6_EVENT_LOG, _COMPANY = 0x80, 0x0F, 14, b"IBM\0"
_SECTION = struct.Struct(">2sH4x")  # id, length with this header, then version, subtype and creator
#: A hotplug section: 8 bytes of section header, resource type, action, kind of identifier, reserved, identifier.
_HOTPLUG = struct.Struct(">8xBBBxI")
_RESOURCE_CPU, _BY_INDEX = 1, 2
#: The first section, main A: after its header the day and the time of the event by the machine's clock, as decimal
#: digits; the last two are hundredths of a second (struct rtas_event_log_v6_maina).
_CREATED = struct.Struct(">8x8s")
#: The highest 4 bits of a DRC index say what it connects: 1 is a CPU (hw/ppc/spapr_drc.c, SPAPR_DRC_TYPE_SHIFT_CPU).
_DRC_TYPE_SHIFT, _DRC_TYPE_CPU = 28, 1


class RtasError(ValueError):
    """A malformed record, which must not be carried out. The text says what is wrong."""


class Action(enum.Enum):
    """What a hotplug event asks the guest to do; the values are PAPR's."""

    ADD = 1
    REMOVE = 2


@dataclass(frozen=True, slots=True)
class HotplugEvent:
    """A request to take in or release the core at a DR connector. `created` is None if the record has no time."""

    action: Action
    drc_index: int
    created: datetime | None = field(default=None, compare=False)


def parse(record: bytes) -> HotplugEvent | None:
    """Return what a record asks for; None if it is well-formed and not about a CPU. Raise RtasError otherwise."""
    log = record[_SEQUENCE:]
    if len(log) < _FIXED.size:
        raise RtasError(f"a record of {len(record)} bytes has no header")
    version, flags, _, kind, length = _FIXED.unpack_from(log)
    if kind != _TYPE_HOTPLUG:
        return None
    if version < 6 or not flags & _EXTENDED:
        raise RtasError(f"a hotplug event of version {version}, flags {flags:#x}: only version 6 with an extension is")
    extension = log[_FIXED.size : _FIXED.size + length]
    if len(extension) < length:
        raise RtasError(f"its header says {length} bytes follow, and {len(extension)} do")
    if length < _V6.size:
        raise RtasError(f"an extension of {length} bytes is too short for its header")
    valid, form, company = _V6.unpack_from(extension)
    if not valid & _V6_VALID or form & _V6_FORMAT != _V6_EVENT_LOG or company != _COMPANY:
        raise RtasError(f"not a valid version 6 event log: flags {valid:#x}, format {form:#x}, company {company!r}")
    event = _hotplug(_section(extension, b"HP"))
    return None if event is None else replace(event, created=_created(extension))


def latest(events: Iterable[HotplugEvent]) -> tuple[HotplugEvent, ...]:
    """Return the last event of each connector, in their order.

    QEMU plugs nothing where a removal is pending, so earlier events have been carried out or overtaken.
    """
    found: dict[int, HotplugEvent] = {}
    for event in events:
        found.pop(event.drc_index, None)
        found[event.drc_index] = event
    return tuple(found.values())


def _created(extension: bytes) -> datetime | None:
    try:
        (digits,) = _CREATED.unpack_from(_section(extension, b"PH"))
        return datetime.strptime(digits.hex()[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except (RtasError, struct.error, ValueError):
        return None  # without it an event counts as old, which is safe


def _section(extension: bytes, wanted: bytes) -> bytes:
    offset = _V6.size
    while offset < len(extension):
        if len(extension) - offset < _SECTION.size:
            raise RtasError(f"{len(extension) - offset} bytes after the last section")
        name, length = _SECTION.unpack_from(extension, offset)
        if length < _SECTION.size or offset + length > len(extension):
            raise RtasError(f"section {name!r} says it has {length} bytes, {len(extension) - offset} are left")
        if name == wanted:
            return extension[offset : offset + length]
        offset += length
    raise RtasError(f"a hotplug event without a section {wanted!r}")


def _hotplug(section: bytes) -> HotplugEvent | None:
    if len(section) < _HOTPLUG.size:
        raise RtasError(f"a hotplug section of {len(section)} bytes is too short")
    resource, action, kind, drc_index = _HOTPLUG.unpack_from(section)
    if resource != _RESOURCE_CPU:
        return None
    if kind != _BY_INDEX or drc_index >> _DRC_TYPE_SHIFT != _DRC_TYPE_CPU:
        raise RtasError(f"a CPU is named by DRC index, not by kind {kind} and {drc_index:#x}")
    try:
        return HotplugEvent(Action(action), drc_index)
    except ValueError:
        raise RtasError(f"no such action: {action}") from None
