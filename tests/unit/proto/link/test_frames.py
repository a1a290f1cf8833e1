# SPDX-License-Identifier: Apache-2.0
"""The frame codec: what it promises for any bytes whatever."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.sim.effort import Effort
from vcpu_proto.link.frames import MAX_ENCODED, MAX_PAYLOAD, NO_TOKEN, Decoder, Frame, Kind, encode

frames = st.builds(
    Frame,
    kind=st.integers(0, 15),
    token=st.binary(min_size=8, max_size=8),
    seq=st.integers(0, (1 << 32) - 1),
    payload=st.one_of(st.binary(max_size=300), st.text("\x7d\x7e\x5d\x5e").map(str.encode)),
    version=st.integers(0, 15),
)
garbage = st.one_of(st.binary(max_size=400), st.text("\x7d\x7e\x5d\x5e\x00").map(str.encode))


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def test_a_frame_on_the_wire_is_what_the_protocol_page_shows() -> None:
    frame = Frame(Kind.DATA, bytes.fromhex("000102030405067e"), 7, b"\x7d!")
    assert encode(frame).hex(" ") == "7e 13 00 01 02 03 04 05 06 7d 5e 00 00 00 07 7d 5d 21 c0 70 91 6e 7e"


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
def test_frames_come_out_as_they_went_in_however_the_stream_is_split(sent: list[Frame], cuts: list[int]) -> None:
    decoder = Decoder()
    stream = b"".join(map(encode, sent))
    assert [frame for piece in split(stream, cuts) for frame in decoder.feed(piece)] == sent
    assert decoder.dropped_bytes == decoder.dropped_frames == decoder.held == 0


@given(garbage, frames)
def test_a_frame_is_found_after_any_garbage(before: bytes, frame: Frame) -> None:
    assert Decoder().feed(before + encode(frame))[-1] == frame


@given(frames, frames, st.integers(0, 10_000))
def test_a_frame_cut_off_at_any_byte_costs_only_itself(torn: Frame, whole: Frame, at: int) -> None:
    stream = encode(torn)
    cut = at % len(stream)
    found = Decoder().feed(stream[:cut] + encode(whole))
    # All but the closing flag is a whole frame: the next one's flag closes it.
    assert found == ([torn, whole] if cut == len(stream) - 1 else [whole])


@given(frames, frames, st.integers(0, 10_000))
def test_reading_may_begin_at_any_byte(torn: Frame, whole: Frame, at: int) -> None:
    stream = encode(torn)
    assert Decoder().feed(stream[1 + at % (len(stream) - 1) :] + encode(whole))[-1] == whole


@given(frames, st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_byte_never_makes_another_frame(frame: Frame, at: int, flip: int) -> None:
    stream = bytearray(encode(frame))
    stream[at % len(stream)] ^= flip
    assert Decoder().feed(bytes(stream)) in ([], [frame])


@given(st.lists(garbage, max_size=8))
def test_what_is_decoded_encodes_to_bytes_that_were_there(pieces: list[bytes]) -> None:
    decoder = Decoder()
    for piece in pieces:
        for frame in decoder.feed(piece):
            assert encode(frame) in b"".join(pieces)
        assert decoder.held <= MAX_ENCODED


def test_a_frame_of_the_greatest_size_fits_and_a_greater_one_does_not() -> None:
    worst = Frame(Kind.DATA, b"\x7e" * 8, 0x7E7E7E7E, b"\x7e" * MAX_PAYLOAD)
    assert Decoder().feed(encode(worst)) == [worst]
    with pytest.raises(ValueError, match="16385"):
        encode(worst._replace(payload=bytes(MAX_PAYLOAD + 1)))


@pytest.mark.parametrize("wrong", [{"kind": 16}, {"version": 16}, {"seq": 1 << 32}, {"seq": -1}, {"token": b"short"}])
def test_what_no_frame_can_hold_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no frame"):
        encode(Frame(Kind.DATA, NO_TOKEN)._replace(**wrong))


def test_a_stretch_without_flags_is_dropped_as_it_comes_and_counted() -> None:
    decoder = Decoder()
    for _ in range(100):
        assert decoder.feed(b"x" * 10_000) == []
        assert decoder.held <= MAX_ENCODED
    assert decoder.feed(encode(Frame(Kind.PING, NO_TOKEN))) == [Frame(Kind.PING, NO_TOKEN)]
    assert decoder.dropped_bytes == 1_000_000
    assert decoder.dropped_frames == 1


@pytest.mark.parametrize("flood", [b"\x7e", b"\x7d", b"\x7e\x7d", b"\x7e" + b"x" * 40_000, bytes(range(256))])
def test_any_flood_takes_linear_work_and_bounded_memory(flood: bytes) -> None:
    chunk = flood * max(1, 16_384 // len(flood))
    decoder = Decoder()

    def work(rounds: int) -> Effort:
        effort = Effort()
        with effort.counting():
            for _ in range(rounds):
                decoder.feed(chunk)
        return effort

    def peak(rounds: int) -> int:
        tracemalloc.start()
        for _ in range(rounds):
            decoder.feed(chunk)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few, many = work(2), work(16)
    # 8 times the bytes: 8 times the work if linear, 64 times if quadratic.
    assert many.calls < 10 * few.calls
    assert few.bytes >= 2 * len(chunk)
    assert many.bytes < 10 * few.bytes
    # what is kept would grow with the rounds
    assert peak(16) < peak(2) + 4 * len(chunk)


def test_single_bytes_cost_no_more_than_linear_work() -> None:
    decoder = Decoder()
    stream = encode(Frame(Kind.DATA, NO_TOKEN, 0, b"x" * MAX_PAYLOAD)) * 8
    effort = Effort()
    with effort.counting():
        found = [frame for at in range(len(stream)) for frame in decoder.feed(stream[at : at + 1])]
    assert len(found) == 8
    # a few calls for each byte, and each byte gone through a few times: what was held is not searched again
    assert effort.calls < 16 * len(stream)
    assert effort.bytes < 16 * len(stream)
