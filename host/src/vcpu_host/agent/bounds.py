# SPDX-License-Identifier: Apache-2.0
"""From bytes to a message of vcpu.v1, after a look at how much memory that message would take.

Two bytes on the wire can become a hundred in memory (an empty Cpu), so the bound on a message's size does not bound
what parsing it costs: one of 8 MiB could hold four million CPUs. What makes it grow is the number of its fields, so
these are counted first, wherever there may be many, in messages that are long enough to matter.
"""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

_Message = TypeVar("_Message", bound=Message)

#: Bytes; one snapshot of the most CPUs that the contract allows fits well (about 100 bytes a CPU).
MAX_MESSAGE = 8 * 1024 * 1024
#: Fields of one message, without those inside of a Cpu or a CpuResult: the most CPUs that the contract allows fit in
#: any answer, for each takes one field in a snapshot, and four as a result on the Control stream.
MAX_FIELDS = 4 * 65536
#: Bytes of a message that is parsed uncounted: of two bytes each, no more fields than that fit in.
SMALL = 2 * MAX_FIELDS

#: Wire types (protobuf's encoding): how a value's length is told. Groups, 3 and 4, are in no message of ours.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: By number, the fields that hold messages with repeated fields in them, and those messages' own table.
_Table = dict[int, "_Table"]


class BadMessageError(ValueError):
    """The agent sent what the contract forbids; the text says what."""


def parse(kind: type[_Message], data: bytes | None) -> _Message:
    """Return the message. Raise BadMessageError if the bytes are none, or one that is out of bounds.

    gRPC gives None where a call ended well without an answer.
    """
    if data is None:
        raise BadMessageError("no message where the contract has one")
    if len(data) > SMALL:
        _count(data, 0, len(data), _table(kind.DESCRIPTOR), MAX_FIELDS)
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise _no_message() from error
    return message


def _table(descriptor: Any) -> _Table:
    return {
        field.number: _table(field.message_type)
        for field in descriptor.fields
        if field.message_type is not None and _may_be_long(field.message_type)
    }


def _may_be_long(descriptor: Any) -> bool:
    return any(
        _repeated(field) or (field.message_type is not None and _may_be_long(field.message_type))
        for field in descriptor.fields
    )


def _repeated(field: Any) -> bool:
    """Return whether the field is repeated.

    Protobuf 3.21 has ``label`` alone, 7 has ``is_repeated`` alone.
    """
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


def _count(data: bytes, at: int, end: int, table: _Table, left: int) -> int:
    """Return how many fields there may be beyond those between ``at`` and ``end``. Time is linear in their number."""
    while at < end:
        left -= 1
        if left < 0:
            raise BadMessageError(f"more than {MAX_FIELDS} fields in one message")
        tag, at = _varint(data, at, end)
        wire_type = tag & 7
        if wire_type == _BYTES:
            size, at = _varint(data, at, end)
            if at + size > end:
                raise _no_message()
            inside = table.get(tag >> 3)
            if inside is not None:
                left = _count(data, at, at + size, inside, left)
            at += size
        elif wire_type == _VARINT:
            _, at = _varint(data, at, end)
        elif wire_type == _FIXED64:
            at += 8
        elif wire_type == _FIXED32:
            at += 4
        else:
            raise _no_message()
    return left


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the number at ``at``, and where it ends."""
    number = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise _no_message()


def _no_message() -> BadMessageError:
    return BadMessageError("bytes that are no message of the contract")
