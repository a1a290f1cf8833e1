# SPDX-License-Identifier: Apache-2.0
"""What a message would become in memory is known before it is parsed."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcpu_host.agent.bounds import MAX_FIELDS, SMALL, BadMessageError, parse
from vcpu_proto.v1 import agent_pb2 as pb


def field(number: int, inside: bytes) -> bytes:
    """A length-delimited field."""
    length, left = b"", len(inside)
    while left > 0x7F:
        length += bytes([left & 0x7F | 0x80])
        left >>= 7
    return bytes([number << 3 | 2]) + length + bytes([left]) + inside


#: As many empty CPUs as two bytes each can be; in a snapshot, in a list, in an answer of the stream.
MANY = b"\x22\x00" * (MAX_FIELDS + 1)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (pb.Snapshot, MANY),
        (pb.ListCpusResponse, field(2, MANY)),
        (pb.WatchResponse, field(2, MANY)),
        (pb.SetOnlineResponse, field(3, MANY)),
        (pb.ControlResponse, field(1, field(1, field(2, MANY)))),
        (pb.ControlResponse, field(1, field(1, field(2, MANY[: MAX_FIELDS // 2]))) * 5),
        (pb.ControlResponse, field(1, field(4, field(2, b"\x12\x00" * (MAX_FIELDS + 1))))),
        (pb.ControlResponse, b"\x0a\x00" * (MAX_FIELDS + 1)),
        (pb.HelloResponse, b"\x22\x00" * (MAX_FIELDS + 1)),
        (pb.HelloResponse, field(11, b"\x32\x00" * (MAX_FIELDS + 1))),
        (pb.HelloResponse, b"\x08\x01" * (MAX_FIELDS + 1)),
    ],
    ids=[
        "snapshot",
        "list",
        "watch",
        "final",
        "control",
        "merged",
        "pins",
        "answers",
        "capabilities",
        "rules",
        "numbers",
    ],
)
def test_a_message_of_more_fields_than_any_can_have_is_not_parsed(kind: type[pb.Snapshot], data: bytes) -> None:
    with pytest.raises(BadMessageError, match="fields"):
        parse(kind, data)


def test_what_is_long_for_its_words_and_not_for_its_number_is_parsed() -> None:
    answer = pb.HelloResponse(kernel="k" * (2 * SMALL), capabilities=["c"])
    assert parse(pb.HelloResponse, answer.SerializeToString()) == answer


@pytest.mark.parametrize("tail", [b"\x22", b"\x22\x7f", b"\x22\xff\xff", b"\x13", b"\x80" * 20], ids=repr)
def test_a_long_message_that_is_torn_or_none_at_all_is_said_to_be_none(tail: bytes) -> None:
    with pytest.raises(BadMessageError, match="no message"):
        parse(pb.Snapshot, field(2, b"x" * SMALL) + tail)


def test_an_answer_that_is_missing_is_said_to_be_missing() -> None:
    with pytest.raises(BadMessageError, match="no message where"):
        parse(pb.HelloResponse, None)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_bad_one_whether_counted_or_not(data: bytes) -> None:
    # An unknown field makes it long enough to be counted, and changes nothing else.
    for whole in (data, field(15, b"x" * SMALL) + data):
        with contextlib.suppress(BadMessageError):
            parse(pb.ControlResponse, whole)
