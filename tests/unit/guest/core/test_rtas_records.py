# SPDX-License-Identifier: Apache-2.0
"""RTAS records: what is captured is understood, what is malformed is never acted on."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcpu_guest.core.rtas_records import Action, HotplugEvent, RtasError, latest, parse

FIXTURE = Path(__file__).parents[3] / "fixtures" / "rtas-hotplug-legacy.json"
CAPTURED: list[dict[str, Any]] = json.loads(FIXTURE.read_text())["records"]
#: The capture leaves out the zeros at the end: the log itself has 116 bytes after the sequence number.
ADD = bytes.fromhex(CAPTURED[0]["hex"]).ljust(120, b"\0")
#: Where in a read record what stands: after the sequence number of 4 bytes.
VERSION, FLAGS, KIND, LENGTH, V6, COMPANY, FIRST, HP = 4, 5, 7, 8, 12, 24, 28, 100


def changed(offset: int, data: bytes) -> bytes:
    return ADD[:offset] + data + ADD[offset + len(data) :]


@pytest.mark.parametrize("captured", CAPTURED, ids=lambda captured: captured["action"])
def test_a_captured_record_says_what_was_asked_for(captured: dict[str, Any]) -> None:
    wanted = HotplugEvent(Action[captured["action"].upper()], int(captured["drc_index"], 16))
    record = bytes.fromhex(captured["hex"])
    assert parse(record.ljust(120, b"\0")) == wanted
    # as read: the rest of the 2052 bytes is zero
    assert parse(record.ljust(2052, b"\0")) == wanted


def test_a_record_says_when_it_was_made_and_one_that_does_not_is_understood_all_the_same() -> None:
    first = parse(ADD)
    assert first is not None
    assert first.created == datetime(2026, 11, 22, 20, 47, 18, tzinfo=UTC)
    for no_time in (changed(FIRST + 8, b"\xff" * 8), changed(FIRST, b"XX")):
        event = parse(no_time)
        assert event is not None
        assert (event.drc_index, event.created) == (first.drc_index, None)


@pytest.mark.parametrize(
    ("record", "what"),
    [
        (changed(KIND, b"\x40"), "another type of event"),
        (changed(HP + 8, b"\x02"), "memory"),
        (changed(HP + 8, b"\x05"), "PCI"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_about_a_cpu_is_none_of_ours(record: bytes, what: str) -> None:
    assert parse(record) is None, what


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (b"", "no header"),
        (ADD[:11], "no header"),
        (changed(VERSION, b"\x05"), "version 5"),
        (changed(FLAGS, b"\x30"), "flags 0x30"),
        (ADD[:-1], "108 bytes follow, and 107 do"),
        (changed(LENGTH, b"\0\0\0\x0f"), "too short for its header"),
        (changed(LENGTH, b"\xff\xff\xff\xff"), "4294967295 bytes follow"),
        (changed(V6, b"\x06"), "not a valid version 6"),
        (changed(V6 + 2, b"\x0d"), "not a valid version 6"),
        (changed(COMPANY, b"ABM"), "company"),
        (changed(FIRST + 2, b"\0\0"), "section b'PH' says it has 0 bytes"),
        (changed(FIRST + 2, b"\0\x07"), "section b'PH' says it has 7 bytes"),
        (changed(FIRST + 2, b"\xff\xff"), "section b'PH' says it has 65535 bytes"),
        (changed(LENGTH, b"\0\0\0\x60"), "says it has 20 bytes, 8 are left"),
        (changed(LENGTH, b"\0\0\0\x59"), "1 bytes after the last section"),
        (changed(LENGTH, b"\0\0\0\x5b"), "3 bytes after the last section"),
        (changed(HP, b"XX"), "without a section b'HP'"),
        (changed(LENGTH, b"\0\0\0\x58"), "without a section b'HP'"),
        (changed(HP + 2, b"\0\x0c"), "hotplug section of 12 bytes"),
        (changed(HP + 9, b"\0"), "no such action: 0"),
        (changed(HP + 9, b"\x03"), "no such action: 3"),
        (changed(HP + 10, b"\x03"), "not by kind 3"),
        (changed(HP + 12, b"\x80\0\0\x03"), "0x80000003"),
    ],
)
def test_a_malformed_record_is_told_and_never_acted_on(record: bytes, says: str) -> None:
    with pytest.raises(RtasError, match="^.*" + re.escape(says)):
        parse(record)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    with suppress(RtasError):
        assert parse(data) is None or data[KIND] == 0xE5


@given(st.integers(0, len(ADD)))
def test_a_cut_record_is_never_acted_on(end: int) -> None:
    with suppress(RtasError):
        assert (parse(ADD[:end]) is not None) == (end == len(ADD))


@given(st.integers(4, len(ADD) - 1), st.integers(1, 255))
def test_a_changed_byte_makes_no_other_order_than_an_action_and_an_index(offset: int, flip: int) -> None:
    with suppress(RtasError):
        found = parse(changed(offset, bytes([ADD[offset] ^ flip])))
        if found is not None:
            assert found.drc_index >> 28 == 1
            assert found == HotplugEvent(Action.ADD, 0x10000003) or HP + 9 <= offset < HP + 16


def test_the_last_word_on_a_core_counts_in_the_order_of_arrival() -> None:
    events = [
        HotplugEvent(Action.ADD, 1),
        HotplugEvent(Action.ADD, 2),
        HotplugEvent(Action.REMOVE, 1),
        HotplugEvent(Action.ADD, 3),
    ]
    assert latest(events) == (HotplugEvent(Action.ADD, 2), HotplugEvent(Action.REMOVE, 1), HotplugEvent(Action.ADD, 3))
