# SPDX-License-Identifier: Apache-2.0
"""The session protocol: both ends, and everything that can come between them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcpu_proto.link.events import Accepted, AgentStarted, Data, EndCode, Ended, Event, Opened, Pong, VersionMismatch
from vcpu_proto.link.frames import MAX_ENCODED, NO_TOKEN, Decoder, Frame, Kind, encode
from vcpu_proto.link.session import Role, Session, SessionError, State

A, B = b"agent--A", b"agent--B"
T1, T2, T3 = b"token--1", b"token--2", b"token--3"


def guest(instance: bytes = A, version: int = 1) -> Session:
    return Session(Role.GUEST, instance=instance, version=version)


def pair() -> tuple[Session, Session]:
    """A host and a guest with an open session T1."""
    here, there = Session(Role.HOST), guest()
    assert there.receive(here.open(T1)) == [Opened(T1)]
    assert here.receive(there.replies()) == [Accepted(T1, A)]
    return here, there


def kinds(data: bytes) -> list[tuple[int, bytes]]:
    return [(frame.kind, frame.token) for frame in Decoder().feed(data)]


def test_a_session_opens_carries_data_both_ways_and_closes() -> None:
    here, there = pair()
    assert (here.state, there.state) == (State.OPEN, State.OPEN)
    assert there.receive(here.send(b"question")) == [Data(b"question")]
    assert here.receive(there.send(b"answer")) == [Data(b"answer")]
    assert there.receive(here.close(EndCode.LOCAL_ENDED, "bye")) == [Ended(T1, EndCode.LOCAL_ENDED, "bye")]
    assert (here.state, there.state) == (State.IDLE, State.IDLE)
    assert there.replies() == b""


def test_more_than_a_frame_holds_is_sent_as_several_in_order() -> None:
    here, there = pair()
    data = bytes(range(256)) * 300
    events = there.receive(here.send(data))
    assert len(events) == 5
    assert b"".join(event.data for event in events if isinstance(event, Data)) == data


@given(st.lists(st.binary(max_size=200), max_size=5), st.binary(max_size=300), st.integers(0, 100_000), st.binary())
def test_the_next_session_works_after_a_cut_at_any_byte_and_any_garbage(
    chunks: list[bytes], stale: bytes, cut: int, noise: bytes
) -> None:
    here, there = pair()
    stream = b"".join(here.send(chunk) for chunk in chunks)
    there.receive(stream[: cut % (len(stream) + 1)] + noise)
    there.replies()
    there.send(stale) if there.state is State.OPEN else None

    again = Session(Role.HOST)
    assert Opened(T2) in there.receive(again.open(T2))
    # What the guest still owed the old session arrives before its answer to the new one.
    left_over = encode(Frame(Kind.DATA, T1, 0, stale))
    assert again.receive(left_over[cut % len(left_over) :] + noise + there.replies()) == [Accepted(T2, A)]
    assert there.receive(again.send(b"?")) == [Data(b"?")]
    assert again.receive(there.send(b"!")) == [Data(b"!")]


def test_a_new_open_replaces_the_session_of_a_host_that_went_without_a_word() -> None:
    _, there = pair()
    assert there.receive(Session(Role.HOST).open(T2)) == [Ended(T1, EndCode.REPLACED), Opened(T2)]
    assert kinds(there.replies()) == [(Kind.ACCEPT, T2)]


def test_a_repeated_open_is_accepted_again_and_opens_nothing() -> None:
    here, there = Session(Role.HOST), guest()
    twice = here.open(T1) + here.open(T1)
    assert there.receive(twice) == [Opened(T1)]
    answer = there.replies()
    assert kinds(answer) == [(Kind.ACCEPT, T1)]
    assert here.receive(answer * 2) == [Accepted(T1, A)]


def test_a_late_copy_of_an_open_does_not_raise_the_dead() -> None:
    here, there = pair()
    there.receive(here.close(EndCode.LOCAL_ENDED))
    assert there.receive(encode(Frame(Kind.OPEN, T1))) == []
    assert there.state is State.IDLE
    assert kinds(there.replies()) == [(Kind.RESET, T1)]


def test_data_of_a_session_that_the_agent_does_not_know_is_answered_with_a_reset_and_the_host_notices() -> None:
    here, _ = pair()
    restarted = guest(B)
    assert restarted.receive(here.send(b"lost")) == []
    assert here.receive(restarted.replies()) == [Ended(T1, EndCode.UNKNOWN_TO_PEER)]


def test_a_ping_of_a_session_that_the_agent_does_not_know_is_answered_with_a_reset() -> None:
    here, _ = pair()
    restarted = guest(B)
    restarted.receive(here.ping(b"nonce--1"))
    assert kinds(restarted.replies()) == [(Kind.RESET, T1)]


def test_resets_are_few_however_many_stale_frames_come() -> None:
    there = guest()
    resets = 0
    for seq in range(640):
        there.receive(encode(Frame(Kind.DATA, T1, seq, b"stale")))
        resets += len(kinds(there.replies()))
    assert resets == 10


def test_nothing_is_ever_answered_to_a_reset_a_close_or_a_pong() -> None:
    for role in Role:
        end = Session(role, instance=A)
        for kind in (Kind.RESET, Kind.CLOSE, Kind.PONG):
            assert end.receive(encode(Frame(kind, T3, 0, b"12345678"))) == []
        assert end.replies() == b""


def test_the_host_drops_frames_of_older_sessions_silently() -> None:
    here, _ = pair()
    for kind in Kind:
        if kind is not Kind.BEACON:
            assert here.receive(encode(Frame(kind, T3, 0, b"12345678"))) == []
    assert here.replies() == b""
    assert here.state is State.OPEN


def test_a_gap_ends_the_session_and_says_so() -> None:
    here, there = pair()
    here.send(b"lost on the way")
    assert there.receive(here.send(b"second")) == [Ended(T1, EndCode.GAP, "expected frame 0, got 1")]
    assert here.receive(there.replies()) == [Ended(T1, EndCode.GAP, "expected frame 0, got 1")]


def test_sequence_numbers_wrap() -> None:
    here, there = pair()
    here._send_seq = there._receive_seq = 0xFFFFFFFF
    assert there.receive(here.send(b"a") + here.send(b"b")) == [Data(b"a"), Data(b"b")]


def test_a_beacon_of_another_instance_ends_the_host_s_session_and_one_of_the_same_does_not() -> None:
    here, there = pair()
    assert here.receive(there.beacon()) == [AgentStarted(A)]
    assert here.state is State.OPEN
    assert here.receive(guest(B).beacon()) == [Ended(T1, EndCode.AGENT_RESTARTED), AgentStarted(B)]


def test_a_second_accept_from_another_instance_ends_the_host_s_session() -> None:
    here, _ = pair()
    second = guest(B)
    second.receive(encode(Frame(Kind.OPEN, T1)))
    assert here.receive(second.replies()) == [Ended(T1, EndCode.AGENT_RESTARTED)]


def test_ping_is_answered_by_the_link_itself() -> None:
    here, there = pair()
    assert there.receive(here.ping(b"nonce--1")) == []
    assert here.receive(there.replies()) == [Pong(b"nonce--1")]


@pytest.mark.parametrize(("ours", "theirs", "update"), [(1, 2, "host"), (2, 1, "guest")])
def test_another_version_is_refused_with_who_must_update(ours: int, theirs: int, update: str) -> None:
    here, there = Session(Role.HOST, version=ours), guest(version=theirs)
    assert there.receive(here.open(T1)) == []
    mismatch, ended = here.receive(there.replies())
    assert isinstance(mismatch, VersionMismatch)
    assert (mismatch.ours, mismatch.theirs, mismatch.update) == (ours, theirs, update)
    assert ended == Ended(T1, EndCode.VERSION)


def test_the_restart_of_an_agent_of_another_version_ends_the_session() -> None:
    here, _ = pair()
    assert here.receive(guest(B, version=2).beacon()) == [Ended(T1, EndCode.AGENT_RESTARTED)]


def test_a_kind_from_the_future_is_ignored() -> None:
    here, there = pair()
    assert there.receive(encode(Frame(13, T1, 0, b"new"))) == []
    assert there.receive(here.send(b"on")) == [Data(b"on")]


def test_the_words_of_a_close_are_bounded_and_its_code_may_be_unknown() -> None:
    here, _ = pair()
    (ended,) = here.receive(encode(Frame(Kind.CLOSE, T1, 0, b"\x3f" + b"\xff\x1b[2J" * 1000)))
    assert isinstance(ended, Ended)
    assert ended.code is EndCode.OTHER
    assert len(ended.text) <= 255
    assert "\x1b" not in str(ended)


@pytest.mark.parametrize("code", [64, 65, 66, 67])
def test_a_peer_cannot_claim_an_end_that_only_we_can_see(code: int) -> None:
    here, _ = pair()
    assert here.receive(encode(Frame(Kind.CLOSE, T1, 0, bytes([code])))) == [Ended(T1, EndCode.OTHER)]


@pytest.mark.parametrize("kind", [Kind.ACCEPT, Kind.BEACON, Kind.PING, Kind.PONG])
@pytest.mark.parametrize("role", list(Role))
def test_a_payload_that_is_too_short_is_ignored(kind: Kind, role: Role) -> None:
    end = pair()[role is Role.GUEST]
    assert end.receive(encode(Frame(kind, T1, 0, b"short"))) == []
    assert end.replies() == b""
    assert end.state is State.OPEN


def test_calls_that_the_state_does_not_allow_are_refused() -> None:
    here, there = pair()
    wrongs: list[Callable[[], bytes]] = [
        lambda: here.open(T2),
        lambda: there.open(T2),
        here.beacon,
        lambda: Session(Role.HOST).send(b"x"),
    ]
    for wrong in wrongs:
        with pytest.raises(SessionError):
            wrong()
    with pytest.raises(SessionError):
        Session(Role.HOST).ping(b"nonce--1")
    for bad in (NO_TOKEN, b"short"):
        with pytest.raises(ValueError, match="token"):
            Session(Role.HOST).open(bad)
    assert Session(Role.HOST).close(EndCode.LOCAL_ENDED) == b""


@given(
    st.sampled_from(list(Role)),
    st.lists(
        st.builds(
            lambda kind, token, seq, payload, version: encode(Frame(kind, token, seq, payload, version)),
            st.integers(0, 15),
            st.sampled_from([NO_TOKEN, T1, T2, T3]),
            st.integers(0, 3),
            st.sampled_from([b"", b"\x01", A, B + b"more"]),
            st.sampled_from([1, 1, 1, 2]),
        ),
        max_size=40,
    ),
)
def test_no_order_of_frames_breaks_an_end_or_makes_it_owe_much(role: Role, flood: list[bytes]) -> None:
    end = pair()[role is Role.GUEST]
    events: list[Event] = []
    for frame in flood:
        events += end.receive(frame)
    assert len(end.replies()) < 5 * 2 * 300
    assert end.decoder.held <= MAX_ENCODED
    # Every session that ended was one that began, and the end is the same as what the events say.
    open_now = T1
    for event in events:
        if isinstance(event, Opened):
            assert open_now == NO_TOKEN
            open_now = event.token
        elif isinstance(event, Ended):
            assert event.token == open_now
            open_now = NO_TOKEN
        elif isinstance(event, Data):
            assert open_now != NO_TOKEN
    assert end.token == open_now
    assert (end.state is State.OPEN) == (open_now != NO_TOKEN)
